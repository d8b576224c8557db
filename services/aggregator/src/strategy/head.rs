//! A classification head in a round: trained in full at every site, and merged by the plain weighted mean, whatever the
//! rule for factors is. It stands before them in an adapter's file.
//!
//! `W' = W + Σ_i p_i·c_i·(W_i − S_i)`, `S_i` being what site i had loaded: with equal steps and nobody late that is
//! `Σ_i p_i·W_i`.

use domain::adapter::{HeadShape, HeadTensor, is_head_key};
use engine::adapter::Head;

use super::Error;
use super::check::Refused;
use super::merge::{Input, Merge};
use super::source::{Sink, Source};

/// Whether a key is a head's.
#[must_use]
pub fn is_head(key: &str) -> bool {
    is_head_key(key)
}

/// The head's tensors with their shapes, in the order of their names.
#[must_use]
pub fn tensors(head: HeadShape) -> Vec<(String, Vec<usize>)> {
    let named = |tensor: HeadTensor| (tensor.key.to_owned(), tensor.shape);
    head.tensors().into_iter().map(named).collect()
}

/// The shape of an adapter's head; none where it has none.
#[must_use]
pub fn shape(adapter: &dyn Source) -> Option<HeadShape> {
    HeadShape::found(|key| adapter.shape(key))
}

/// Writes the head that a job starts from.
///
/// # Errors
/// If it cannot be written.
pub fn fresh(head: HeadShape, seed: u64, out: &mut dyn Sink) -> Result<(), Error> {
    // A head tells at least one class apart.
    let made = Head::fresh(head, seed).map_err(|_| Error::Global {
        source: missing("classifier"),
    })?;
    for tensor in head.tensors() {
        write(&tensor, made.part(tensor.part).to_vec(), out)?;
    }
    Ok(())
}

/// Writes the head that a merge's inputs come to; nothing where the merged adapter has none.
///
/// # Errors
/// If an update's head is not the merged adapter's, or a number passes 32-bit floats.
pub(super) fn merge(merge: &Merge<'_>, out: &mut dyn Sink) -> Result<(), Error> {
    let Some(head) = shape(merge.global) else {
        return Ok(());
    };
    for tensor in head.tensors() {
        let values = mean(merge, tensor.key, &tensor.shape)?;
        write(&tensor, values, out)?;
    }
    Ok(())
}

fn mean(merge: &Merge<'_>, key: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
    let global = |source| Error::Global { source };
    let now = values(merge.global, key, shape).map_err(global)?;
    let mut sum: Vec<f64> = now.iter().map(|value| f64::from(*value)).collect();
    for input in merge.inputs {
        let part = input.weight * input.stretch;
        let update = values(input.update, key, shape).map_err(|source| of(input, source))?;
        let loaded = input.start.map(|start| values(start, key, shape));
        let loaded = loaded.transpose().map_err(global)?;
        let moved = update.iter().zip(loaded.as_ref().unwrap_or(&now));
        for (sum, (update, loaded)) in sum.iter_mut().zip(moved) {
            *sum += part * (f64::from(*update) - f64::from(*loaded));
        }
    }
    let merged: Vec<f32> = sum.into_iter().map(|value| value as f32).collect();
    if merged.iter().all(|value| value.is_finite()) {
        return Ok(merged);
    }
    let key = key.to_owned();
    Err(Error::Diverged { key })
}

fn of(input: &Input<'_>, source: Refused) -> Error {
    Error::Update {
        worker: input.worker.clone(),
        source,
    }
}

/// Reads one tensor of a head: of this shape, and finite.
pub(super) fn values(
    source: &dyn Source,
    key: &str,
    expected: &[usize],
) -> Result<Vec<f32>, Refused> {
    let found = source.shape(key).ok_or_else(|| missing(key))?;
    if found != expected {
        let rows = expected.len() - 1;
        return Err(Refused::Shape {
            key: key.to_owned(),
            found,
            expected: [
                expected.iter().take(rows).product(),
                expected.last().copied().unwrap_or_default(),
            ],
        });
    }
    let values = source.read(key).map_err(|below| Refused::Unreadable {
        key: key.to_owned(),
        source: below,
    })?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(at) => Err(Refused::NotFinite {
            key: key.to_owned(),
            at,
        }),
    }
}

/// `‖W − W₀‖²` of the whole head, bias included; 0 where the update has none.
///
/// # Errors
/// If a tensor is not as demanded.
pub(super) fn square(update: &dyn Source, global: &dyn Source) -> Result<f64, Refused> {
    let Some(head) = shape(update) else {
        return Ok(0.0);
    };
    let mut square = 0.0;
    for (key, shape) in tensors(head) {
        let both = (values(update, &key, &shape)?, values(global, &key, &shape)?);
        let apart = both.0.iter().zip(&both.1);
        let apart = apart.map(|(now, before)| f64::from(*now) - f64::from(*before));
        square += apart.map(|value| value * value).sum::<f64>();
    }
    Ok(square)
}

fn missing(key: &str) -> Refused {
    Refused::Keys(super::check::Keys {
        missing: vec![key.to_owned()],
        extra: Vec::new(),
    })
}

fn write(tensor: &HeadTensor, values: Vec<f32>, out: &mut dyn Sink) -> Result<(), Error> {
    let shape = match tensor.shape.as_slice() {
        &[rows, columns] => [rows, columns],
        other => [1, other.iter().product()],
    };
    let written = out.put(tensor.key, shape, values);
    written.map_err(|source| Error::Write {
        key: tensor.key.to_owned(),
        source,
    })
}

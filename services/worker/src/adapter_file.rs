//! A merged adapter's file as the engine's adapter: whole, or the leading slices a plan asks for.
//!
//! One tensor is read at a time. Everything that is not exactly what is expected is refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use artifacts::tensors::{self, TensorFile};
use domain::adapter::{
    Encoder, HeadPart, HeadShape, HeadTensor, RankTable, WeightName, WeightShape, is_head_key,
};
use engine::adapter::{self, Adapter, Factors, Head};

/// Why a file is not the adapter that was expected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is damaged.
    #[error("the adapter's file cannot be read")]
    File(#[from] tensors::Error),
    /// A key that is not PEFT's for a known weight.
    #[error("the adapter has an unexpected tensor {0}")]
    Unexpected(String),
    /// A factor is not there.
    #[error("the adapter has no tensor {0}")]
    Missing(String),
    /// A factor of another shape.
    #[error("adapter tensor {key} has shape {found:?}, which does not fit {expected}")]
    Shape {
        /// Which tensor.
        key: String,
        /// Its shape.
        found: Vec<usize>,
        /// What would fit.
        expected: String,
    },
    /// A weight that the model does not have.
    #[error("the model has no weight {0}")]
    UnknownWeight(WeightName),
    /// The factors do not make an adapter.
    #[error("the factors make no adapter")]
    Factors(#[from] adapter::Error),
}

/// The leading slices of the file's weights, as many as `ranks` says.
///
/// # Errors
/// [`Error`], the first thing that is wrong.
pub fn leading(
    path: &Path,
    shapes: &[WeightShape],
    ranks: &RankTable,
    scale: f64,
) -> Result<Adapter, Error> {
    let wanted: Vec<_> = ranks.trained().collect();
    read(&TensorFile::open(path)?, shapes, &wanted, scale)
}

/// The file's whole adapter.
///
/// # Errors
/// [`Error`], the first thing that is wrong.
pub fn whole(path: &Path, shapes: &[WeightShape], scale: f64) -> Result<Adapter, Error> {
    let file = TensorFile::open(path)?;
    let mut names = BTreeSet::new();
    for key in file.names() {
        if is_head_key(key) {
            continue;
        }
        let known = WeightName::from_peft(key);
        let (name, _) = known.ok_or_else(|| Error::Unexpected(key.chars().take(120).collect()))?;
        names.insert(name);
    }
    let mut wanted = Vec::new();
    for name in names {
        let (rank, _) = widths(&file, &name.peft_a())?;
        let rank = u16::try_from(rank).map_err(|_| Error::Unexpected(name.peft_a()))?;
        wanted.push((name, rank));
    }
    read(&file, shapes, &wanted, scale)
}

/// The file's side term: what stands behind the `live` slices of any weight, trained here or not. None
/// where nothing does.
///
/// # Errors
/// [`Error`], the first thing that is wrong.
pub fn side(
    path: &Path,
    shapes: &[WeightShape],
    live: &RankTable,
    scale: f64,
) -> Result<Option<Adapter>, Error> {
    let file = TensorFile::open(path)?;
    let known: BTreeMap<_, _> = shapes.iter().map(|shape| (shape.name, *shape)).collect();
    let mut factors = Vec::new();
    for (name, rank) in live.trained() {
        let (rows, _) = widths(&file, &name.peft_a())?;
        let live = usize::from(rank);
        let Some(behind) = rows.checked_sub(live).filter(|behind| *behind > 0) else {
            continue;
        };
        let shape = known
            .get(&name)
            .copied()
            .ok_or(Error::UnknownWeight(name))?;
        let mut a = tensor(&file, &name.peft_a(), |_, cols| cols == shape.inp)?.values;
        a.drain(..live * shape.inp);
        let b = tensor(&file, &name.peft_b(), |out, cols| {
            out == shape.out && cols == rows
        })?;
        let b = b.values.chunks_exact(rows);
        let b = b.flat_map(|row| row.iter().skip(live).copied()).collect();
        let behind = u16::try_from(behind).map_err(|_| Error::Unexpected(name.peft_a()))?;
        factors.push(Factors::new(shape, behind, a, b)?);
    }
    if factors.is_empty() {
        return Ok(None);
    }
    Ok(Some(Adapter::new(scale as f32, factors)?))
}

fn read(
    file: &TensorFile,
    shapes: &[WeightShape],
    wanted: &[(WeightName, u16)],
    scale: f64,
) -> Result<Adapter, Error> {
    let known: BTreeMap<_, _> = shapes.iter().map(|shape| (shape.name, *shape)).collect();
    let mut factors = Vec::with_capacity(wanted.len());
    for (name, rank) in wanted {
        let shape = known
            .get(name)
            .copied()
            .ok_or(Error::UnknownWeight(*name))?;
        let width = usize::from(*rank);
        let mut a = tensor(file, &name.peft_a(), |rows, cols| {
            rows >= width && cols == shape.inp
        })?;
        a.values.truncate(width * shape.inp);
        let b = tensor(file, &name.peft_b(), |rows, cols| {
            rows == shape.out && cols >= width
        })?;
        let b = match b.cols {
            cols if cols == width => b.values,
            0 => Vec::new(),
            cols => {
                let rows = b.values.chunks_exact(cols);
                rows.flat_map(|row| row.iter().take(width).copied())
                    .collect()
            }
        };
        factors.push(Factors::new(shape, *rank, a.values, b)?);
    }
    // The engine computes in f32 throughout.
    Ok(Adapter::new(scale as f32, factors)?.with_head(head(file)?))
}

/// The file's classification head; none where it has no tensor of one.
fn head(file: &TensorFile) -> Result<Option<Head>, Error> {
    let Some(encoder) = Encoder::of_head(|key| file.shape(key).is_some()) else {
        return Ok(None);
    };
    let any = HeadShape {
        encoder,
        classes: 0,
        width: 0,
    };
    let weight = any.tensors().into_iter();
    let mut weight = weight.filter(|tensor| tensor.part == HeadPart::Weight);
    let key = weight.next().map_or("", |tensor| tensor.key);
    let (classes, width) = widths(file, key)?;
    let shape = HeadShape {
        encoder,
        classes,
        width,
    };
    Head::of(shape, |tensor| of_head(file, tensor)).map(Some)
}

fn of_head(file: &TensorFile, tensor: &HeadTensor) -> Result<Vec<f32>, Error> {
    let key = tensor.key;
    let found = file.shape(key);
    let found = found.ok_or_else(|| Error::Missing(key.to_owned()))?;
    if found != tensor.shape {
        return Err(Error::Shape {
            key: key.to_owned(),
            found: found.to_vec(),
            expected: format!("the head's {:?}", tensor.shape),
        });
    }
    let values = file.read_f32(key)?;
    tensors::check_finite(key, &values)?;
    Ok(values)
}

struct Tensor {
    cols: usize,
    values: Vec<f32>,
}

fn tensor(
    file: &TensorFile,
    key: &str,
    fits: impl Fn(usize, usize) -> bool,
) -> Result<Tensor, Error> {
    let (rows, cols) = widths(file, key)?;
    if !fits(rows, cols) {
        return Err(Error::Shape {
            key: key.to_owned(),
            found: vec![rows, cols],
            expected: "the plan's rank and the model's widths".to_owned(),
        });
    }
    let values = file.read_f32(key)?;
    tensors::check_finite(key, &values)?;
    Ok(Tensor { cols, values })
}

fn widths(file: &TensorFile, key: &str) -> Result<(usize, usize), Error> {
    match file.shape(key) {
        Some([rows, cols]) => Ok((*rows, *cols)),
        Some(other) => Err(Error::Shape {
            key: key.to_owned(),
            found: other.to_vec(),
            expected: "two dimensions".to_owned(),
        }),
        None => Err(Error::Missing(key.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use domain::adapter::Projection;

    use super::*;

    fn shapes() -> Vec<WeightShape> {
        let shape = |projection| WeightShape {
            name: WeightName::new(0, projection),
            out: 3,
            inp: 2,
        };
        [Projection::Q, Projection::V].map(shape).to_vec()
    }

    fn global() -> Adapter {
        let [q, v] = shapes().try_into().unwrap();
        let (a, b) = (vec![1., 2., 3., 4.], vec![1., 2., 3., 4., 5., 6.]);
        let q = Factors::new(q, 2, a.clone(), b.clone()).unwrap();
        let v = Factors::new(v, 2, a, b).unwrap();
        Adapter::new(0.5, [q, v]).unwrap()
    }

    fn with_file(bytes: &[u8], check: impl FnOnce(&Path)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("global.safetensors");
        std::fs::write(&path, bytes).unwrap();
        check(&path);
    }

    #[test]
    fn leading_slices_are_those_of_the_engine() {
        with_file(&global().to_safetensors().unwrap(), |path| {
            let ranks = RankTable::uniform(&[Projection::Q], 1, 1);
            let read = leading(path, &shapes(), &ranks, 0.5).unwrap();
            assert_eq!(read, global().leading(&ranks).unwrap());
            assert_eq!(whole(path, &shapes(), 0.5).unwrap(), global());
        });
    }

    #[test]
    fn a_head_is_read_with_the_factors_and_not_half_of_one() {
        for encoder in Encoder::ALL {
            let shape = HeadShape {
                encoder,
                classes: 2,
                width: 2,
            };
            let head = Head::fresh(shape, 3).unwrap();
            let own = global().with_head(Some(head));
            with_file(&own.to_safetensors().unwrap(), |path| {
                let ranks = RankTable::uniform(&[Projection::Q], 1, 1);
                let read = leading(path, &shapes(), &ranks, 0.5).unwrap();
                assert_eq!(read, own.leading(&ranks).unwrap());
                assert_eq!(whole(path, &shapes(), 0.5).unwrap(), own);
            });
        }
        let half = global().to_safetensors().unwrap();
        let text = String::from_utf8_lossy(&half).into_owned();
        assert!(!text.contains("classifier"));
    }

    #[test]
    fn what_stands_behind_the_live_slices_is_the_side_term() {
        with_file(&global().to_safetensors().unwrap(), |path| {
            let live = |rank| RankTable::uniform(&[Projection::Q, Projection::V], 1, rank);
            let found = side(path, &shapes(), &live(1), 0.5).unwrap().unwrap();
            let q = found.get(WeightName::new(0, Projection::Q)).unwrap();
            assert_eq!(
                (q.a(), q.b(), q.rank()),
                (&[3., 4.][..], &[2., 4., 6.][..], 1)
            );
            assert_eq!(found.factors().count(), 2);
            assert_eq!(side(path, &shapes(), &live(2), 0.5).unwrap(), None);
            assert_eq!(
                side(path, &shapes(), &RankTable::default(), 0.5).unwrap(),
                None
            );
        });
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let bytes = global().to_safetensors().unwrap();
        with_file(&bytes, |path| {
            let error = |targets: &[Projection], rank| {
                let ranks = RankTable::uniform(targets, 1, rank);
                leading(path, &shapes(), &ranks, 0.5)
                    .unwrap_err()
                    .to_string()
            };
            assert!(error(&[Projection::Q], 3).contains("q_proj.lora_A"));
            assert!(error(&[Projection::K], 1).contains("k_proj"));
            let other = whole(path, &shapes()[..1], 0.5).unwrap_err().to_string();
            assert!(other.contains("v_proj"), "{other}");
        });
        with_file(&bytes[..bytes.len() - 1], |path| {
            assert!(matches!(whole(path, &shapes(), 0.5), Err(Error::File(_))));
        });
    }
}

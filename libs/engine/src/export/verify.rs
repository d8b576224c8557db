//! What was written, read back and held to what the engine computes with.
//!
//! Two checks. Every weight, against `W + s·B·A` in `f32`: off by no more than rounding to its precision. And
//! the logits of some tokens, against the engine's with the adapter applied beside the base: off by no more
//! than a stated part of their norm. The first finds an adapter that was left out, turned round or scaled
//! wrongly however small it is; the second finds what is wrong beside the weights: sizes, rotation, order of rows.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use candle_core::quantized::GgmlDType;

use super::tensors::Merged;
use super::{Error, precision};
use crate::adapter::Adapter;
use crate::control::Control;
use crate::data::{Batch, Row};
use crate::evaluate::Evaluator;
use crate::model::{Config, LoadOptions, Model};
use crate::source::{Name, Source};

/// Tokens whose logits are compared.
const TOKENS: usize = 24;
/// Values that share a scale, where they do.
const BLOCK: usize = 32;

/// How a tensor of this name and shape was meant to be written.
pub(super) type Kind<'a> = dyn Fn(&Merged<'_>, Name, &[usize]) -> Result<GgmlDType, Error> + 'a;

/// Compares every weight of the model at `written`. `kind` says how each was meant to be written. Gives how
/// many were compared.
pub(super) fn weights(
    merged: &mut Merged<'_>,
    written: &Path,
    kind: &Kind<'_>,
) -> Result<usize, Error> {
    let mut again = Source::open(written)?;
    let config = sizes(merged.config, again.config()?)?;
    let nothing = Adapter::new(1.0, [])?;
    let mut again = Merged {
        source: &mut again,
        config: &config,
        adapter: &nothing,
        trained: BTreeMap::new(),
        control: merged.control,
    };
    let names = merged.names();
    for (name, shape) in &names {
        let meant = kind(merged, *name, shape)?;
        let kept = meant == merged.source_kind(*name)? && !merged.changes(*name);
        let (want, got) = (merged.values(*name, shape)?, again.values(*name, shape)?);
        let moved = moved(merged, &again, *name, meant);
        let blocks = want.chunks(BLOCK).zip(got.chunks(BLOCK));
        for (want, got) in blocks {
            let largest = want.iter().fold(0f32, |most, value| most.max(value.abs()));
            for (want, got) in want.iter().zip(got) {
                let bound = if kept {
                    0.0
                } else {
                    precision::weight_bound(meant, *want, largest)
                };
                let bound = bound + moved;
                let off = (want - got).abs();
                // What is no number is no weight.
                if off.is_nan() || off > bound {
                    let name = again.source.called(*name);
                    return Err(Error::Weight { name, off, bound });
                }
            }
        }
    }
    Ok(names.len())
}

/// What is said of a model, if it is that of the model itself.
pub(super) fn sizes(own: &Config, mut said: Config) -> Result<Config, Error> {
    // GGUF files of several families say the same.
    said.architecture = own.architecture;
    if said != *own {
        return Err(super::error::damaged("it is a model of other sizes"));
    }
    Ok(said)
}

/// How far more a value may be off because it is held less one on one side or on both: rounding is then that of a
/// number near one.
fn moved(merged: &Merged<'_>, again: &Merged<'_>, name: Name, meant: GgmlDType) -> f32 {
    let offset = |side: &Merged<'_>| side.source.offset(name, side.config);
    if offset(merged) == 0.0 && offset(again) == 0.0 {
        return 0.0;
    }
    precision::weight_bound(meant, 1.0, 1.0) + f32::EPSILON
}

/// The engine's logits of some tokens from all over the vocabulary.
pub(super) fn logits(
    model: &Path,
    adapter: Option<&Adapter>,
    threads: NonZeroUsize,
    control: &Control,
) -> Result<Vec<f32>, Error> {
    let options = LoadOptions {
        threads,
        ..LoadOptions::default()
    };
    logits_of(&Model::load(model, &options)?, adapter, control)
}

/// As [`logits`], of a model that is there.
pub(super) fn logits_of(
    model: &Model,
    adapter: Option<&Adapter>,
    control: &Control,
) -> Result<Vec<f32>, Error> {
    let tokens = tokens(model.config());
    if model.encoder().is_some() {
        return classes(model, adapter, tokens, control);
    }
    Ok(Evaluator::new(model, adapter)?.logits(&tokens, control)?)
}

/// What an encoder's head says of the tokens.
fn classes(
    model: &Model,
    adapter: Option<&Adapter>,
    tokens: Vec<u32>,
    control: &Control,
) -> Result<Vec<f32>, Error> {
    let row = Row {
        labelled: vec![false; tokens.len()],
        tokens,
        class: None,
        record: 0,
    };
    let batch = Batch { rows: vec![row] };
    let (logs, _) = Evaluator::new(model, adapter)?.classes(&batch, control)?;
    let logs = logs.into_iter().flatten();
    Ok(logs.map(|log| log as f32).collect())
}

fn tokens(config: &Config) -> Vec<u32> {
    // A step that has no factor in common with any vocabulary that is not a multiple of it.
    let spread = |i: usize| (7 + i * 7919) % config.vocabulary;
    let tokens = (0..TOKENS.min(config.context)).map(spread);
    tokens
        .filter_map(|token| u32::try_from(token).ok())
        .collect()
}

/// The norm of the difference, relative to that of what is wanted; refused beyond `bound`.
pub(super) fn compare(want: &[f32], got: &[f32], bound: f64) -> Result<f64, Error> {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let pairs = want.iter().zip(got);
    let difference = squares(&mut pairs.map(|(w, g)| f64::from(w - g)));
    let whole = squares(&mut want.iter().map(|w| f64::from(*w)));
    let off = (difference / whole.max(f64::MIN_POSITIVE)).sqrt();
    if want.len() != got.len() || off.is_nan() || off > bound {
        return Err(Error::Logits { off, bound });
    }
    Ok(off)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_that_are_off_or_no_numbers_are_refused() {
        let want = [3.0, -4.0];
        assert!(compare(&want, &[3.0, -4.0], 0.0).is_ok_and(|off| off == 0.0));
        let off = compare(&want, &[3.0, -4.5], 0.11).unwrap();
        assert!((off - 0.1).abs() < 1e-9);
        for got in [&[3.0, -4.5][..], &[3.0, f32::NAN], &[3.0]] {
            assert!(compare(&want, got, 0.09).is_err(), "{got:?}");
        }
    }
}

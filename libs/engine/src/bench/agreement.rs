//! Zeroth-order slopes of one adapter on one model, for a comparison of arithmetics by [`Gate`].

use domain::job::spec::Training;
use domain::zeroth::Steps;

use super::Error;
use crate::adapter::Adapter;
use crate::control::Control;
use crate::data::Batch;
use crate::model::Model;
use crate::train::{Gate, ZerothTrainer};

/// The slope of the loss along [`Gate::PAIRS`] random directions, each on one of `batches` in turn, at the distance
/// `perturbation` (μ). The same directions on every model, in every arithmetic.
///
/// # Errors
/// The adapter or a batch does not fit the model, or a loss is not finite.
pub fn slopes(
    model: &Model,
    adapter: &Adapter,
    perturbation: f64,
    batches: &[Batch],
) -> Result<Vec<f64>, Error> {
    let control = Control::new();
    let pairs = (0..Gate::PAIRS as u64).zip(batches.iter().cycle());
    let slope = |(seed, rows): (u64, &Batch)| -> Result<f64, Error> {
        let how = Steps {
            perturbation,
            rate: 0.0,
            ..Steps::of(&Training::default(), seed)
        };
        let mut trainer = ZerothTrainer::new(model, adapter, how, 0)?;
        Ok(trainer.slope(rows, &control)?.along)
    };
    pairs.map(slope).collect()
}

/// How slopes in a faster arithmetic compare with those in f32.
#[must_use]
pub fn agreement(exact: &[f64], fast: &[f64]) -> Gate {
    let mut gate = Gate::default();
    let pairs = exact.iter().zip(fast);
    pairs.for_each(|(exact, fast)| gate.add(*exact, *fast));
    gate
}

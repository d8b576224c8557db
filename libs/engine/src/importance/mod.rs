//! How strongly the loss pulls at each weight, direction by direction.
//!
//! By [`measure`] that is the directions' energy in the mean gradient of the loss by the frozen weight; by
//! [`sensitivity`] the score that AdaLoRA gives the triplets of an adapter which it trains for a while.
//! Both are in units of their own: they are compared between weights, not with one another.
//!
//! Promises: the same batches and seed give the same numbers for any number of threads.
//!
//! Does not: choose records, or say what a weight costs.

mod gradient;
mod groups;
mod sketch;

mod sensitivity;

mod agreement;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use domain::adapter::{Projection, WeightName};

use crate::adapter;
use crate::compute::{self, Packed};
use crate::data::{Batch, Row};
use crate::model::Model;

pub use agreement::agreement;
pub use gradient::{Taken, measure, measure_while};
pub use groups::{block_bytes, estimate};
pub use sensitivity::{STEPS, Training, sensitivity};

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// The projections whose weights are measured, in every block.
    pub targets: &'a [Projection],
    /// How many directions of each.
    pub rank_max: u16,
    /// Chooses the sketch, or the start of the adapter. Another seed, with other batches, shows how
    /// far the result can be trusted.
    pub seed: u64,
    /// Bytes that sketches may take at once; see [`block_bytes`].
    pub sketch_bytes: u64,
}

/// What each weight is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// Every weight that was measured, in the model's order.
    pub weights: Vec<WeightImportance>,
    /// Different records that it averages.
    pub records: usize,
}

/// What the directions of one weight are worth.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightImportance {
    /// Which weight.
    pub name: WeightName,
    /// What each direction holds, the most first: `rank_max` of them, or as many as there are.
    pub energies: Vec<f32>,
}

impl WeightImportance {
    /// What the first `rank` directions hold together.
    #[must_use]
    pub fn worth(&self, rank: u16) -> f64 {
        let leading = self.energies.iter().take(usize::from(rank));
        leading.copied().map(f64::from).sum()
    }
}

/// Why importance was not measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A pass through the model did not finish.
    #[error(transparent)]
    Compute(#[from] compute::Error),
    /// No projection or no direction was asked for, or there are no batches.
    #[error("there is nothing to measure importance of")]
    NothingToMeasure,
    /// No token of a batch is to be predicted.
    #[error("no token of probe batch {batch} is labelled")]
    NothingLabelled {
        /// Index of the batch.
        batch: usize,
    },
    /// The loss is not a number.
    #[error("the loss of probe batch {batch} is not finite; records {records:?}")]
    Loss {
        /// Index of the batch.
        batch: usize,
        /// The records of it.
        records: Vec<usize>,
    },
    /// A gradient is not a number.
    #[error("the gradient of {weight} is not finite")]
    Gradient {
        /// The weight.
        weight: WeightName,
    },
    /// The adapter that is watched cannot be made.
    #[error(transparent)]
    Adapter(#[from] adapter::Error),
    /// So few steps rank the noise of the start.
    #[error("{steps} steps tell no sensitivity, {} do", STEPS)]
    TooFewSteps {
        /// Steps that were asked for.
        steps: usize,
    },
    /// Not even one block's sketches fit.
    #[error("the sketches of one block take {needed} bytes, {allowed} are allowed")]
    TooLarge {
        /// Bytes that a block takes.
        needed: u64,
        /// Bytes that are allowed.
        allowed: u64,
    },
}

impl Error {
    /// The loss of a batch is not finite.
    fn loss(batch: usize, batches: &[Batch]) -> Self {
        let records = batches.get(batch).into_iter().flat_map(records).collect();
        Self::Loss { batch, records }
    }
}

/// The batches as the model reads them.
fn pack(model: &Model, batches: &[Batch]) -> Result<Vec<Packed>, Error> {
    let pack = |batch| Packed::new(batch, model.config());
    let packed = batches.iter().map(pack).collect::<Result<Vec<_>, _>>()?;
    match packed.iter().position(|batch| batch.targets.is_empty()) {
        Some(batch) => Err(Error::NothingLabelled { batch }),
        None => Ok(packed),
    }
}

/// How many different records teach something.
fn records_of(batches: &[Batch]) -> usize {
    let different: BTreeSet<usize> = batches.iter().flat_map(records).collect();
    different.len()
}

/// The records of a batch that teach something.
fn records(batch: &Batch) -> impl Iterator<Item = usize> {
    // A row's first token has nothing before it.
    let teaches =
        |row: &&Row| row.class.is_some() || row.labelled.iter().skip(1).any(|labelled| *labelled);
    batch.rows.iter().filter(teaches).map(|row| row.record)
}

//! How the updates of a round become one adapter: the **product** rule.
//!
//! It promises: what is merged is the *change* that each worker made to what it had loaded, so a
//! slice of the global that nobody touched stays as it is; workers may train different ranks and
//! different weights; the same inputs give the same bytes (the order of the inputs, the order of
//! the weights and the decompositions are fixed, and nothing runs in parallel); memory holds one
//! weight at a time and, beyond a bound, not even one update more; every tensor is read once.
//!
//! It does not decide which updates count or what they weigh against each other, knows neither
//! storage nor time, and never averages the factors A and B themselves: their mean is not the mean
//! of the changes.

pub mod check;
pub mod files;
pub mod fresh;
pub mod product;
pub mod share;
pub mod source;

mod change;

mod refactor;
mod stream;

#[cfg(test)]
mod tests;

pub use check::{Refused, check, shapes};
pub use fresh::fresh;
pub use product::{Folded, Input, Merge};
pub use share::weights;
pub use source::{Memory, Sink, Source};

use domain::adapter::WeightName;
use domain::id::WorkerName;

/// Norm of a row of a fresh A: its entries are uniform in ±1/√in, so its square is in · 1/(3·in).
pub const FRESH_ROW_NORM: f64 = 0.577_350_269_189_625_8;

/// Why a merge has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One update is not what its worker's plan demands.
    #[error("the update of {worker} is refused")]
    Update {
        /// Whose.
        worker: WorkerName,
        /// What is wrong with it.
        source: Refused,
    },
    /// The stored global adapter is not what the plan demands.
    #[error("the stored merged adapter is refused")]
    Global {
        /// What is wrong with it.
        source: Refused,
    },
    /// A worker's table asks for more than the merged adapter can hold.
    #[error("{worker} trains {weight} at rank {rank}, the merged adapter holds {limit}")]
    Rank {
        /// Whose table.
        worker: WorkerName,
        /// Which weight.
        weight: WeightName,
        /// The worker's rank.
        rank: u16,
        /// The merged adapter's rank.
        limit: u16,
    },
    /// The shares are negative, not finite, or do not add up to 1.
    #[error("the shares of the updates add up to {sum} and must be positive and add up to 1")]
    Shares {
        /// What they add up to.
        sum: f64,
    },
    /// The scale is zero, negative or not finite.
    #[error("the adapter's scale is {scale} and must be above 0")]
    Scale {
        /// The scale given.
        scale: f64,
    },
    /// A weight of the table is not a weight of the model.
    #[error("the model has no weight {weight}")]
    UnknownWeight {
        /// The table's weight.
        weight: WeightName,
    },
    /// The singular value decomposition did not converge or the result passes 32-bit floats.
    #[error("the merged change of {weight} cannot be decomposed")]
    Decomposition {
        /// Which weight.
        weight: WeightName,
    },
    /// The merged adapter cannot be written.
    #[error("tensor {key} of the merged adapter cannot be written")]
    Write {
        /// Which tensor.
        key: String,
        /// What lies below.
        source: source::Below,
    },
}

/// The table's weights with their rank, in ascending order of their keys in the file.
fn ordered(ranks: &domain::adapter::RankTable) -> Vec<(WeightName, u16)> {
    let mut weights: Vec<_> = ranks.trained().collect();
    weights.sort_by_cached_key(|(weight, _)| weight.peft_a());
    weights
}

//! How the updates of a round become one adapter: one file per rule over one folding core.
//!
//! It promises: every rule takes each update once, with its share; a slice of the global that nobody
//! touched stays as it is; the same inputs give the same bytes (the order of the inputs, the order of
//! the weights and the decompositions are fixed, and a weight is computed by one thread); memory holds
//! a few weights at a time and, beyond a bound, not even one update more; every tensor is read once, and
//! what is not exactly the plan's is refused.
//!
//! It does not decide which updates count or what they weigh against each other, knows neither
//! storage nor time. Which rule may stand together with what is `domain::job::legality`.

pub mod apart;
pub mod check;
pub mod compare;
pub mod files;
pub mod fresh;
pub mod head;
pub mod merge;
pub mod norm;
pub mod round;
pub mod share;
pub mod shrunk;
pub mod source;
pub mod walk;

mod fedit;
mod ffa;
mod product;
mod residual;
mod slice;
mod slices;
mod stack;
mod sum;

mod change;
mod directions;
mod eigen;
mod mean;
mod refactor;
mod server;
mod side;
mod stream;
mod turn;
mod weight;

#[cfg(test)]
mod tests;

pub use check::{Refused, check, check_with_head, shapes};
pub use fresh::fresh;
pub use merge::{Folded, Input, Merge, Server};
pub use round::{Member, Round};
pub use share::{Share, shares_of};
pub use source::{Memory, Sink, Source};

use domain::adapter::WeightName;
use domain::id::WorkerName;
use domain::job::Strategy;

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
    /// A worker's steps cannot be normalized.
    #[error("the steps of {worker} are not a number above 0")]
    Steps {
        /// Whose.
        worker: WorkerName,
    },
    /// Sites of different rank under a rule that has no meaning for them.
    #[error("{} cannot merge sites of different ranks", rule.name())]
    Uneven {
        /// The rule.
        rule: Strategy,
    },
    /// A server optimizer under a rule that turns or restarts its coordinates.
    #[error("{} keeps no coordinates that a server optimizer could have moments of", rule.name())]
    Server {
        /// The rule.
        rule: Strategy,
    },
    /// The optimizer's moments are not those of this adapter.
    #[error("the moments of the server's optimizer are refused")]
    State {
        /// What is wrong with them.
        source: Refused,
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
    /// A number of the replayed adapter passes 32-bit floats.
    #[error("tensor {key} of the replayed adapter holds a number that is not finite")]
    Diverged {
        /// Which tensor.
        key: String,
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

impl Error {
    /// Whether it is the disk's doing, which comes back: the same merge may then succeed.
    #[must_use]
    pub fn is_disk(&self) -> bool {
        match self {
            Self::Write { source, .. } => source::is_disk(source),
            Self::Update { source, .. } | Self::Global { source } | Self::State { source } => {
                source.is_disk()
            }
            _ => false,
        }
    }
}

/// The table's weights with their rank, in ascending order of their keys in the file.
fn ordered(ranks: &domain::adapter::RankTable) -> Vec<(WeightName, u16)> {
    let mut weights: Vec<_> = ranks.trained().collect();
    weights.sort_by_cached_key(|(weight, _)| weight.peft_a());
    weights
}

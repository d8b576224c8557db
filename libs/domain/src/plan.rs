//! What every worker trains. A plan is immutable and leaves the worker no choice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::adapter::RankTable;
use crate::cause::SiteTrouble;
use crate::id::{JobId, WorkerName};
use crate::job::spec::{Base, Optimizer};
use crate::profile::Mode;

/// Version of a job's plan, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanVersion(pub u32);

/// What one worker trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerPlan {
    /// Rank of every weight.
    pub ranks: RankTable,
    /// Precision of the frozen base; never `auto`.
    pub base: Base,
    /// Kernel that the worker must have.
    pub kernel: String,
    /// Compute threads.
    pub threads: u16,
    /// Records per step.
    pub batch: u16,
    /// Optimizer steps per round.
    pub local_steps: u32,
    /// Tokens of a record at most.
    pub sequence_length: u32,
    /// Whether activations are recomputed block by block.
    pub checkpoint: bool,
    /// First- or zeroth-order; never `auto`.
    pub optimizer: Optimizer,
    /// What the cost model says of this choice.
    pub predicted: Prediction,
    /// Why this and nothing else.
    pub why: Explanation,
}

impl WorkerPlan {
    /// How its steps are computed.
    #[must_use]
    pub fn mode(&self) -> Mode {
        Mode {
            base: self.base,
            kernel: self.kernel.clone(),
            checkpoint: self.checkpoint,
            optimizer: self.optimizer,
        }
    }
}

/// What a plan expects of one worker and one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Seconds of one step.
    pub step_seconds: f64,
    /// Seconds of a round: steps, upload, download.
    pub round_seconds: f64,
    /// Peak of what counts against the worker's limit, in bytes.
    pub peak_memory_bytes: u64,
    /// Bytes of one update.
    pub upload_bytes: u64,
}

/// Rows of tokens that scoring computes together at most, for a plan of so many records a step and so
/// many choices: two for each, and never fewer than one record's choices.
#[must_use]
pub fn scoring_rows(batch: u16, choices: usize) -> usize {
    let rows = 2 * usize::from(batch.max(1));
    let choices = choices.max(1);
    (rows / choices).max(1) * choices
}

/// Which limit ended a worker's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// The job file fixed it.
    Job,
    /// The worker's memory.
    Memory,
    /// The time in which the fleet finishes together.
    Time,
    /// Nothing larger is allowed.
    Nothing,
}

/// Why a worker's plan is what it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// One paragraph a person can read.
    pub text: String,
    /// The limit that ended the choice.
    pub binding: Binding,
    /// The next better choices and why each was rejected.
    pub rejected: Vec<Rejected>,
}

/// A choice that was looked at and not taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// Rank of the rejected choice.
    pub rank: u16,
    /// Batch of the rejected choice.
    pub batch: u16,
    /// Why, with figures.
    pub because: String,
}

/// One version of a job's plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Whose plan.
    pub job: JobId,
    /// Counted from 1 per job.
    pub version: PlanVersion,
    /// The version this one replaces.
    pub parent: Option<PlanVersion>,
    /// The job whose plan was replayed.
    pub replayed_from: Option<JobId>,
    /// Seconds in which the fleet finishes a round together.
    pub round_seconds: f64,
    /// Seconds after which a round closes with its quorum.
    pub deadline_seconds: u64,
    /// Rank of the merged adapter, for every weight that any worker trains.
    pub global: RankTable,
    /// Every worker's own plan.
    pub workers: BTreeMap<WorkerName, WorkerPlan>,
    /// Workers that cannot take part, and why.
    pub excluded: Vec<SiteTrouble>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_records_choices_are_scored_together_however_small_the_batch() {
        assert_eq!(scoring_rows(4, 0), 8);
        assert_eq!(scoring_rows(4, 2), 8);
        assert_eq!(scoring_rows(4, 3), 6);
        assert_eq!(scoring_rows(1, 64), 64);
    }
}

//! What every worker trains. A plan is immutable and leaves the worker no choice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::adapter::{Projection, RankTable, WeightName};
use crate::cause::SiteTrouble;
use crate::id::{JobId, WorkerName};
use crate::job::planner::Solver;
use crate::job::spec::{Base, Optimizer};
use crate::profile::Mode;

/// Version of a job's plan, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanVersion(pub u32);

impl PlanVersion {
    /// The one that replaces it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

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
    /// Records of a batch; where the job fills batches by tokens, about so many.
    pub batch: u16,
    /// Batches of a step, whose gradients are added up.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub accumulate: u16,
    /// Optimizer steps per round.
    pub local_steps: u32,
    /// Tokens of a record at most.
    pub sequence_length: u32,
    /// Whether activations are recomputed block by block.
    pub checkpoint: bool,
    /// Passes of a zeroth-order step that are computed as one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub abreast: u16,
    /// First- or zeroth-order; never `auto`.
    pub optimizer: Optimizer,
    /// What the cost model says of this choice.
    pub predicted: Prediction,
    /// Why this and nothing else.
    pub why: Explanation,
}

const fn one() -> u16 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde calls it with"
)]
const fn is_one(value: &u16) -> bool {
    *value == 1
}

impl WorkerPlan {
    /// Batches of a round.
    #[must_use]
    pub fn batches(&self) -> u64 {
        u64::from(self.local_steps) * u64::from(self.accumulate)
    }

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

/// Records that scoring computes together, for a plan of so many records a step, where each is scored with so many rows of
/// tokens: as many rows as a step has records, so that a site that trains by forward passes needs no more memory to score than
/// to train; and never less than one record.
#[must_use]
pub fn scored_together(batch: u16, rows: usize) -> usize {
    (usize::from(batch) / rows.max(1)).max(1)
}

/// Which limit ended a worker's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// The job file fixed it.
    Job,
    /// The worker's memory.
    Memory,
    /// The time in which the fleet finishes together, or the job's deadlines.
    Time,
    /// Nothing larger is allowed, or it would not gain.
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
    /// The chosen ranks, projection by projection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranks: Vec<RankSummary>,
}

/// The ranks of one projection over all blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankSummary {
    /// Which.
    pub projection: Projection,
    /// Blocks that train it.
    pub trained: u16,
    /// Blocks in which it stays frozen.
    pub frozen: u16,
    /// Lowest rank among those that train; 0 if none does.
    pub least: u16,
    /// Highest rank.
    pub most: u16,
    /// Mean rank over all blocks.
    pub mean: f64,
}

/// In what a rejected choice differs from the one that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A higher rank of one or of all weights.
    Rank,
    /// A larger batch.
    Batch,
    /// Another precision of the frozen base.
    Base,
    /// Another kernel.
    Kernel,
    /// With or without recomputing activations.
    Checkpoint,
    /// Zeroth-order in place of first-order.
    Optimizer,
}

/// A choice that was looked at and not taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// Highest rank of the rejected choice.
    pub rank: u16,
    /// Batch of the rejected choice.
    pub batch: u16,
    /// Why, with figures.
    pub because: String,
    /// What would have been other. Absent: the steps of a round alone, which `because` begins with; plans of older releases
    /// do not say it of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// How its steps would have been computed, if that is what is other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Bytes it would have needed, the margin included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Seconds of a round with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_seconds: Option<f64>,
    /// By how much more a round with it would have lowered the loss than the choice that was taken;
    /// below 0: by less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
}

/// What the worth of a rank was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RankBasis {
    /// Importance that the sites measured: each weight has its own rank. By a gradient sketch, of whose rows the j-th is assumed
    /// to add about 1/j of the first.
    Measured,
    /// Importance on which two seeds of the probe do not agree: one rank for all weights of a worker, its
    /// worth from the sum over all weights.
    Disagreeing,
    /// Nothing was measured: one rank, of which the j-th row is assumed to add about 1/j of the first.
    Assumed,
    /// The job fixes the rank.
    Fixed,
}

/// What the worths in a plan rest on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Basis {
    /// The worth of a rank.
    pub ranks: RankBasis,
    /// Rank correlation of importance between two seeds, mean over the sites by their records.
    pub agreement: Option<f64>,
    /// The gradient's noise scale, in records.
    pub noise_records: f64,
    /// Records that it was measured on; 0: assumed.
    pub noise_measured_on: u64,
    /// Loss at the start, mean over the sites by their records; absent: not measured, and worths are
    /// shares of the loss.
    pub loss: Option<f64>,
    /// Expected decrease of that loss in one round.
    pub expected_decrease: f64,
    /// What solved the programs; never `auto`.
    pub solver: Solver,
    /// Whether every worker's choice is known to be its best.
    pub proven: bool,
    /// Share by which the choice of the worker that was solved worst may be below its best: 0 where it is
    /// known to be the best. Absent in plans of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<f64>,
}

/// A weight whose rank falls from one plan to the next: what its adapter holds beyond is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shrunk {
    /// Whose.
    pub worker: WorkerName,
    /// Which weight.
    pub weight: WeightName,
    /// Its rank in the parent.
    pub from: u16,
    /// Its rank now.
    pub to: u16,
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
    /// The first round that trains with it.
    #[serde(default = "first_round")]
    pub from_round: u32,
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
    /// What its worths rest on. Absent in plans of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
    /// Why it replaces its parent; empty: it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<String>,
    /// The weights whose rank is lower than in the parent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shrunk: Vec<Shrunk>,
}

const fn first_round() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_scoring_has_the_rows_of_one_of_training_but_never_less_than_a_record() {
        assert_eq!(scored_together(4, 1), 4);
        assert_eq!(scored_together(4, 2), 2);
        assert_eq!(scored_together(5, 2), 2);
        assert_eq!(scored_together(1, 64), 1);
    }
}

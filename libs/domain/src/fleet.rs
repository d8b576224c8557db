//! Workers as they present themselves, and what is known of their liveness.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{DatasetName, Epoch, JobId, WorkerName};
use crate::time::UnixMillis;

/// Missed beats after which a site is shown as unreachable.
pub const MISSED_BEATS: u64 = 3;

/// What a worker says of itself when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The worker's name.
    pub worker: WorkerName,
    /// Version of the program, with a digest of its engine as the build: what another one measured does not hold for it.
    pub version: String,
    /// The machine; workers of one machine are probed one after the other.
    pub host: String,
    /// When this process started.
    pub started_at: UnixMillis,
    /// Bytes the worker may use.
    pub memory_limit_bytes: u64,
    /// Compute threads.
    pub threads: u16,
    /// Data sets by name.
    pub datasets: BTreeMap<DatasetName, DatasetSummary>,
    /// The site's policy in a sentence.
    pub policy: String,
    /// Milliseconds between two beats.
    pub beat_ms: u64,
}

/// What a site says of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSummary {
    /// Usable training records.
    pub records: u64,
    /// Held-out records.
    pub held_out: u64,
    /// Records that could not be read.
    pub skipped: u64,
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waiting for a task.
    Idle,
    /// Fetching the model or the adapter.
    Downloading,
    /// Reading the model.
    Loading,
    /// Measuring itself.
    Probing,
    /// Training.
    Training,
    /// Sending its update.
    Uploading,
    /// Scoring held-out records.
    Evaluating,
    /// Shutting down; its task goes back to the queue.
    Stopping,
}

impl Stage {
    /// Whether the cores of its machine are busy with it.
    #[must_use]
    pub const fn computes(self) -> bool {
        matches!(
            self,
            Self::Loading | Self::Probing | Self::Training | Self::Evaluating
        )
    }
}

/// Progress of the task under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The task's job.
    pub job: JobId,
    /// The task's epoch.
    pub epoch: Epoch,
    /// Round of the task.
    pub round: u32,
    /// Units done: steps, records or bytes, by stage.
    pub done: u64,
    /// Units in all; 0 where unknown.
    pub total: u64,
    /// Last loss, if any and finite.
    pub loss: Option<f64>,
    /// Tokens a second of this task so far.
    pub tokens_per_second: Option<f64>,
}

/// One sign of life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// Whose.
    pub worker: WorkerName,
    /// By the worker's clock.
    pub at: UnixMillis,
    /// What it is doing.
    pub stage: Stage,
    /// Rises with every step, block, byte or record: liveness is progress.
    pub counter: u64,
    /// Progress of the task under way.
    pub progress: Option<Progress>,
    /// Bytes of heap in use.
    pub memory_bytes: u64,
    /// Attempts that this process has made again since it started, at storage or at saying a report; 0 from a version
    /// that did not say.
    #[serde(default)]
    pub retries: u64,
}

/// How alive a worker is, seen from a control service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// Beats arrive.
    Alive,
    /// Three beats missed.
    Unreachable,
}

/// Judges a worker by its last beat, both by the observer's clock.
#[must_use]
pub const fn liveness(last_beat: Option<UnixMillis>, beat_ms: u64, now: UnixMillis) -> Liveness {
    match last_beat {
        // What a worker says of its beats is whatever it likes.
        Some(at) if now.since(at) <= MISSED_BEATS.saturating_mul(beat_ms) => Liveness::Alive,
        _ => Liveness::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_judged_whatever_it_says_of_its_beats() {
        let judged = |beat_ms| liveness(Some(UnixMillis(0)), beat_ms, UnixMillis(1));
        assert_eq!(judged(u64::MAX), Liveness::Alive);
        assert_eq!(judged(0), Liveness::Unreachable);
    }
}

//! What a worker answers. The first report of a worker, job, epoch and kind stands; later ones with
//! the same identity are the same report.

use domain::artifact::Digest;
use domain::cause::Trouble;
use domain::id::{Epoch, JobId, WorkerName};
use domain::profile::Measurement;
use domain::round::{Score, Update, UpdateMetrics};
use domain::zeroth::Scalars;
use serde::{Deserialize, Serialize};

use super::short;
use crate::{Message, subject};

/// Who reports, on which job, in which epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Who reports.
    pub worker: WorkerName,
    /// On which job.
    pub job: JobId,
    /// In which epoch.
    pub epoch: Epoch,
}

/// Measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probed {
    /// By whom, for what.
    pub head: Head,
    /// The figures.
    pub measurement: Measurement,
}

/// Trained; the update is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Updated {
    /// By whom, for what.
    pub head: Head,
    /// The round.
    pub round: u32,
    /// The update.
    pub update: Update,
}

/// Trained zeroth-order; the scalars are the update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Walked {
    /// By whom, for what.
    pub head: Head,
    /// The round.
    pub round: u32,
    /// The generator's version.
    pub generator: u16,
    /// The adapter that it started from.
    #[serde(with = "short::digest")]
    pub start: Digest,
    /// The adapter that it came to, as its file would have been; absent where all sites walk along the
    /// same directions, and nobody makes each one's adapter again.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "short::optional"
    )]
    pub reached: Option<Digest>,
    /// What it found along each direction.
    pub scalars: Scalars,
    /// What the training amounted to; `bytes_up` is this message, its subject and its headers.
    pub metrics: UpdateMetrics,
}

/// Scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// By whom, for what.
    pub head: Head,
    /// The round whose adapter was scored.
    pub round: u32,
    /// The counts.
    pub score: Score,
}

/// The task cannot be done at this site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// By whom, for what.
    pub head: Head,
    /// Kind of the task.
    pub task: String,
    /// What went wrong.
    pub trouble: Trouble,
    /// One sentence for a person.
    pub detail: String,
}

macro_rules! report_message {
    ($type:ident, $kind:literal, $oldest:literal..=$version:literal) => {
        impl Message for $type {
            const KIND: &'static str = $kind;
            const VERSION: u16 = $version;
            const OLDEST: u16 = $oldest;

            fn subject(&self) -> String {
                subject::report(
                    &self.head.worker,
                    &self.head.job,
                    self.head.epoch,
                    Self::KIND,
                )
            }
        }
    };
}

// 2: longest_tokens of samples, scoring, noise; memory is all that counts against the limit, not heap alone.
// 3: figures by mode; what an earlier version measured has none, because it did not say in which.
// 4: the family of an encoder; of an earlier version it is BERT.
report_message!(Probed, "probed", 1..=4);
// 2: energies of the trained weights. 3: refused_records.
report_message!(Updated, "updated", 1..=3);
// 2: refused_records. 3: digests as bytes, for what stands around the scalars is to be short whatever it says.
report_message!(Walked, "walked", 1..=3);
// 2: bytes_down of the score. 3: its answers.
report_message!(Evaluated, "evaluated", 1..=3);
report_message!(Failed, "failed", 1..=1);

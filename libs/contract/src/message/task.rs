//! What a worker is asked to do. Each task carries everything the work needs: a worker reads no
//! other service's state.

use domain::adapter::{Projection, RankTable};
use domain::artifact::{ArtifactRef, Digest};
use domain::hub;
use domain::id::{DatasetName, Epoch, JobId, Submitter, WorkerName};
use domain::job::Strategy;
use domain::job::spec::{Answers, Base, Compute, Importance, Training};
use domain::plan::WorkerPlan;
use domain::time::UnixMillis;
use domain::zeroth::Walk;
use serde::{Deserialize, Serialize};

use crate::{Message, subject};

/// Who is asked, for which job, and what every task needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Who is asked.
    pub worker: WorkerName,
    /// For which job.
    pub job: JobId,
    /// In which epoch.
    pub epoch: Epoch,
    /// Who submitted the job; the site's policy may name them.
    pub submitter: Submitter,
    /// The model.
    pub model: ModelRef,
    /// The data set, by its shared name.
    pub dataset: DatasetName,
    /// After this moment nobody waits for the result.
    pub expires_at: UnixMillis,
}

/// Which model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelRef {
    /// Pushed to object storage, or mapped to a folder by the site.
    Digest(Digest),
    /// A path that the worker can read; or a model of the Hub at its commit, `hf://…` (see [`ModelRef::hub`]). They
    /// share a variant because a worker that does not know the Hub then refuses by its policy and says so.
    Path(String),
}

impl ModelRef {
    /// The model of the Hub, if it is one.
    #[must_use]
    pub fn hub(&self) -> Option<hub::Model> {
        match self {
            Self::Digest(_) => None,
            Self::Path(text) => text.parse().ok(),
        }
    }
}

/// Measure yourself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// To whom, for what.
    pub head: Head,
    /// Projections that may carry an adapter.
    pub targets: Vec<Projection>,
    /// Highest rank of the job.
    pub rank_max: u16,
    /// The job's training settings.
    pub training: Training,
    /// Precision to load the base with; `auto` is the worker's best.
    pub base: Base,
    /// Arithmetic to compute with; `auto` is the fastest that the worker may train with.
    #[serde(default)]
    pub compute: Compute,
    /// How to find what each weight is worth.
    #[serde(default = "uniform")]
    pub importance: Importance,
    /// The job's candidate completions.
    pub choices: Vec<String>,
    /// Where the bandwidth probe may write.
    pub prefix: String,
}

/// Before it was asked for, no weight was worth more than another.
const fn uniform() -> Importance {
    Importance::Uniform
}

/// Train one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Train {
    /// To whom, for what.
    pub head: Head,
    /// Counted from 1.
    pub round: u32,
    /// Rounds of the job, over which the learning rate has its schedule; 0: not told, and there is none.
    #[serde(default)]
    pub rounds: u32,
    /// The adapter to start from: its leading slices, as many as the plan's ranks.
    pub global: ArtifactRef,
    /// The job's one scale.
    pub scale: f64,
    /// What to train.
    pub plan: WorkerPlan,
    /// How to train.
    pub training: Training,
    /// The job's merging rule: which factors are trained, and whether there is a side term.
    #[serde(default)]
    pub strategy: Strategy,
    /// Live slices of each weight of the merged adapter: what stands behind them is a side term, which is
    /// applied and not trained. Empty: all are live.
    #[serde(default)]
    pub live: RankTable,
    /// How zeroth-order steps are made; absent where none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk: Option<Walk>,
    /// Where to put the update.
    pub prefix: String,
}

/// Score an adapter on held-out records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluate {
    /// To whom, for what.
    pub head: Head,
    /// The committed round.
    pub round: u32,
    /// Its adapter.
    pub global: ArtifactRef,
    /// The job's one scale.
    pub scale: f64,
    /// Held-out records at most; absent: all.
    pub sample: Option<u32>,
    /// Candidate completions; empty: loss alone.
    pub choices: Vec<String>,
    /// Whether the loss is among the choices alone, as it is trained.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub among: bool,
    /// Answers to generate and compare with the records' own; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
    /// The classes of the adapter's head, in its order; empty: it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The worker's plan: precision, threads, batch, sequence length.
    pub plan: WorkerPlan,
    /// How the adapter can be made from an earlier one; absent where it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk: Option<Walk>,
}

macro_rules! task_message {
    ($type:ident, $kind:literal, $oldest:literal..=$version:literal, $round:expr) => {
        impl Message for $type {
            const KIND: &'static str = $kind;
            const VERSION: u16 = $version;
            const OLDEST: u16 = $oldest;

            fn subject(&self) -> String {
                subject::task(
                    &self.head.worker,
                    &self.head.job,
                    self.head.epoch,
                    Self::KIND,
                )
            }

            fn round(&self) -> Option<u32> {
                let round: fn(&Self) -> Option<u32> = $round;
                round(self)
            }
        }
    };
}

// 2: compute. 3: importance. 4: more of the training settings: schedule, batches by tokens, accumulation, dropout, momentum,
// labels. 5: choices.
task_message!(Probe, "probe", 1..=5, |_| None);
// 2: strategy and live. 3: walk. 4: rounds, and the same settings as the probe's. 5: choices.
task_message!(Train, "train", 1..=5, |task| Some(task.round));
// 2: walk. 3: answers, labels. 4: among. Round 0, the untrained adapter, has no trace of its own.
task_message!(Evaluate, "evaluate", 1..=4, |task| Some(task.round)
    .filter(|round| *round > 0));

/// Any task, as a worker receives it.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Measure yourself.
    Probe(Box<Probe>),
    /// Train one round.
    Train(Box<Train>),
    /// Score an adapter.
    Evaluate(Box<Evaluate>),
}

impl Task {
    /// Who is asked, for which job, in which epoch.
    #[must_use]
    pub fn head(&self) -> &Head {
        match self {
            Self::Probe(task) => &task.head,
            Self::Train(task) => &task.head,
            Self::Evaluate(task) => &task.head,
        }
    }

    /// Reads any task by its kind.
    ///
    /// # Errors
    /// If kind, version or layout is not one this program reads.
    pub fn decode(
        kind: Option<&str>,
        version: Option<&str>,
        payload: &[u8],
    ) -> Result<Self, crate::DecodeError> {
        match kind {
            Some(Probe::KIND) => {
                crate::decode(kind, version, payload).map(|task| Self::Probe(Box::new(task)))
            }
            Some(Train::KIND) => {
                crate::decode(kind, version, payload).map(|task| Self::Train(Box::new(task)))
            }
            _ => crate::decode(kind, version, payload).map(|task| Self::Evaluate(Box::new(task))),
        }
    }
}

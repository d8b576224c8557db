//! The job file: what a data scientist asks for. Unknown fields are refused, limits are written.

use serde::{Deserialize, Serialize};

use super::aggregation::{Aggregation, Trains};
use super::choice::Choice;
use super::course::Measure;
pub use super::importance::Importance;
use super::mezo::{Mezo, Seeds, Wire};
use super::planner::Planner;
use super::rounds::Rounds;
use crate::adapter::{Projection, RANK_LIMIT};
use crate::artifact::Digest;
use crate::id::{DatasetName, JobId, WorkerName};
use crate::zeroth::SCALARS_LIMIT;

/// A job as submitted, before [`Spec::check`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// A name people recognise, up to 100 characters.
    pub name: String,
    /// The model to fine-tune.
    pub model: Model,
    /// The data set, by the name that sites map to their own files.
    pub data: Data,
    /// The adapter to train.
    #[serde(default)]
    pub adapter: Adapter,
    /// How each site trains.
    #[serde(default)]
    pub training: Training,
    /// Precision of the frozen base.
    #[serde(default)]
    pub precision: Precision,
    /// How plans are made.
    #[serde(default)]
    pub planner: Planner,
    /// How many rounds, with whom, for how long.
    #[serde(default)]
    pub rounds: Rounds,
    /// How updates become one adapter.
    #[serde(default)]
    pub aggregation: Aggregation,
    /// How the merged adapter is scored on the sites' held-out records; absent: not at all.
    #[serde(default)]
    pub evaluation: Option<Evaluation>,
    /// What is kept after the job.
    #[serde(default)]
    pub retention: Retention,
    /// Seconds from submission to the end at the latest, waiting included.
    #[serde(default = "day")]
    pub deadline_seconds: u64,
    /// Replays the plans of another job with the same sites.
    #[serde(default)]
    pub plan_from: Option<JobId>,
}

const fn day() -> u64 {
    86_400
}

/// Which model: exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A model pushed with `fedpipe model push`.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// `file://` path that every worker can read; for `fedpipe up` on one machine.
    #[serde(default)]
    pub source: Option<String>,
}

/// Which data, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The name each site maps to its own files.
    pub dataset: DatasetName,
    /// Only these workers; empty: every worker that has the data set.
    #[serde(default)]
    pub sites: Vec<WorkerName>,
}

/// Shape of the adapter. One scale `alpha / rank_max` holds for the whole job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adapter {
    /// Which projections carry an adapter.
    pub targets: Choice<Vec<Projection>>,
    /// One rank for every site, or the planner's choice per site.
    pub rank: Choice<u16>,
    /// Rank of the merged adapter and the highest rank of any site.
    pub rank_max: u16,
    /// LoRA's alpha.
    pub alpha: f64,
    /// How it is found what each weight is worth.
    pub importance: Importance,
}

impl Default for Adapter {
    fn default() -> Self {
        Self {
            targets: Choice::Auto,
            rank: Choice::Auto,
            rank_max: 32,
            alpha: 32.0,
            importance: Importance::default(),
        }
    }
}

impl Adapter {
    /// The job's one scale, whatever a site's rank: `alpha / rank_max`.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.alpha / f64::from(self.rank_max)
    }

    /// Whether a plan depends on what each weight is worth: ranks are the planner's, and it may tell weights apart.
    #[must_use]
    pub fn follows_importance(&self) -> bool {
        self.importance != Importance::Uniform && self.rank.fixed().is_none()
    }
}

/// How a site trains.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// The planner chooses per site.
    #[default]
    Auto,
    /// Backpropagation with AdamW.
    Adamw,
    /// Zeroth-order, forward passes only.
    Mezo,
}

/// The order in which a site's records are visited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Shuffled anew each pass, from the job's seed.
    #[default]
    Shuffle,
    /// As `shuffle`, each batch with equal shares of the distinct completions.
    Balanced,
    /// As they stand in the file.
    File,
}

/// Local training between two merges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// First- or zeroth-order.
    pub optimizer: Optimizer,
    /// Optimizer steps per round.
    pub local_steps: u32,
    /// Records per step, or the planner's choice per site.
    pub batch: Choice<u16>,
    /// Tokens of a record at most.
    pub sequence_length: u32,
    /// Learning rate.
    pub learning_rate: f64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// Largest norm of the gradient; 0 turns clipping off.
    pub clip_norm: f64,
    /// `FedProx`'s μ: what pulls a site back to the merged adapter that it started from; 0 turns it off.
    #[serde(skip_serializing_if = "is_zero")]
    pub proximal: f64,
    /// Order of the records.
    pub order: Order,
    /// Seed of every random stream of the job.
    pub seed: u64,
    /// How zeroth-order sites train.
    #[serde(skip_serializing_if = "Mezo::is_default")]
    pub mezo: Mezo,
}

impl Training {
    /// Whether every site trains zeroth-order.
    #[must_use]
    pub fn is_zeroth_order(&self) -> bool {
        self.optimizer == Optimizer::Mezo
    }

    /// Whether the update of a site that trains so is its scalars, inside its report.
    #[must_use]
    pub fn sends_scalars(&self, own: Optimizer) -> bool {
        own == Optimizer::Mezo && self.mezo.wire == Wire::Scalars
    }

    /// η of zeroth-order steps. Beside first-order sites it is a tenth of theirs, unless the job gives it.
    #[must_use]
    pub fn zeroth_order_rate(&self) -> f64 {
        let usual = if self.is_zeroth_order() {
            self.learning_rate
        } else {
            0.1 * self.learning_rate
        };
        self.mezo.learning_rate.unwrap_or(usual)
    }

    /// Whether all sites walk along the same directions, and may replay rounds.
    #[must_use]
    pub fn shares_directions(&self) -> bool {
        let scalars = self.mezo.wire == Wire::Scalars && self.mezo.seeds == Seeds::Shared;
        self.is_zeroth_order() && scalars
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde calls it with"
)]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Default for Training {
    fn default() -> Self {
        Self {
            optimizer: Optimizer::Auto,
            local_steps: 8,
            batch: Choice::Auto,
            sequence_length: 128,
            learning_rate: 1e-3,
            weight_decay: 0.0,
            clip_norm: 1.0,
            proximal: 0.0,
            order: Order::Shuffle,
            seed: 0,
            mezo: Mezo::default(),
        }
    }
}

/// Bits of the frozen base.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// The planner chooses per site.
    #[default]
    Auto,
    /// As the model file stores it, dequantized when used.
    Source,
    /// 32-bit floating point, dequantized once.
    F32,
    /// Brain floating point.
    Bf16,
    /// 8-bit integers.
    Int8,
    /// 4-bit NormalFloat.
    Nf4,
}

/// Arithmetic of the matrix products with the frozen base. Which one a plan means is in its kernel's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// The fastest that each worker measured among those that train as well as `f32`.
    #[default]
    Auto,
    /// 32-bit floating point.
    F32,
    /// Brain floating point, sums in 32 bits.
    Bf16,
    /// 8-bit integers, sums in 32 bits.
    Int8,
}

/// Precision of the frozen base, and of the arithmetic with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Precision {
    /// Bits of the frozen base.
    pub base: Base,
    /// Arithmetic of the matrix products.
    pub compute: Compute,
}

/// Scoring on the sites' held-out records, before training, after rounds, and at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// After every so many rounds; the first and the last score are always taken.
    #[serde(default = "one")]
    pub every: u32,
    /// Held-out records per site after a round; absent: all of them. The first and the last score use all.
    #[serde(default)]
    pub sample: Option<u32>,
    /// Candidate completions; the likeliest one is the answer. Empty: loss alone.
    #[serde(default)]
    pub choices: Vec<String>,
}

impl Evaluation {
    /// What scores of the job are compared by.
    #[must_use]
    pub const fn measure(&self) -> Measure {
        if self.choices.is_empty() {
            Measure::Loss
        } else {
            Measure::BalancedAccuracy
        }
    }
}

const fn one() -> u32 {
    1
}

/// What is kept after the job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Keep every site's updates instead of deleting them two rounds after they were merged.
    pub keep_updates: bool,
}

/// What is wrong with one field of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Refusal {
    /// Path of the field, such as `adapter.rank`.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Spec {
    /// Whether sites may train zeroth-order: all, or those without room for gradients beside others. Under a rule
    /// that trains B alone they cannot, for their steps move A as well.
    #[must_use]
    pub fn takes_zeroth_order(&self) -> bool {
        let training = &self.training;
        let scalars = training.mezo.scalars(training.local_steps);
        let travels = training.mezo.wire == Wire::Tensors || scalars <= SCALARS_LIMIT as u64;
        match training.optimizer {
            Optimizer::Mezo => true,
            Optimizer::Auto => self.aggregation.strategy.trains() == Trains::Both && travels,
            Optimizer::Adamw => false,
        }
    }

    /// Checks every limit that can be checked without asking a site.
    ///
    /// # Errors
    /// Every refused field, so that one submission shows all that is wrong.
    pub fn check(&self) -> Result<(), Vec<Refusal>> {
        let mut refusals = Vec::new();
        let mut refuse = |field: &str, problem: String| {
            refusals.push(Refusal {
                field: field.to_owned(),
                problem,
            });
        };
        let length = self.name.chars().count();
        if length == 0 || length > 100 || self.name.chars().any(char::is_control) {
            refuse("name", "use 1 to 100 printable characters".to_owned());
        }
        match (&self.model.digest, &self.model.source) {
            (Some(_), None) => {}
            (None, Some(source)) if is_file_source(source) => {}
            (None, Some(_)) => refuse(
                "model.source",
                "use an absolute `file:///…` path without `..`".to_owned(),
            ),
            _ => refuse(
                "model",
                "give either `digest` (from `fedpipe model push`) or `source`".to_owned(),
            ),
        }
        if self.data.sites.len() > SITE_LIMIT {
            refuse("data.sites", format!("name at most {SITE_LIMIT} sites"));
        }
        self.check_adapter(&mut refuse);
        self.check_training(&mut refuse);
        let named = self.data.sites.len();
        self.rounds
            .check(named, self.evaluation.is_some(), &mut refuse);
        self.aggregation.check(self, &mut refuse);
        self.training.mezo.check(self, &mut refuse);
        if let Some(evaluation) = &self.evaluation {
            let long = evaluation
                .choices
                .iter()
                .any(|c| c.is_empty() || c.len() > 200);
            if evaluation.choices.len() == 1 || evaluation.choices.len() > 64 || long {
                refuse(
                    "evaluation.choices",
                    "give none, or 2 to 64 completions of 1 to 200 bytes".to_owned(),
                );
            }
            if evaluation.every == 0 || evaluation.sample == Some(0) {
                refuse("evaluation", "`every` and `sample` start at 1".to_owned());
            }
            if evaluation.sample.is_some() && self.rounds.compares_scores() {
                refuse(
                    "evaluation.sample",
                    "`rounds.keep: best` and `rounds.patience` compare scores, and the first and the \
                     last are of all records: leave `sample` out"
                        .to_owned(),
                );
            }
        }
        if !(1..=DEADLINE_LIMIT).contains(&self.deadline_seconds) {
            refuse(
                "deadline_seconds",
                format!("use 1 to {DEADLINE_LIMIT} (30 days)"),
            );
        }
        if refusals.is_empty() {
            Ok(())
        } else {
            Err(refusals)
        }
    }

    fn check_adapter(&self, refuse: &mut impl FnMut(&str, String)) {
        let adapter = &self.adapter;
        if !(1..=RANK_LIMIT).contains(&adapter.rank_max) {
            refuse("adapter.rank_max", format!("use 1 to {RANK_LIMIT}"));
        }
        if let Choice::Fixed(rank) = adapter.rank
            && (rank == 0 || rank > adapter.rank_max)
        {
            refuse(
                "adapter.rank",
                format!("use 1 to rank_max ({}), or auto", adapter.rank_max),
            );
        }
        if !(adapter.alpha.is_finite() && adapter.alpha > 0.0) {
            refuse("adapter.alpha", "use a number above 0".to_owned());
        }
        if let Choice::Fixed(targets) = &adapter.targets {
            let distinct: std::collections::BTreeSet<_> = targets.iter().collect();
            if targets.is_empty() || distinct.len() != targets.len() {
                refuse(
                    "adapter.targets",
                    "name each projection once, at least one, or use auto".to_owned(),
                );
            }
        }
    }

    fn check_training(&self, refuse: &mut impl FnMut(&str, String)) {
        let training = &self.training;
        if !(1..=100_000).contains(&training.local_steps) {
            refuse("training.local_steps", "use 1 to 100000".to_owned());
        }
        if let Choice::Fixed(batch) = training.batch
            && !(1..=1024).contains(&batch)
        {
            refuse("training.batch", "use 1 to 1024, or auto".to_owned());
        }
        if !(2..=131_072).contains(&training.sequence_length) {
            refuse(
                "training.sequence_length",
                "use 2 to 131072 tokens".to_owned(),
            );
        }
        let rate = training.learning_rate;
        if !(rate.is_finite() && (0.0..=10.0).contains(&rate)) {
            refuse("training.learning_rate", "use 0 to 10".to_owned());
        }
        if !(training.weight_decay.is_finite() && training.weight_decay >= 0.0) {
            refuse("training.weight_decay", "use a number from 0".to_owned());
        }
        if !(training.clip_norm.is_finite() && training.clip_norm >= 0.0) {
            refuse(
                "training.clip_norm",
                "use a number from 0; 0 turns clipping off".to_owned(),
            );
        }
        if !(training.proximal.is_finite() && training.proximal >= 0.0) {
            refuse(
                "training.proximal",
                "use a number from 0; 0 turns FedProx off".to_owned(),
            );
        }
    }
}

/// The most sites a job may name.
pub const SITE_LIMIT: usize = 10_000;

const DEADLINE_LIMIT: u64 = 30 * 86_400;

fn is_file_source(source: &str) -> bool {
    let path = source.strip_prefix("file://").unwrap_or_default();
    path.starts_with('/')
        && path.len() <= 4096
        && !path.split('/').any(|part| part == "..")
        && !path.contains('\0')
}

//! The job file: what a data scientist asks for. Unknown fields are refused, limits are written.

use serde::{Deserialize, Serialize};

use super::aggregation::Aggregation;
use super::choice::Choice;
pub use super::evaluation::{Answers, Evaluation};
pub use super::importance::Importance;
use super::planner::Planner;
use super::rounds::Rounds;
pub use super::training::{Optimizer, Order, Training};
use crate::adapter::{Projection, RANK_LIMIT};
use crate::artifact::Digest;
use crate::hub;
use crate::id::{DatasetName, JobId, WorkerName};

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
    /// `file://` path that every worker can read, for `fedpipe up` on one machine; or `hf://org/name@revision`, which every
    /// site fetches from the Hub itself, if its policy lets it.
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

/// Shape of the adapter. One scale, `alpha / rank_max` or with `rslora` `alpha / √rank_max`, holds for the whole job.
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
    /// Rank-stabilized LoRA (arXiv 2312.03732): the scale is `alpha / √rank_max`.
    #[serde(skip_serializing_if = "is_false")]
    pub rslora: bool,
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
            rslora: false,
            importance: Importance::default(),
        }
    }
}

impl Adapter {
    /// The job's one scale, whatever a site's rank: `alpha / rank_max`, or with `rslora` `alpha / √rank_max`.
    #[must_use]
    pub fn scale(&self) -> f64 {
        let rank = f64::from(self.rank_max);
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Whether a plan depends on what each weight is worth: ranks are the planner's, and it may tell weights apart.
    #[must_use]
    pub fn follows_importance(&self) -> bool {
        self.importance != Importance::Uniform && self.rank.fixed().is_none()
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde calls it with"
)]
const fn is_false(value: &bool) -> bool {
    !*value
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
            (None, Some(source)) => {
                if let Err(problem) = check_source(source) {
                    refuse("model.source", problem);
                }
            }
            _ => refuse(
                "model",
                "give either `digest` (from `fedpipe model push`) or `source`".to_owned(),
            ),
        }
        if self.data.sites.len() > SITE_LIMIT {
            refuse("data.sites", format!("name at most {SITE_LIMIT} sites"));
        }
        self.check_adapter(&mut refuse);
        self.training.check(&mut refuse);
        let named = self.data.sites.len();
        self.rounds
            .check(named, self.evaluation.is_some(), &mut refuse);
        self.aggregation.check(self, &mut refuse);
        self.training.mezo.check(self, &mut refuse);
        self.check_labels(&mut refuse);
        self.check_choices(&mut refuse);
        if let Some(evaluation) = &self.evaluation {
            evaluation.check(self, &mut refuse);
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
}

/// The most sites a job may name.
pub const SITE_LIMIT: usize = 10_000;

const DEADLINE_LIMIT: u64 = 30 * 86_400;

fn check_source(source: &str) -> Result<(), String> {
    if source.starts_with(hub::SCHEME) {
        let read: Result<hub::Model, _> = source.parse();
        return read.map(drop).map_err(|error| error.to_string());
    }
    let path = source.strip_prefix("file://").unwrap_or_default();
    let legal = path.starts_with('/')
        && path.len() <= 4096
        && !path.split('/').any(|part| part == "..")
        && !path.contains('\0');
    let problem = "use an absolute `file:///…` path without `..`, or `hf://org/name@revision`";
    if legal {
        Ok(())
    } else {
        Err(problem.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// arXiv 2312.03732: by the root of the rank, so that a higher rank learns no slower.
    #[test]
    fn the_scale_is_alpha_by_the_rank_or_with_rslora_by_its_root() {
        let scale = |text: &str| serde_json::from_str::<Adapter>(text).expect(text).scale();
        assert_eq!(scale(r#"{"alpha":8,"rank_max":16}"#), 0.5);
        assert_eq!(scale(r#"{"alpha":8,"rank_max":16,"rslora":true}"#), 2.0);
        // The job's own, whatever a site's rank.
        assert_eq!(
            scale(r#"{"alpha":8,"rank":4,"rank_max":16,"rslora":true}"#),
            2.0
        );
    }
}

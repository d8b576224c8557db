//! The report that stays when a job is done, and the adapter's configuration as PEFT reads it.

use domain::adapter::RankTable;
use domain::artifact::ArtifactRef;
use domain::id::JobId;
use domain::job::{Job, Kept, Spec};
use domain::peft;
use domain::plan::Plan;
use domain::round::{Evaluated, Summary};
use domain::time::UnixMillis;
use serde::Serialize;

/// What became of a job, round by round.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// Which job.
    pub job: &'a JobId,
    /// What was asked for.
    pub spec: &'a Spec,
    /// When it was submitted.
    pub submitted_at: UnixMillis,
    /// When this report was written.
    pub finished_at: UnixMillis,
    /// What every worker trained by the last plan, and why.
    pub plan: &'a Plan,
    /// Every round, the untrained start included.
    pub rounds: &'a [Summary],
    /// Every score.
    pub evaluations: Vec<Scored<'a>>,
    /// Of which round the adapter is, and why; whether training stopped early.
    pub kept: Option<&'a Kept>,
    /// The adapter.
    pub adapter: &'a ArtifactRef,
}

/// A score with its rates.
#[derive(Debug, Serialize)]
pub struct Scored<'a> {
    /// Of which round.
    pub round: u32,
    /// Held-out records.
    pub records: u64,
    /// Mean loss per labelled token.
    pub loss: Option<f64>,
    /// Balanced accuracy among the job's choices.
    pub balanced_accuracy: Option<f64>,
    /// The counts, and who is missing.
    pub detail: &'a Evaluated,
}

impl<'a> From<&'a Evaluated> for Scored<'a> {
    fn from(detail: &'a Evaluated) -> Self {
        let score = &detail.score;
        let (loss, balanced_accuracy) = (score.loss(), score.balanced_accuracy());
        Self {
            round: detail.round,
            records: score.records,
            loss,
            balanced_accuracy,
            detail,
        }
    }
}

/// `adapter_config.json` of the merged adapter: `alpha / r` of every weight is the job's one scale. Where a
/// side term stands behind the live slices, `rank_pattern` and `alpha_pattern` count both.
#[must_use]
pub fn peft_config(job: &Job, plan: &Plan, side: &RankTable) -> peft::Config {
    let model = match (&job.spec.model.digest, &job.spec.model.source) {
        (Some(digest), _) => digest.to_string(),
        (None, source) => source.clone().unwrap_or_default(),
    };
    let targets = plan.global.targets();
    let targets = targets.map(|target| target.module().to_owned()).collect();
    let adapter = &job.spec.adapter;
    let mut config = peft::Config::uniform(model, targets, adapter.rank_max, adapter.alpha);
    for (weight, more) in side.trained() {
        let rank = plan.global.rank(weight) + more;
        let alpha = adapter.scale() * f64::from(rank);
        config.rank_pattern.insert(weight.to_string(), rank);
        config.alpha_pattern.insert(weight.to_string(), alpha);
    }
    config
}

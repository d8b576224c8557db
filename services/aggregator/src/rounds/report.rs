//! The report that stays when a job is done, and the adapter's configuration as PEFT reads it.

use domain::adapter::{Encoder, RankTable};
use domain::artifact::ArtifactRef;
use domain::hub;
use domain::id::JobId;
use domain::job::{Job, Kept, Spec};
use domain::peft;
use domain::plan::Plan;
use domain::round::{Answers, Evaluated, Summary};
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
    /// The share of records answered right among the job's choices.
    pub accuracy: Option<f64>,
    /// `e` to the loss.
    pub perplexity: Option<f64>,
    /// Figures of the answers that were generated; absent without any.
    pub answers: Option<AnswersScored>,
    /// The counts, and who is missing.
    pub detail: &'a Evaluated,
}

impl<'a> From<&'a Evaluated> for Scored<'a> {
    fn from(detail: &'a Evaluated) -> Self {
        let score = &detail.score;
        Self {
            round: detail.round,
            records: score.records,
            loss: score.loss(),
            balanced_accuracy: score.balanced_accuracy(),
            accuracy: score.accuracy(),
            perplexity: score.perplexity(),
            answers: score.answers.as_ref().map(AnswersScored::from),
            detail,
        }
    }
}

/// How near generated answers came to the wanted ones.
#[derive(Debug, Serialize)]
pub struct AnswersScored {
    /// Answers.
    pub records: u64,
    /// The share of those that are what was wanted.
    pub exact_match: Option<f64>,
    /// Mean F1 of words.
    pub f1: Option<f64>,
    /// Mean ROUGE-L.
    pub rouge_l: Option<f64>,
    /// BLEU, from 0 to 100.
    pub bleu: Option<f64>,
}

impl From<&Answers> for AnswersScored {
    fn from(answers: &Answers) -> Self {
        Self {
            records: answers.records,
            exact_match: answers.exact_match(),
            f1: answers.f1(),
            rouge_l: answers.rouge_l(),
            bleu: answers.bleu(),
        }
    }
}

/// `adapter_config.json` of the merged adapter: `alpha / r` of every weight is the job's one scale. Where a
/// side term stands behind the live slices, `rank_pattern` and `alpha_pattern` count both. With a head it is one of `encoder`.
#[must_use]
pub fn peft_config(
    job: &Job,
    plan: &Plan,
    side: &RankTable,
    encoder: Option<Encoder>,
) -> peft::Config {
    let model = match (&job.spec.model.digest, &job.spec.model.source) {
        (Some(digest), _) => digest.to_string(),
        (None, source) => {
            let source = source.clone().unwrap_or_default();
            // As PEFT finds it there.
            let of_hub = source.parse::<hub::Model>();
            of_hub.map_or(source, |model| model.repository().to_owned())
        }
    };
    let targets = plan.global.targets();
    if let Some(encoder) = encoder {
        // An encoder's modules are several that end alike: each weight by its whole name.
        let weights = plan.global.trained();
        let targets = weights.filter_map(|(weight, _)| weight.in_encoder(encoder));
        let (rank, alpha) = (job.spec.adapter.rank_max, job.spec.adapter.alpha);
        return peft::Config::uniform(model, targets.collect(), rank, alpha).with_head(encoder);
    }
    let targets: Vec<_> = targets.collect();
    let transposed = targets.iter().any(|target| target.is_transposed());
    let targets = targets.iter().map(|target| target.module().to_owned());
    let adapter = &job.spec.adapter;
    let (rank, alpha) = (adapter.rank_max, adapter.alpha);
    let mut config = peft::Config::uniform(model, targets.collect(), rank, alpha)
        .with_transposed_weights(transposed);
    for (weight, more) in side.trained() {
        let rank = plan.global.rank(weight) + more;
        let alpha = adapter.scale() * f64::from(rank);
        config.rank_pattern.insert(weight.to_string(), rank);
        config.alpha_pattern.insert(weight.to_string(), alpha);
    }
    config
}

//! Committed rounds and their scores as the API shows them.
//!
//! They are read more leniently than they are written: a figure that was not finite when it was
//! stored stands there as `null`, and must not hide the round.

use domain::artifact::ArtifactRef;
use domain::round::{Answers, Score};
use domain::time::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::job::{AdapterView, TroubleView};
use super::{finite, rfc3339};

/// [`domain::round::Summary`] as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredRound {
    round: u32,
    global: ArtifactRef,
    opened_at: UnixMillis,
    committed_at: UnixMillis,
    seconds: Option<f64>,
    overhead_seconds: Option<f64>,
    dropped_energy: Option<f64>,
    #[serde(default)]
    asked: Vec<String>,
    #[serde(default)]
    shrunk: Vec<ShrunkView>,
    workers: Vec<WorkerRoundView>,
    missing: Vec<TroubleView>,
}

/// [`domain::round::Evaluated`] as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredScore {
    score: StoredCounts,
    complete: bool,
    seconds: Option<f64>,
    missing: Vec<TroubleView>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredCounts {
    records: u64,
    loss_sum: Option<f64>,
    labelled_tokens: u64,
    confusion: Vec<Vec<u64>>,
    #[serde(default)]
    answers: Option<Answers>,
    #[serde(default)]
    bytes_down: u64,
}

/// A committed round.
#[derive(Debug, Serialize, ToSchema)]
pub struct RoundView {
    /// Counted from 1; 0 is the untrained adapter.
    pub round: u32,
    /// The merged adapter.
    pub adapter: AdapterView,
    /// When it opened (RFC 3339).
    pub opened_at: String,
    /// When its merged adapter was stored (RFC 3339).
    pub committed_at: String,
    /// Seconds from opening to commit, evaluation not counted.
    pub seconds: Option<f64>,
    /// `seconds` minus the slowest worker's compute.
    pub overhead_seconds: Option<f64>,
    /// Share of the merged change's energy that the kept rank does not hold.
    pub dropped_energy: Option<f64>,
    /// Whom the round asked; empty: every planned site.
    pub asked: Vec<String>,
    /// Sites whose ranks fell with the plan that began with this round, whether or not they contributed.
    pub shrunk: Vec<ShrunkView>,
    /// Who contributed what.
    pub workers: Vec<WorkerRoundView>,
    /// Whose update did not count, and why.
    pub missing: Vec<TroubleView>,
    /// The fleet's score of the merged adapter; absent while there is none.
    pub evaluation: Option<EvaluationView>,
}

/// What the lower ranks of a new plan cost a site, as shares of the energy of the merged adapter that the round starts from.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ShrunkView {
    /// Its worker.
    pub worker: String,
    /// Of the slices that the ranks before had it load, and these do not.
    pub dropped_energy: Option<f64>,
    /// Of all slices that its ranks leave out.
    pub withheld_energy: Option<f64>,
}

/// What one worker did in a round.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkerRoundView {
    /// Whose.
    pub worker: String,
    /// Highest rank it trained.
    pub rank: u16,
    /// Records per step.
    pub batch: u16,
    /// Its share of the merge.
    pub weight: Option<f64>,
    /// Share of the merged adapter's energy in slices that its rank leaves out; absent for rules whose
    /// slices are not orthogonal.
    #[serde(default)]
    pub withheld_energy: Option<f64>,
    /// The earlier round that its update was trained in; `null` if it was this one.
    #[serde(default)]
    pub trained_in: Option<u32>,
    /// The rate that it trained with, where sites have rates of their own.
    #[serde(default)]
    pub rate: Option<f64>,
    /// How far its change lies from the mean of all, where the rates of the next round go by it.
    #[serde(default)]
    pub difference: Option<f64>,
    /// Its figures.
    pub metrics: MetricsView,
}

/// Figures of a worker's round.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct MetricsView {
    /// Records trained on.
    pub records: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Mean loss over the round's steps.
    pub loss: Option<f64>,
    /// Optimizer steps.
    pub steps: u32,
    /// Those of them whose loss was not finite, and which moved nothing.
    #[serde(default)]
    pub skipped_steps: u32,
    /// Times that a record was drawn and could not be learned, so that another took its place: above all an answer that
    /// is longer than the job's sequence, which is never cut.
    #[serde(default)]
    pub refused_records: u64,
    /// Seconds of training.
    pub compute_seconds: Option<f64>,
    /// Tokens a second while training.
    pub tokens_per_second: Option<f64>,
    /// The most that counted against the worker's limit, in bytes: all private writable memory.
    pub peak_memory_bytes: u64,
    /// Bytes of the update as it was sent: to object storage, or of scalars the whole message.
    pub bytes_up: u64,
    /// Bytes fetched from object storage.
    pub bytes_down: u64,
    /// Bytes sent on the message bus.
    pub control_bytes_up: u64,
}

/// The fleet's score of a round.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvaluationView {
    /// Held-out records scored.
    pub records: u64,
    /// Mean loss per labelled token.
    pub loss: Option<f64>,
    /// `e` to the loss.
    pub perplexity: Option<f64>,
    /// Mean over the classes of the share answered right.
    pub balanced_accuracy: Option<f64>,
    /// The share of records answered right among the choices, or the labels of a classification head.
    pub accuracy: Option<f64>,
    /// How near generated answers came to the wanted ones; absent if the job generates none.
    pub answers: Option<AnswersView>,
    /// `confusion[truth][answer]`, indexed as the job's choices, or its labels.
    pub confusion: Vec<Vec<u64>>,
    /// Whether all held-out records were scored, or the job's sample.
    pub complete: bool,
    /// Seconds from asking to having it.
    pub seconds: Option<f64>,
    /// Bytes that the sites fetched for it.
    pub bytes_down: u64,
    /// Sites that did not answer, and why.
    pub missing: Vec<TroubleView>,
}

/// Figures of the answers that the sites generated.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnswersView {
    /// Held-out records answered.
    pub records: u64,
    /// The share of answers that are what was wanted, but for blanks around them.
    pub exact_match: Option<f64>,
    /// Mean F1 of words, without case, punctuation and articles.
    pub f1: Option<f64>,
    /// Mean ROUGE-L.
    pub rouge_l: Option<f64>,
    /// BLEU of all answers together, from 0 to 100.
    pub bleu: Option<f64>,
}

impl From<&Answers> for AnswersView {
    fn from(answers: &Answers) -> Self {
        Self {
            records: answers.records,
            exact_match: answers.exact_match(),
            f1: answers.f1().and_then(finite),
            rouge_l: answers.rouge_l().and_then(finite),
            bleu: answers.bleu().and_then(finite),
        }
    }
}

impl WorkerRoundView {
    /// Where every step was skipped, what stands for their mean loss is the mean of nothing.
    fn shown(mut self) -> Self {
        if self.metrics.skipped_steps >= self.metrics.steps {
            self.metrics.loss = None;
        }
        self
    }
}

impl RoundView {
    /// A round with its score.
    pub fn new(round: StoredRound, score: Option<StoredScore>) -> Self {
        Self {
            round: round.round,
            adapter: AdapterView {
                sha256: round.global.sha256.to_string(),
                bytes: round.global.bytes,
            },
            opened_at: rfc3339(round.opened_at),
            committed_at: rfc3339(round.committed_at),
            seconds: round.seconds,
            overhead_seconds: round.overhead_seconds,
            dropped_energy: round.dropped_energy,
            asked: round.asked,
            shrunk: round.shrunk,
            workers: round
                .workers
                .into_iter()
                .map(WorkerRoundView::shown)
                .collect(),
            missing: round.missing,
            evaluation: score.map(EvaluationView::from),
        }
    }
}

impl From<StoredScore> for EvaluationView {
    fn from(stored: StoredScore) -> Self {
        let score = Score {
            records: stored.score.records,
            loss_sum: stored.score.loss_sum.unwrap_or(f64::NAN),
            labelled_tokens: stored.score.labelled_tokens,
            confusion: stored.score.confusion,
            answers: stored.score.answers,
            seconds: 0.0,
            bytes_down: stored.score.bytes_down,
        };
        Self {
            records: score.records,
            loss: score.loss().and_then(finite),
            perplexity: score.perplexity().and_then(finite),
            balanced_accuracy: score.balanced_accuracy().and_then(finite),
            accuracy: score.accuracy(),
            answers: score.answers.as_ref().map(AnswersView::from),
            confusion: score.confusion,
            complete: stored.complete,
            seconds: stored.seconds,
            bytes_down: score.bytes_down,
            missing: stored.missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::fixture::artifact;
    use domain::round::{Evaluated, ShrunkSite, Summary, UpdateMetrics, WorkerRound};
    use serde_json::Value;

    fn summary() -> Summary {
        let metrics = UpdateMetrics {
            records: 8,
            tokens: 100,
            loss: f64::NAN,
            steps: 2,
            skipped_steps: 0,
            refused_records: 0,
            compute_seconds: 1.5,
            tokens_per_second: f64::INFINITY,
            peak_memory_bytes: 1,
            bytes_up: 2,
            bytes_down: 3,
            control_bytes_up: 4,
            energies: domain::energy::EnergyTable::default(),
        };
        Summary {
            round: 1,
            global: artifact(),
            side: domain::adapter::RankTable::default(),
            scalars: None,
            optimizer: None,
            opened_at: UnixMillis(1000),
            committed_at: UnixMillis(3000),
            seconds: 2.0,
            overhead_seconds: 0.5,
            dropped_energy: f64::NAN,
            energies: domain::energy::EnergyTable::default(),
            asked: vec!["a".parse().expect("legal")],
            shrunk: vec![ShrunkSite {
                worker: "a".parse().expect("legal"),
                dropped_energy: 0.125,
                withheld_energy: 0.5,
            }],
            workers: vec![WorkerRound {
                worker: "a".parse().expect("legal"),
                rank: 4,
                batch: 2,
                weight: 1.0,
                withheld_energy: Some(0.25),
                trained_in: Some(0),
                rate: Some(2e-4),
                difference: None,
                update: artifact(),
                metrics,
            }],
            missing: Vec::new(),
        }
    }

    #[test]
    fn a_site_whose_every_step_was_skipped_is_shown_without_a_loss() {
        let shown = |skipped_steps| {
            let mut round = summary();
            let metrics = &mut round.workers[0].metrics;
            (metrics.loss, metrics.skipped_steps) = (0.5, skipped_steps);
            let stored = serde_json::to_string(&round).expect("serializes");
            let read: StoredRound = serde_json::from_str(&stored).expect("reads");
            let view = serde_json::to_value(RoundView::new(read, None)).expect("serializes");
            view["workers"][0]["metrics"]["loss"].clone()
        };
        assert_eq!(shown(1), 0.5);
        assert_eq!(shown(2), Value::Null);
    }

    #[test]
    fn a_stored_round_with_figures_that_are_not_finite_is_still_shown() {
        let stored = serde_json::to_string(&summary()).expect("serializes");
        let read: StoredRound = serde_json::from_str(&stored).expect("reads");
        let score = Evaluated {
            round: 1,
            score: Score {
                records: 4,
                loss_sum: f64::NAN,
                labelled_tokens: 4,
                confusion: vec![vec![2, 0], vec![1, 1]],
                answers: Some(Answers {
                    records: 2,
                    exact: 1,
                    f1_sum: 1.5,
                    ..Answers::default()
                }),
                seconds: 0.1,
                bytes_down: 9,
            },
            complete: true,
            seconds: 0.2,
            missing: Vec::new(),
        };
        let stored = serde_json::to_string(&score).expect("serializes");
        let score: StoredScore = serde_json::from_str(&stored).expect("reads");
        let view = serde_json::to_value(RoundView::new(read, Some(score))).expect("serializes");
        assert!(view["workers"][0]["metrics"]["loss"].is_null());
        assert_eq!(view["workers"][0]["trained_in"], 0);
        assert_eq!(view["asked"], serde_json::json!(["a"]));
        assert_eq!(
            view["shrunk"],
            serde_json::json!([{ "worker": "a", "dropped_energy": 0.125, "withheld_energy": 0.5 }])
        );
        assert!(view["dropped_energy"].is_null());
        assert_eq!(view["workers"][0]["withheld_energy"], 0.25);
        assert_eq!(view["workers"][0]["rate"], 2e-4);
        assert_eq!(view["workers"][0]["metrics"]["compute_seconds"], 1.5);
        assert_eq!(view["evaluation"]["balanced_accuracy"], 0.75);
        assert_eq!(view["evaluation"]["accuracy"], 0.75);
        assert_eq!(view["evaluation"]["answers"]["exact_match"], 0.5);
        assert_eq!(view["evaluation"]["answers"]["f1"], 0.75);
        assert_eq!(view["evaluation"]["loss"], Value::Null);
        assert_eq!(view["evaluation"]["perplexity"], Value::Null);
        assert_eq!(view["evaluation"]["bytes_down"], 9);
    }
}

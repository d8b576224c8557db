//! One round: what comes in, when it closes, and what it amounted to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::adapter::RankTable;
use crate::artifact::ArtifactRef;
use crate::cause::{SiteTrouble, Trouble};
use crate::id::WorkerName;
use crate::time::UnixMillis;

/// What a worker reports of its local training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The trained adapter.
    pub adapter: ArtifactRef,
    /// What the training amounted to.
    pub metrics: UpdateMetrics,
}

/// Figures of one worker's round. All averaged over the records named here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateMetrics {
    /// Records trained on.
    pub records: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Mean loss over the round's steps.
    pub loss: f64,
    /// Optimizer steps.
    pub steps: u32,
    /// Seconds of training, the speed limit of an emulated site included.
    pub compute_seconds: f64,
    /// Tokens a second while training.
    pub tokens_per_second: f64,
    /// The most that counted against the worker's limit, in bytes: all private writable memory.
    pub peak_memory_bytes: u64,
    /// Bytes sent to object storage.
    pub bytes_up: u64,
    /// Bytes fetched from object storage.
    pub bytes_down: u64,
    /// Bytes sent on the message bus since the task began: beats, progress, acknowledgements.
    pub control_bytes_up: u64,
}

impl UpdateMetrics {
    /// The name of the first figure that is not finite or negative, if any.
    #[must_use]
    pub fn illegal(&self) -> Option<&'static str> {
        let figures = [
            ("loss", self.loss),
            ("compute_seconds", self.compute_seconds),
            ("tokens_per_second", self.tokens_per_second),
        ];
        let wrong = |figure: f64| !figure.is_finite() || figure < 0.0;
        figures
            .into_iter()
            .find(|(_, figure)| wrong(*figure))
            .map(|(name, _)| name)
    }
}

/// An update that the round counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// Whose.
    pub worker: WorkerName,
    /// The update as reported, checked.
    pub update: Update,
}

/// The decision that closes a round: which updates count, in which order. It is stored before any
/// fold, so that two incarnations of an aggregator can only fold the same thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Closed {
    /// Ordered by worker name.
    pub contributions: Vec<Contribution>,
    /// Sites whose update does not count, and why.
    pub missing: Vec<SiteTrouble>,
    /// When the round was closed.
    pub at: UnixMillis,
}

/// What the aggregator knows of one participant while a round is open.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Its update is stored and checked.
    Stored(Box<Update>),
    /// It will not deliver in this round.
    Lost(SiteTrouble),
    /// Still working.
    Waiting,
}

/// Whether an open round may close.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Not yet: these have not delivered.
    Wait(Vec<WorkerName>),
    /// Close with these.
    Close(Closed),
    /// Too few sites are left.
    QuorumLost(Vec<SiteTrouble>),
}

/// Closes a round when everybody has delivered or is lost and the quorum is met, or when the
/// deadline is past and the quorum is met.
#[must_use]
pub fn judge(
    standings: &BTreeMap<WorkerName, Standing>,
    quorum: usize,
    deadline: UnixMillis,
    now: UnixMillis,
) -> Verdict {
    let mut contributions = Vec::new();
    let mut missing = Vec::new();
    let mut waiting = Vec::new();
    for (worker, standing) in standings {
        match standing {
            Standing::Stored(update) => {
                contributions.push(Contribution {
                    worker: worker.clone(),
                    update: (**update).clone(),
                });
            }
            Standing::Lost(trouble) => missing.push(trouble.clone()),
            Standing::Waiting => waiting.push(worker.clone()),
        }
    }
    let past = now >= deadline;
    if contributions.len() >= quorum && (waiting.is_empty() || past) {
        let late = |worker: WorkerName| SiteTrouble {
            worker,
            trouble: Trouble::TooLate,
            detail: String::new(),
        };
        missing.extend(waiting.into_iter().map(late));
        return Verdict::Close(Closed {
            contributions,
            missing,
            at: now,
        });
    }
    if past {
        let late = |worker: WorkerName| SiteTrouble {
            worker,
            trouble: Trouble::TooLate,
            detail: String::new(),
        };
        missing.extend(waiting.into_iter().map(late));
        return Verdict::QuorumLost(missing);
    }
    if contributions.len() + waiting.len() < quorum {
        // Those still at work are not to blame.
        return Verdict::QuorumLost(missing);
    }
    Verdict::Wait(waiting)
}

/// Counts of an evaluation; sums of sites' counts are the fleet's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Held-out records scored.
    pub records: u64,
    /// Sum of the loss over labelled tokens.
    pub loss_sum: f64,
    /// Labelled tokens.
    pub labelled_tokens: u64,
    /// `confusion[truth][answer]`, indexed as the job's choices; empty without choices.
    pub confusion: Vec<Vec<u64>>,
    /// Seconds of scoring.
    pub seconds: f64,
    /// Bytes fetched for it: the merged adapter, unless it was there already.
    #[serde(default)]
    pub bytes_down: u64,
}

impl Score {
    /// Adds another site's counts.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.loss_sum += other.loss_sum;
        self.labelled_tokens += other.labelled_tokens;
        self.seconds = self.seconds.max(other.seconds);
        self.bytes_down += other.bytes_down;
        if self.confusion.len() < other.confusion.len() {
            self.confusion.resize(other.confusion.len(), Vec::new());
        }
        for (row, added) in self.confusion.iter_mut().zip(&other.confusion) {
            if row.len() < added.len() {
                row.resize(added.len(), 0);
            }
            for (cell, count) in row.iter_mut().zip(added) {
                *cell += count;
            }
        }
    }

    /// Mean loss per labelled token.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        (self.labelled_tokens > 0).then(|| self.loss_sum / self.labelled_tokens as f64)
    }

    /// Mean over the classes of the share answered right; classes without records do not count.
    #[must_use]
    pub fn balanced_accuracy(&self) -> Option<f64> {
        let recalls = self
            .confusion
            .iter()
            .enumerate()
            .filter_map(|(truth, row)| {
                let all: u64 = row.iter().sum();
                let right = row.get(truth).copied().unwrap_or(0);
                (all > 0).then(|| right as f64 / all as f64)
            });
        let recalls: Vec<f64> = recalls.collect();
        (!recalls.is_empty()).then(|| recalls.iter().sum::<f64>() / recalls.len() as f64)
    }
}

/// What one worker did in a committed round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerRound {
    /// Whose.
    pub worker: WorkerName,
    /// Highest rank it trained.
    pub rank: u16,
    /// Records per step.
    pub batch: u16,
    /// Its share of the merge.
    pub weight: f64,
    /// Share of the merged adapter's energy in slices that its rank leaves out, so that it will not load
    /// them; absent for rules whose slices are not orthogonal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld_energy: Option<f64>,
    /// Its update.
    pub update: ArtifactRef,
    /// Its figures.
    pub metrics: UpdateMetrics,
}

/// A committed round. Round 0 is the untrained adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Counted from 1; 0 is the start.
    pub round: u32,
    /// The merged adapter.
    pub global: ArtifactRef,
    /// Slices of each weight that every site applies and none trains; they stand behind the live ones.
    #[serde(default, skip_serializing_if = "RankTable::is_empty")]
    pub side: RankTable,
    /// The moments of the server's optimizer after this round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<ArtifactRef>,
    /// When the round opened.
    pub opened_at: UnixMillis,
    /// When the merged adapter was committed.
    pub committed_at: UnixMillis,
    /// Seconds from opening to commit, evaluation not counted.
    pub seconds: f64,
    /// `seconds` minus the slowest worker's compute.
    pub overhead_seconds: f64,
    /// Share of the merged change's energy that the kept rank does not hold.
    pub dropped_energy: f64,
    /// Who contributed what.
    pub workers: Vec<WorkerRound>,
    /// Whose update did not count, and why.
    pub missing: Vec<SiteTrouble>,
}

/// The fleet's score of a committed round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Of which round.
    pub round: u32,
    /// Summed over the sites.
    pub score: Score,
    /// Whether all held-out records were scored, or the job's sample.
    pub complete: bool,
    /// Seconds from asking to having it.
    pub seconds: f64,
    /// Sites that did not answer.
    pub missing: Vec<SiteTrouble>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Digest;

    fn stored() -> Standing {
        let sha256 = Digest::from_bytes(&[1; 32]);
        let adapter = ArtifactRef {
            key: "k".to_owned(),
            sha256,
            bytes: 1,
        };
        let metrics = UpdateMetrics {
            records: 1,
            tokens: 1,
            loss: 1.0,
            steps: 1,
            compute_seconds: 1.0,
            tokens_per_second: 1.0,
            peak_memory_bytes: 1,
            bytes_up: 1,
            bytes_down: 1,
            control_bytes_up: 1,
        };
        Standing::Stored(Box::new(Update { adapter, metrics }))
    }

    fn lost(worker: &WorkerName) -> Standing {
        Standing::Lost(SiteTrouble {
            worker: worker.clone(),
            trouble: Trouble::Crashed,
            detail: String::new(),
        })
    }

    fn check(kinds: &str, quorum: usize, past: bool, expected: &str) {
        let mut standings = BTreeMap::new();
        for (index, kind) in kinds.chars().enumerate() {
            let worker: WorkerName = format!("w{index}").parse().expect("legal");
            let standing = match kind {
                's' => stored(),
                'l' => lost(&worker),
                _ => Standing::Waiting,
            };
            standings.insert(worker, standing);
        }
        let now = if past { UnixMillis(20) } else { UnixMillis(5) };
        let found = match judge(&standings, quorum, UnixMillis(10), now) {
            Verdict::Wait(_) => "wait".to_owned(),
            Verdict::Close(closed) => format!("close {}", closed.contributions.len()),
            Verdict::QuorumLost(_) => "lost".to_owned(),
        };
        assert_eq!(found, expected, "{kinds} quorum {quorum} past {past}");
    }

    #[test]
    fn a_round_closes_with_all_or_with_the_quorum_after_its_deadline() {
        check("sss", 2, false, "close 3");
        check("ssw", 2, false, "wait");
        check("ssw", 2, true, "close 2");
        check("sww", 2, true, "lost");
        check("ssl", 2, false, "close 2");
        check("ssl", 3, false, "lost");
        check("sll", 2, false, "lost");
        check("wwl", 2, false, "wait");
    }

    #[test]
    fn a_site_still_at_work_is_not_blamed_for_a_quorum_that_others_lost() {
        let worker = |index: u8| -> WorkerName { format!("w{index}").parse().expect("legal") };
        let standings = BTreeMap::from([
            (worker(0), Standing::Waiting),
            (worker(1), lost(&worker(1))),
            (worker(2), lost(&worker(2))),
        ]);
        let Verdict::QuorumLost(sites) = judge(&standings, 2, UnixMillis(10), UnixMillis(5)) else {
            panic!("two of three are lost");
        };
        let blamed: Vec<_> = sites.into_iter().map(|site| site.worker).collect();
        assert_eq!(blamed, [worker(1), worker(2)]);
    }

    #[test]
    fn balanced_accuracy_of_a_constant_answer_is_one_half() {
        let score = Score {
            confusion: vec![vec![30, 0], vec![10, 0]],
            ..Score::default()
        };
        assert_eq!(score.balanced_accuracy(), Some(0.5));
    }

    #[test]
    fn scores_of_sites_add_up() {
        let mut sum = Score::default();
        sum.add(&Score {
            records: 2,
            bytes_down: 10,
            confusion: vec![vec![1, 0], vec![0, 1]],
            ..Score::default()
        });
        sum.add(&Score {
            records: 1,
            bytes_down: 5,
            confusion: vec![vec![0, 1], vec![0, 0]],
            ..Score::default()
        });
        assert_eq!(
            (sum.records, sum.bytes_down, sum.confusion),
            (3, 15, vec![vec![1, 1], vec![0, 1]])
        );
    }
}

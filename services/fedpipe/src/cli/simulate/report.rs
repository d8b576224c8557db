//! What a simulation amounted to: as JSON, and as tables for people.

use std::collections::BTreeMap;

use domain::artifact::Digest;
use domain::id::WorkerName;
use domain::job::course::Figure;
use domain::job::{Kept, Spec};
use domain::plan::{Plan, WorkerPlan};
use domain::round::ShrunkSite;
use domain::zeroth::Scalars;
use serde::Serialize;

use super::again::Look;
use super::clock::{Spent, Together};
use super::job::Simulated;
use super::merge::Delivered;
use super::sites::{About, Sites};
use crate::cli::job::show;
use crate::output::table;

/// The result's file.
#[derive(Debug, Serialize)]
pub struct Adapter {
    /// Its digest, the same as of a job's adapter.
    pub sha256: Digest,
    /// Its length.
    pub bytes: u64,
}

/// One site's part in a round.
#[derive(Debug, Serialize)]
pub struct SiteRound {
    /// Which.
    pub worker: WorkerName,
    /// Highest rank it trained.
    rank: u16,
    /// Records per step.
    batch: u16,
    /// Records of the round.
    records: u64,
    /// Tokens of the round.
    tokens: u64,
    /// Mean loss over its steps; none if all were skipped.
    loss: Option<f64>,
    /// How often its batches went through the model, those of steps by gradients once.
    passes: u64,
    /// The most memory that counted against its limit, in bytes.
    peak_memory_bytes: u64,
    /// What its zeroth-order steps found, where its update is that (`seeds: shared`).
    #[serde(skip_serializing_if = "Option::is_none")]
    slopes: Option<Slopes>,
    /// Bytes of its update.
    update_bytes: u64,
    /// Where its time went.
    pub spent: Spent,
    /// Until the slowest site was done.
    pub wait_seconds: f64,
}

impl SiteRound {
    /// Of a delivered update; it does not wait yet.
    pub fn new(
        worker: &WorkerName,
        plan: &WorkerPlan,
        delivered: &Delivered,
        spent: Spent,
    ) -> Self {
        let metrics = &delivered.metrics;
        Self {
            worker: worker.clone(),
            rank: plan.ranks.max(),
            batch: plan.batch,
            records: metrics.records,
            tokens: metrics.tokens,
            loss: metrics.loss(),
            passes: delivered.passes,
            slopes: delivered.slopes,
            peak_memory_bytes: metrics.peak_memory_bytes,
            update_bytes: delivered.bytes,
            spent,
            wait_seconds: 0.0,
        }
    }
}

/// The scalars of a site's round, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Slopes {
    /// Directions that its steps took; those of skipped steps do not count.
    directions: u64,
    /// The mean square of the scalars along them, within the job's `clip`. In each number an estimate of n directions varies by
    /// this over n, which is what `training.mezo.variance` bounds.
    mean_square: f64,
}

impl Slopes {
    /// Of a round's scalars; none if every step was skipped.
    pub fn of(scalars: &Scalars) -> Option<Self> {
        // What stands for skipped steps and untaken directions is no finite number.
        let found = scalars.values().iter().filter(|value| value.is_finite());
        let squares: Vec<f64> = found.map(|value| f64::from(*value).powi(2)).collect();
        (!squares.is_empty()).then(|| Self {
            directions: squares.len() as u64,
            mean_square: squares.iter().sum::<f64>() / squares.len() as f64,
        })
    }
}

/// The fleet's score of a merged adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scored {
    /// Whether all held-out records were scored, or the job's sample.
    pub complete: bool,
    /// Held-out records scored.
    pub records: u64,
    /// Mean loss per labelled token.
    pub loss: Option<f64>,
    /// Among the job's choices.
    pub balanced_accuracy: Option<f64>,
    /// What the job's scores are compared by, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figure: Option<Figure>,
    /// The slowest site's virtual seconds; not in the rounds' clock.
    pub seconds: f64,
}

/// A round.
#[derive(Debug, Serialize)]
pub struct Round {
    /// Counted from 1.
    pub round: u32,
    /// By the virtual clock, in seconds.
    pub began_at: f64,
    /// By the virtual clock, the merge included.
    pub ends_at: f64,
    /// How far apart the sites were.
    pub together: Together,
    /// Seconds of the merge, which are this machine's.
    pub merge_seconds: f64,
    /// Share of the merged change's energy that the kept rank does not hold.
    pub dropped_energy: f64,
    /// Sites whose ranks fell with the plan that began with this round.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shrunk: Vec<ShrunkSite>,
    /// Digest of the merged adapter.
    pub global: Digest,
    /// Who did what.
    pub workers: Vec<SiteRound>,
    /// Its score, if it was scored.
    pub score: Option<Scored>,
}

/// Everything that happened after the plan.
#[derive(Debug, Serialize)]
pub struct Run {
    /// The untrained adapter's score.
    pub start: Option<Scored>,
    /// Every round.
    pub rounds: Vec<Round>,
    /// Where the plan was looked at again.
    pub looks: Vec<Look>,
    /// The result.
    pub adapter: Adapter,
    /// Which round it is of, and why.
    pub kept: Kept,
    /// Virtual seconds of all rounds.
    pub seconds: f64,
    /// Virtual seconds of all scoring.
    pub scoring_seconds: f64,
    /// What it really took.
    pub real_seconds: f64,
}

/// Scores whose time is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Targets {
    /// A loss to come down to.
    pub loss: Option<f64>,
    /// A balanced accuracy to come up to.
    pub accuracy: Option<f64>,
}

/// When a score was first reached.
#[derive(Debug, PartialEq, Serialize)]
struct Reached {
    /// The score asked for.
    target: f64,
    /// By the virtual clock; absent: never.
    seconds: Option<f64>,
}

/// The whole report.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// What was asked for.
    spec: &'a Spec,
    /// The sites that were played.
    sites: Vec<About>,
    /// What each trained at first, and why; later plans stand in `looks`.
    plan: &'a Plan,
    /// How far apart the plan expects the sites to finish.
    planned_together: Together,
    /// When the scores asked for were reached.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    targets: BTreeMap<&'static str, Reached>,
    /// What happened; absent if only a plan was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<Run>,
}

impl<'a> Report<'a> {
    /// A plan that nobody carried out.
    pub fn planned(simulated: &'a Simulated, sites: &Sites) -> Self {
        let workers = simulated.first_plan().workers.iter();
        let seconds = workers.map(|(name, plan)| (name, plan.predicted.round_seconds));
        Self {
            spec: &simulated.job.spec,
            sites: sites.about(),
            plan: simulated.first_plan(),
            planned_together: Together::of(seconds),
            targets: BTreeMap::new(),
            run: None,
        }
    }

    /// A whole simulation.
    pub fn of(simulated: &'a Simulated, sites: &Sites, run: Run, targets: Targets) -> Self {
        let mut reached = BTreeMap::new();
        if let Some(target) = targets.loss {
            let is = |score: &Scored| score.loss.is_some_and(|loss| loss <= target);
            reached.insert("loss", run.reached(target, is));
        }
        if let Some(target) = targets.accuracy {
            let is = |score: &Scored| score.balanced_accuracy.is_some_and(|found| found >= target);
            reached.insert("balanced_accuracy", run.reached(target, is));
        }
        Self {
            targets: reached,
            run: Some(run),
            ..Self::planned(simulated, sites)
        }
    }

    /// The report for people.
    pub fn text(&self) -> anyhow::Result<String> {
        let mut parts = vec![show::plan(&serde_json::to_value(self.plan)?)?];
        let Some(run) = &self.run else {
            let together = &self.planned_together;
            parts.push(format!(
                "expected: a round takes {:.1} s, slowest and fastest site {:.0} % apart",
                together.slowest_seconds,
                100.0 * together.apart,
            ));
            return Ok(parts.join("\n"));
        };
        parts.push(run.table());
        parts.extend(run.looks.iter().map(Look::text));
        parts.extend(show::shrunk(&serde_json::to_value(&run.rounds)?));
        for (what, reached) in &self.targets {
            let target = reached.target;
            parts.push(match reached.seconds {
                Some(seconds) => format!("{what} {target}: after {seconds:.1} s"),
                None => format!("{what} {target}: never"),
            });
        }
        parts.push(format!(
            "{:.1} s in {} rounds, {:.1} s of scoring beside them; {:.1} s here; adapter of round {} ({}) {}",
            run.seconds,
            run.rounds.len(),
            run.scoring_seconds,
            run.real_seconds,
            run.kept.round,
            run.kept.why,
            run.adapter.sha256,
        ));
        Ok(parts.join("\n"))
    }
}

impl Round {
    /// The round in a line.
    pub fn text(&self) -> String {
        let score = self.score.as_ref();
        let score = score.map_or_else(String::new, |score| format!(", {}", score.text()));
        format!(
            "round {}: {:.1} s, sites {:.0} % apart{score}",
            self.round,
            self.ends_at - self.began_at,
            100.0 * self.together.apart,
        )
    }
}

impl Scored {
    fn text(&self) -> String {
        let loss = self.loss.map(|loss| format!("loss {loss:.4}"));
        let accuracy = self
            .balanced_accuracy
            .map(|accuracy| format!("balanced accuracy {accuracy:.3}"));
        let other = self.figure.map(|figure| figure.to_string());
        let figures: Vec<String> = other.into_iter().chain(loss).chain(accuracy).collect();
        figures.join(", ")
    }
}

impl Run {
    fn reached(&self, target: f64, is: impl Fn(&Scored) -> bool) -> Reached {
        let start = self.start.iter().map(|score| (0.0, score));
        let rounds = self.rounds.iter();
        let scored = rounds.filter_map(|round| Some((round.ends_at, round.score.as_ref()?)));
        let first = start.chain(scored).find(|(_, score)| is(score));
        Reached {
            target,
            seconds: first.map(|(seconds, _)| seconds),
        }
    }

    /// A row for each site in each round.
    fn table(&self) -> String {
        let heading = [
            "round", "ends at", "worker", "rank", "batch", "seconds", "waits", "loss", "score",
        ];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        let start = self.start.as_ref().map(Scored::text).unwrap_or_default();
        let mut first = vec!["0".to_owned(), "0.0".to_owned()];
        first.extend(std::iter::repeat_n(String::new(), 6));
        first.push(start);
        rows.push(first);
        for round in &self.rounds {
            let score = round.score.as_ref().map(Scored::text).unwrap_or_default();
            let mut summary = vec![round.round.to_string(), format!("{:.1}", round.ends_at)];
            summary.extend(["all".to_owned(), String::new(), String::new()]);
            summary.push(format!("{:.1}", round.together.slowest_seconds));
            summary.extend([String::new(), String::new(), score]);
            rows.push(summary);
            for site in &round.workers {
                rows.push(vec![
                    String::new(),
                    String::new(),
                    site.worker.to_string(),
                    site.rank.to_string(),
                    site.batch.to_string(),
                    format!("{:.1}", site.spent.seconds),
                    format!("{:.1}", site.wait_seconds),
                    site.loss
                        .map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}")),
                ]);
            }
        }
        table(&rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(loss: f64) -> Option<Scored> {
        Some(Scored {
            complete: true,
            records: 8,
            loss: Some(loss),
            balanced_accuracy: None,
            figure: None,
            seconds: 1.0,
        })
    }

    #[test]
    fn slopes_are_of_the_directions_that_were_taken() {
        let (unused, skipped) = (Scalars::UNUSED, Scalars::SKIPPED);
        let steps = vec![
            1.0, 2.0, unused, skipped, skipped, skipped, 4.0, 0.0, unused,
        ];
        let found = Slopes {
            directions: 4,
            mean_square: 5.25,
        };
        assert_eq!(Slopes::of(&Scalars::new(steps)), Some(found));
        assert_eq!(Slopes::of(&Scalars::new(vec![skipped; 3])), None);
    }

    #[test]
    fn a_target_is_reached_with_the_first_score_that_is_as_good() {
        let digest = Digest::from_bytes(&[0; 32]);
        let round = |round: u32, score| Round {
            round,
            began_at: 0.0,
            ends_at: 10.0 * f64::from(round),
            together: Together::of(std::iter::empty()),
            merge_seconds: 0.0,
            dropped_energy: 0.0,
            shrunk: Vec::new(),
            global: digest.clone(),
            workers: Vec::new(),
            score,
        };
        let run = Run {
            start: scored(3.0),
            rounds: vec![
                round(1, None),
                round(2, scored(2.0)),
                round(3, scored(1.0)),
                round(4, scored(1.5)),
            ],
            looks: Vec::new(),
            adapter: Adapter {
                sha256: digest.clone(),
                bytes: 1,
            },
            kept: Kept {
                round: 4,
                last: 4,
                figure: None,
                why: String::new(),
                stopped_early: None,
            },
            seconds: 40.0,
            scoring_seconds: 4.0,
            real_seconds: 1.0,
        };
        let when = |target: f64| {
            let is = |score: &Scored| score.loss.is_some_and(|loss| loss <= target);
            run.reached(target, is).seconds
        };
        assert_eq!(when(3.0), Some(0.0));
        assert_eq!(when(2.5), Some(20.0));
        assert_eq!(when(1.2), Some(30.0));
        assert_eq!(when(0.5), None);
    }
}

//! Whom a job's round asks, who is late for one, and how its scores go.

use domain::job::{Job, Kept, Phase};
use domain::round::Behind;
use serde::Serialize;
use utoipa::ToSchema;

/// A site that goes on with an earlier round.
#[derive(Debug, Serialize, ToSchema)]
pub struct LateView {
    /// Its worker.
    pub worker: String,
    /// The round that it is at; its update counts in the round in which it arrives, discounted.
    pub round: u32,
}

/// The best score so far.
#[derive(Debug, Serialize, ToSchema)]
pub struct BestView {
    /// Of which round; 0 is the untrained adapter.
    pub round: u32,
    /// The job's `evaluation.measure`: if that is absent `balanced_accuracy` for a job with choices, else `loss`.
    #[schema(value_type = String)]
    pub measure: domain::job::course::Measure,
    /// The figure.
    pub value: f64,
    /// Scores since the last that was an improvement; training stops at the job's `patience`.
    pub scores_without_improvement: u32,
}

/// The round whose adapter a job ends with.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeptView {
    /// Which round; 0 is the untrained adapter.
    pub round: u32,
    /// The last round that was trained.
    pub last: u32,
    /// Why this round, in a sentence.
    pub why: String,
    /// Why training stopped before the last round asked for, in a sentence; `null` if it did not.
    pub stopped_early: Option<String>,
}

impl From<&Behind> for LateView {
    fn from(behind: &Behind) -> Self {
        Self {
            worker: behind.worker.to_string(),
            round: behind.round,
        }
    }
}

impl From<&Kept> for KeptView {
    fn from(kept: &Kept) -> Self {
        Self {
            round: kept.round,
            last: kept.last,
            why: kept.why.clone(),
            stopped_early: kept.stopped_early.clone(),
        }
    }
}

/// Whom the open round asks.
pub fn asked(job: &Job) -> Vec<String> {
    match &job.phase {
        Phase::Training { asked, .. } => asked.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}

/// The best score so far.
pub fn best(job: &Job) -> Option<BestView> {
    let best = job.course.best.as_ref()?;
    Some(BestView {
        round: best.round,
        measure: best.figure.measure,
        value: best.figure.value,
        scores_without_improvement: job.course.without_improvement,
    })
}

/// Of which round the adapter is, once that is decided.
pub fn kept(job: &Job) -> Option<KeptView> {
    let kept = match &job.phase {
        Phase::Finalizing { kept, .. } => kept.as_ref(),
        _ => job.course.kept.as_ref(),
    };
    kept.map(KeptView::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::fixture::{artifact, training};
    use domain::job::course::{Figure, Measure, Scored};

    #[test]
    fn an_open_round_shows_whom_it_asks_and_who_is_late() {
        let mut job = training(1, &["a", "b", "c"]);
        assert_eq!(asked(&job), Vec::<String>::new());
        if let Phase::Training { asked, .. } = &mut job.phase {
            *asked = vec!["a".parse().expect("legal")];
        }
        job.late.push(Behind {
            worker: "c".parse().expect("legal"),
            round: 1,
            epoch: job.epoch,
            global: artifact(),
            plan: domain::plan::PlanVersion(1),
        });
        assert_eq!(asked(&job), ["a"]);
        let late: Vec<LateView> = job.late.iter().map(LateView::from).collect();
        let late = serde_json::to_value(late).expect("serializes");
        assert_eq!(late, serde_json::json!([{"worker": "c", "round": 1}]));
    }

    #[test]
    fn what_is_kept_is_shown_as_soon_as_it_is_decided() {
        let mut job = training(1, &["a"]);
        assert!(best(&job).is_none() && kept(&job).is_none());
        let figure = Figure {
            measure: Measure::BalancedAccuracy,
            value: 0.75,
        };
        let scored = Scored {
            round: 2,
            global: artifact(),
            figure,
            sites: vec!["a".parse().expect("legal")],
        };
        job.course = job.course.after(scored, &job.spec.rounds);
        let shown = serde_json::to_value(best(&job)).expect("serializes");
        assert_eq!(shown["measure"], "balanced_accuracy");
        assert_eq!(
            (&shown["round"], &shown["value"]),
            (&2.into(), &0.75.into())
        );
        let (global, decided) = job.course.conclude(2, &artifact(), &job.spec.rounds);
        job.phase = Phase::Finalizing {
            global,
            kept: Some(decided),
        };
        let shown = kept(&job).expect("decided");
        assert_eq!((shown.round, shown.last), (2, 2));
    }
}

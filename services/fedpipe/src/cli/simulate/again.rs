//! Between two rounds: whether the plan still stands, as aggregator, profiler and planner find out together.
//!
//! All sites are one process here, so a peak of memory is nobody's own: times are refined, and memory is not.
//! Sites do not come or go; one that a plan left out is thought of again, as a site that lives is.

use std::collections::BTreeMap;

use aggregator::follow::{self, Reasons};
use domain::drift::{self, Drift, Parted};
use domain::id::WorkerName;
use domain::job::{Job, Looks};
use domain::plan::{Plan, WorkerPlan};
use domain::profile::Profile;
use domain::round::{Summary, UpdateMetrics};
use planner::allocate::{Replanned, Request, replan};
use serde::Serialize;

use super::job::Simulated;

/// A look at the plan, and what came of it.
#[derive(Debug, Serialize)]
pub struct Look {
    /// The round before.
    pub after: u32,
    /// Who drifted, and by how much in the last round.
    pub drifted: BTreeMap<WorkerName, Parted>,
    /// Rank correlation of the weights' importance with that of the plan's first round, if it moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<f64>,
    /// Why the plan stays; absent if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stays: Option<String>,
    /// The one that takes its place from the next round on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

/// What a look leaves behind, if the job goes on.
pub struct Looked {
    /// For the report.
    pub look: Look,
    /// Profiles that have learned from the rounds.
    pub profiles: BTreeMap<WorkerName, Profile>,
    /// How often it was looked.
    pub looks: Looks,
}

/// Looks at the plan again, if the rounds so far are a reason to. Those before the present plan do not count.
pub fn look(simulated: &Simulated, job: &Job, rounds: &[Summary], after: u32) -> Option<Looked> {
    let plan = simulated.plan();
    let mean_tokens = |worker: &WorkerName| {
        let profile = simulated.profiles.get(worker);
        profile.map_or(0.0, |profile| profile.measurement.mean_tokens)
    };
    let training = &job.spec.training;
    let judge =
        |rounds: &[Summary]| drift::judge((plan, training), rounds, job.looks.after, mean_tokens);
    // The aggregator asks by the last few rounds, the profiler judges by all that it remembers.
    let planned = plan.workers.len();
    let window = drift::window(planned, job.spec.rounds.sample.of(planned));
    let old = |round: &Summary| round.round < after.saturating_sub(window);
    let few = rounds.partition_point(old);
    let followed = simulated.job.spec.adapter.follows_importance();
    let moved = drift::moved(plan, rounds, job.looks.after).filter(|_| followed);
    let reasons = Reasons {
        drifted: !judge(rounds.get(few..).unwrap_or_default()).is_empty(),
        moved: moved.is_some(),
        ..Reasons::default()
    };
    if !follow::looks_again(job, plan, reasons) {
        return None;
    }
    let drifted = judge(rounds);
    let mut profiles = simulated.profiles.clone();
    for (worker, profile) in &mut profiles {
        let has = drifted.iter().any(|drift| drift.worker == *worker);
        profiler::teach(profile, plan, training, rounds, has);
        if let Some(moved) = &moved {
            profiler::weigh(profile, moved);
        }
    }
    let request = Request {
        job: &job.id,
        // As planned first: the clock ends the rounds, if it does, and not their number.
        spec: &simulated.job.spec,
        profiles: &profiles,
        parent: Some(plan),
        least_sites: job.least_sites(),
    };
    let (stays, plan) = match replan(&request) {
        Ok(Replanned::Replaced(mut plan)) => {
            plan.from_round = after + 1;
            (None, Some(*plan))
        }
        Ok(Replanned::Kept(why)) => (Some(why), None),
        Err(cause) => {
            let why = format!("no other is possible: {}", cause.message);
            (Some(why), None)
        }
    };
    let by = |Drift { worker, by }: Drift| (worker, by);
    let look = Look {
        after,
        drifted: drifted.into_iter().map(by).collect(),
        moved: moved.map(|moved| moved.agreement),
        stays,
        plan,
    };
    let times = job.looks.times + 1;
    Some(Looked {
        look,
        profiles,
        looks: Looks { times, after },
    })
}

/// A site's figures as far as they are its own.
pub fn own(metrics: &UpdateMetrics, plan: &WorkerPlan) -> UpdateMetrics {
    let peak = metrics.peak_memory_bytes;
    UpdateMetrics {
        peak_memory_bytes: peak.min(plan.predicted.peak_memory_bytes),
        ..metrics.clone()
    }
}

impl Look {
    /// In a line.
    pub fn text(&self) -> String {
        let said = self.drifted.iter().map(|(worker, by)| {
            let (predicted, observed) = (by.predicted, by.observed);
            format!("{worker} took {observed:.1} s instead of {predicted:.1} s")
        });
        let moved = self.moved.map(|agreement| {
            format!("the weights' importance moved (rank correlation {agreement:.2})")
        });
        let said: Vec<String> = said.chain(moved).collect();
        let outcome = match (&self.plan, &self.stays) {
            (Some(plan), _) => format!("plan {}: {}", plan.version.0, plan.replaces.join("; ")),
            (None, Some(why)) => format!("the plan stays: {why}"),
            (None, None) => "the plan stays".to_owned(),
        };
        format!("after round {}: {}; {outcome}", self.after, said.join(", "))
    }
}

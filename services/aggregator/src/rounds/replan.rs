//! Whether the next round opens with the present plan, or the plan is looked at first.

use std::collections::BTreeMap;

use contract::topology::{plan_key, profile_key, round_key};
use domain::drift;
use domain::id::WorkerName;
use domain::job::{Job, Phase};
use domain::plan::Plan;
use domain::round::Summary;
use domain::time::UnixMillis;

use super::follow::{self, Reasons};
use crate::Error;
use crate::app::Aggregator;

/// Idle periods that sites may take to measure themselves between two rounds.
pub const IDLES: u64 = 10;

/// `next`, or the look at the plan that comes before it. Reads nothing unless a round would open and looks
/// are left.
pub async fn before(
    aggregator: &Aggregator,
    job: &Job,
    plan: &Plan,
    next: Phase,
    now: UnixMillis,
) -> Result<Phase, Error> {
    let opens = match &next {
        Phase::Paused { resume, .. } => resume.as_ref(),
        other => other,
    };
    let Phase::Training { round, .. } = opens else {
        return Ok(next);
    };
    if job.looks.times >= follow::LOOKS {
        return Ok(next);
    }
    let reasons = Reasons {
        drifted: drifted(aggregator, job, plan, round.saturating_sub(1)).await?,
        replayed: replayed(aggregator, job, plan, *round).await?,
    };
    if !follow::looks_again(job, plan, reasons) {
        return Ok(next);
    }
    let deadline = now.plus(IDLES * aggregator.config.liveness.idle_ms);
    Ok(follow::by_way_of_the_plan(next, deadline))
}

/// Whether a site drifted by the last rounds up to this one.
async fn drifted(
    aggregator: &Aggregator,
    job: &Job,
    plan: &Plan,
    last: u32,
) -> Result<bool, Error> {
    if job.spec.plan_from.is_some() || last == 0 {
        return Ok(false);
    }
    // Those that were committed with this plan and not judged before; a few before the last, for sites that
    // miss some, and more where a round asks few of them.
    let planned = plan.workers.len();
    let window = drift::window(planned, job.spec.rounds.sample.of(planned));
    let first = last.saturating_sub(window).max(1);
    let first = first.max(plan.from_round).max(job.looks.after + 1);
    let mut rounds: Vec<Summary> = Vec::new();
    for round in first..=last {
        let stored = aggregator.rounds.get(&round_key(&job.id, round)).await?;
        rounds.extend(stored.map(|(summary, _)| summary));
    }
    let mut lengths: BTreeMap<&WorkerName, f64> = BTreeMap::new();
    for worker in plan.workers.keys() {
        let key = profile_key(&job.id, worker);
        if let Some((profile, _)) = aggregator.profiles.get(&key).await? {
            lengths.insert(worker, profile.measurement.mean_tokens);
        }
    }
    let mean_tokens = |worker: &WorkerName| lengths.get(worker).copied().unwrap_or(0.0);
    let drifted = drift::judge(plan, &rounds, job.looks.after, mean_tokens);
    Ok(!drifted.is_empty())
}

/// Whether the job whose plans are replayed has another one from this round on.
async fn replayed(
    aggregator: &Aggregator,
    job: &Job,
    plan: &Plan,
    round: u32,
) -> Result<bool, Error> {
    let Some(other) = &job.spec.plan_from else {
        return Ok(false);
    };
    let next = plan_key(other, plan.version.next());
    let stored = aggregator.plans.get(&next).await?;
    Ok(stored.is_some_and(|(plan, _)| plan.from_round == round))
}

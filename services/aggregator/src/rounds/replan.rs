//! Whether the next round opens with the present plan, or the plan is looked at first.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use contract::topology::{plan_key, profile_key, round_key};
use domain::drift;
use domain::id::WorkerName;
use domain::job::{Job, Phase, Quorum};
use domain::plan::Plan;
use domain::round::Summary;
use domain::time::UnixMillis;

use super::follow::{self, Reasons};
use super::joining::newcomers;
use super::returning::returning;
use crate::Error;
use crate::app::Aggregator;

/// Idle periods that sites may take to measure themselves between two rounds.
pub const IDLES: u64 = 10;

/// `next`, or the look at the plan that comes before it; and who joins the job in the same write. Reads nothing unless
/// a round would open and looks are left.
pub async fn before(
    aggregator: &Aggregator,
    job: &Job,
    plan: &Plan,
    next: Phase,
    now: UnixMillis,
) -> Result<(Phase, Vec<WorkerName>), Error> {
    let opens = match &next {
        Phase::Paused { resume, .. } => resume.as_ref(),
        other => other,
    };
    let Phase::Training { round, .. } = opens else {
        return Ok((next, Vec::new()));
    };
    if job.looks.times >= follow::LOOKS {
        return Ok((next, Vec::new()));
    }
    let mut reasons = found(aggregator, job, plan, round.saturating_sub(1)).await?;
    reasons.replayed = replayed(aggregator, job, plan, *round).await?;
    reasons.left = left(aggregator, job, plan, now);
    let joined = newcomers(aggregator, job, now).await?;
    let mut whole = job.clone();
    whole.join(joined.iter().cloned());
    if !follow::looks_again(&whole, plan, reasons) {
        return Ok((next, Vec::new()));
    }
    if !joined.is_empty() {
        tracing::info!(job = %job.id, ?joined, "sites join");
    }
    let deadline = now.plus(IDLES * aggregator.config.liveness.idle_ms);
    Ok((follow::by_way_of_the_plan(next, deadline), joined))
}

/// Whether a planned site was given up and is not back. A job that wants all of its sites does not go on without one.
fn left(aggregator: &Aggregator, job: &Job, plan: &Plan, now: UnixMillis) -> bool {
    if job.spec.rounds.quorum == Quorum::All {
        return false;
    }
    let back = returning(aggregator, job, now);
    job.lost
        .iter()
        .any(|lost| plan.workers.contains_key(&lost.worker) && !back.contains(&lost.worker))
}

/// What the last rounds up to this one say: whether a site drifted, whether the weights' importance moved.
async fn found(
    aggregator: &Aggregator,
    job: &Job,
    plan: &Plan,
    last: u32,
) -> Result<Reasons, Error> {
    if job.spec.plan_from.is_some() || last == 0 {
        return Ok(Reasons::default());
    }
    // Those that were committed with this plan and not judged before; a few before the last, for sites that
    // miss some, and more where a round asks few of them.
    let planned = plan.workers.len();
    let window = drift::window(planned, job.spec.rounds.sample.of(planned));
    let of_the_plan = plan.from_round.max(job.looks.after + 1);
    let first = last.saturating_sub(window).max(1).max(of_the_plan);
    let rounds = committed(aggregator, job, first..=last).await?;
    let mut lengths: BTreeMap<&WorkerName, f64> = BTreeMap::new();
    for worker in plan.workers.keys() {
        let key = profile_key(&job.id, worker);
        if let Some((profile, _)) = aggregator.profiles.get(&key).await? {
            lengths.insert(worker, profile.measurement.mean_tokens);
        }
    }
    let mean_tokens = |worker: &WorkerName| lengths.get(worker).copied().unwrap_or(0.0);
    let training = &job.spec.training;
    let drifted = drift::judge((plan, training), &rounds, job.looks.after, mean_tokens);
    let mut since = committed(aggregator, job, of_the_plan..=of_the_plan.min(first - 1)).await?;
    since.extend(rounds);
    let moved = drift::moved(plan, &since, job.looks.after);
    Ok(Reasons {
        drifted: !drifted.is_empty(),
        moved: job.spec.adapter.follows_importance() && moved.is_some(),
        ..Reasons::default()
    })
}

async fn committed(
    aggregator: &Aggregator,
    job: &Job,
    numbers: RangeInclusive<u32>,
) -> Result<Vec<Summary>, Error> {
    let mut rounds = Vec::new();
    for round in numbers {
        let stored = aggregator.rounds.get(&round_key(&job.id, round)).await?;
        rounds.extend(stored.map(|(summary, _)| summary));
    }
    Ok(rounds)
}

/// Whether the job whose plans are replayed has another one from this round on, or was deleted: what would have followed is
/// not known then, and the planner ends the job and says so.
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
    if let Some((next, _)) = aggregator.plans.get(&next).await? {
        return Ok(next.from_round == round);
    }
    let present = plan_key(other, plan.version);
    Ok(aggregator.plans.get(&present).await?.is_none())
}

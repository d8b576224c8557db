//! A job between two rounds whose plan is to be looked at again: what was observed refines the profiles, it is
//! said who drifted and by how much, and sites that came back without a profile measure themselves.
//!
//! What it does follows from the plan and the stored rounds alone, so that doing it again after a crash does
//! the same: a round refines a profile once, an event is said once in an epoch.

use std::collections::BTreeMap;

use bus::drive::{Next, Owned, error_chain};
use chassis::failpoint::{Failpoint, hit};
use chassis::telemetry::{self, Metric};
use contract::message::job::Event;
use contract::topology::{plan_key, profile_key};
use domain::drift::{self, Drift, Moved, Quantity};
use domain::id::WorkerName;
use domain::job::{Job, Looks, Phase, Resume};
use domain::plan::Plan;
use domain::round::Summary;
use domain::time::UnixMillis;

use super::measuring::{Measured, measure};
use crate::app::Profiler;
use crate::{Error, learn, profiles};

pub async fn handle(
    profiler: &Profiler,
    job: &mut Owned,
    resume: Resume,
    deadline: UnixMillis,
) -> Result<Next, Error> {
    let Found { drifted, moved } = refined(profiler, job, &resume).await?;
    hit(Failpoint::ProfilerRefineAfterProfiles);
    if let Some(Moved {
        since, agreement, ..
    }) = moved
    {
        tracing::info!(job = %job.job().id, since, agreement, "importance moved");
        telemetry::count(Metric::Drifts, 1, &[("quantity", "importance")]);
        job.say(Event::ImportanceMoved { since, agreement }).await?;
    }
    for Drift { worker, by } in drifted {
        tracing::info!(job = %job.job().id, %worker, ?by, "drifted");
        let quantity = match by.quantity {
            Quantity::Seconds => "seconds",
            Quantity::Bytes => "bytes",
        };
        telemetry::count(Metric::Drifts, 1, &[("quantity", quantity)]);
        job.say(Event::Drifted {
            site: worker,
            by: Some(by),
        })
        .await?;
        hit(Failpoint::ProfilerRefineAfterEvent);
    }
    let strangers = strangers(profiler, job).await?;
    if let Measured::Wait(next) = measure(profiler, job, strangers, deadline).await? {
        return Ok(next);
    }
    let looks = Looks {
        times: job.job().looks.times + 1,
        after: resume.round,
    };
    let next = Phase::Planning {
        resume: Some(resume),
    };
    job.advance(next, |job| job.looks = looks).await?;
    hit(Failpoint::ProfilerRefineAfterState);
    job.announce().await?;
    Ok(Next::Again)
}

/// What the rounds so far say of the plan.
#[derive(Default)]
struct Found {
    drifted: Vec<Drift>,
    moved: Option<Moved>,
}

/// Refines the profile of every planned site by the rounds so far.
async fn refined(profiler: &Profiler, job: &Owned, resume: &Resume) -> Result<Found, Error> {
    let job = job.job();
    let Some(version) = job.plan else {
        return Ok(Found::default());
    };
    let Some((plan, _)) = profiler.plans.get(&plan_key(&job.id, version)).await? else {
        return Ok(Found::default());
    };
    let first = plan
        .from_round
        .max(resume.round.saturating_sub(drift::RECENT));
    let rounds = learn::rounds(profiler, &job.id, first, resume.round).await?;
    let mut lengths = BTreeMap::new();
    for worker in plan.workers.keys() {
        let key = profile_key(&job.id, worker);
        if let Some((profile, _)) = profiler.profiles.get(&key).await? {
            lengths.insert(worker.clone(), profile.measurement.mean_tokens);
        }
    }
    let mean_tokens = |worker: &WorkerName| lengths.get(worker).copied().unwrap_or(0.0);
    let training = &job.spec.training;
    let drifted = drift::judge((&plan, training), &rounds, job.looks.after, mean_tokens);
    let moved = moved(profiler, job, &plan, &rounds).await?;
    for worker in lengths.keys() {
        let key = profile_key(&job.id, worker);
        let Some((mut profile, _)) = profiler.profiles.get(&key).await? else {
            continue;
        };
        let before = profile.clone();
        let has_drifted = drifted.iter().any(|drift| drift.worker == *worker);
        learn::teach(&mut profile, &plan, training, &rounds, has_drifted);
        if let Some(moved) = &moved {
            learn::weigh(&mut profile, moved);
        }
        if profile != before
            && let Err(error) = profiles::put(profiler, &job.id, &profile).await?
        {
            let cause = error_chain(&error);
            tracing::warn!(job = %job.id, %worker, cause, "its rounds teach nothing");
        }
    }
    Ok(Found { drifted, moved })
}

/// Whether the importance of weights moved since the plan's first round, for a job whose plan depends on it.
async fn moved(
    profiler: &Profiler,
    job: &Job,
    plan: &Plan,
    rounds: &[Summary],
) -> Result<Option<Moved>, Error> {
    if !job.spec.adapter.follows_importance() || job.spec.plan_from.is_some() {
        return Ok(None);
    }
    let first = plan.from_round.max(job.looks.after + 1);
    let mut since = learn::rounds(profiler, &job.id, first, first).await?;
    let later = rounds.iter().filter(|round| round.round > first);
    since.extend(later.cloned());
    Ok(drift::moved(plan, &since, job.looks.after))
}

/// Sites that take part and were never measured for this job: those that came back.
async fn strangers(profiler: &Profiler, job: &Owned) -> Result<Vec<WorkerName>, Error> {
    let mut strangers = Vec::new();
    for worker in job.job().active() {
        let key = profile_key(&job.job().id, worker);
        if profiler.profiles.get(&key).await?.is_none() {
            strangers.push(worker.clone());
        }
    }
    Ok(strangers)
}

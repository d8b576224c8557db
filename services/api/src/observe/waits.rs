//! What a job waits for, in one word each: what `explain::waiting` says in sentences, for a label.

use domain::fleet::Liveness;
use domain::id::WorkerName;
use domain::job::{Job, Phase, Role};
use domain::time::UnixMillis;

use crate::explain::stage_name;
use crate::explain::waiting::{OWNERLESS_MS, Reported, Reports, asked};
use crate::watch::Known;

/// Sites that have not answered, and what they do; without a site, what is missing at the control plane.
pub fn of<'a>(
    job: &'a Job,
    known: &Known,
    reports: &Reports,
    now: UnixMillis,
) -> Vec<(Option<&'a WorkerName>, &'static str)> {
    let open = asked(job, known).into_iter().filter_map(|worker| {
        let what = site(job, worker, known, reports.get(worker), now)?;
        Some((Some(worker), what))
    });
    let mut waits: Vec<_> = open.collect();
    if let Some(what) = control(job, waits.is_empty(), now) {
        waits.push((None, what));
    }
    waits
}

fn site(
    job: &Job,
    worker: &WorkerName,
    known: &Known,
    reported: Option<&Reported>,
    now: UnixMillis,
) -> Option<&'static str> {
    if reported.is_some() {
        return None;
    }
    if known.liveness(worker, now) == Liveness::Unreachable {
        return Some("unreachable");
    }
    let Some(heard) = known.beats.get(worker) else {
        return Some("silent");
    };
    let beat = &heard.beat;
    Some(match &beat.progress {
        Some(task) if task.job != job.id || task.epoch != job.epoch => "elsewhere",
        _ => stage_name(beat.stage),
    })
}

fn control(job: &Job, sites_are_done: bool, now: UnixMillis) -> Option<&'static str> {
    match job.phase {
        Phase::Paused { .. } => return Some("resume"),
        Phase::Queued => return Some("sites"),
        _ if job.phase.is_terminal() => return None,
        _ => {}
    }
    let owner = job.owner.as_ref();
    let ownerless_since = owner.map_or(job.phase_since, |owner| owner.expires_at);
    if now.since(ownerless_since) > OWNERLESS_MS {
        return Some("owner");
    }
    if job.held.is_some() {
        return Some("held");
    }
    sites_are_done.then_some(match job.phase.role() {
        Role::Profiler => "profiler",
        Role::Planner => "planner",
        Role::Aggregator => "aggregator",
    })
}

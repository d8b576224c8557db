//! What is shown of one job.

use std::collections::BTreeMap;

use chassis::telemetry::{Metric, Picture};
use domain::id::JobId;
use domain::job::{Job, Phase};
use domain::time::UnixMillis;

use super::ledger::Entry;
use super::waits;
use crate::explain::waiting::Reports;
use crate::watch::Known;

/// Where it stands, and what it waits for.
pub fn add(picture: &mut Picture, job: &Job, known: &Known, reports: &Reports, now: UnixMillis) {
    let id = job.id.as_str();
    let seconds = |since: UnixMillis| now.seconds_since(since);
    let name = [id, job.spec.name.as_str(), job.phase.name()];
    picture.add(Metric::JobInfo, &name, 1.0);
    picture.add(Metric::JobRounds, &[id], f64::from(job.spec.rounds.count));
    picture.add(Metric::JobPhaseAge, &[id], seconds(job.phase_since));
    let held = job.held.as_ref().map_or(0.0, |held| seconds(held.since));
    picture.add(Metric::JobHeld, &[id], held);
    picture.add(Metric::JobIdle, &[id], idle_seconds(job, known, now));
    for (worker, what) in waits::of(job, known, reports, now) {
        let worker = worker.map_or("", |worker| worker.as_str());
        picture.add(Metric::JobWaiting, &[id, worker, what], 1.0);
    }
}

/// What it has come to.
pub fn add_results(picture: &mut Picture, job: &Job, entry: &Entry) {
    let id = job.id.as_str();
    let round = entry.round.as_ref().map_or(0, |round| round.round);
    picture.add(Metric::JobRound, &[id], f64::from(round));
    if let Some(round) = &entry.round {
        picture.add(Metric::JobRoundSeconds, &[id], round.seconds);
        picture.add(Metric::JobRoundOverhead, &[id], round.overhead_seconds);
        picture.add(Metric::JobDroppedEnergy, &[id], round.dropped_energy);
    }
    if let Some(evaluated) = &entry.score {
        let score = &evaluated.score;
        picture.add(Metric::JobEvaluationSeconds, &[id], evaluated.seconds);
        if let Some(loss) = score.loss() {
            picture.add(Metric::JobLoss, &[id], loss);
        }
        if let Some(accuracy) = score.balanced_accuracy() {
            picture.add(Metric::JobAccuracy, &[id], accuracy);
        }
    }
    if let Some(plan) = &entry.plan {
        picture.add(Metric::JobPlannedSeconds, &[id], plan.round_seconds);
        let basis = plan.basis.as_ref();
        if let Some(gap) = basis.and_then(|basis| basis.gap) {
            picture.add(Metric::JobPlanGap, &[id], gap);
        }
    }
}

/// When a site's work on each job moved last, as beats say.
pub fn movements(known: &Known) -> BTreeMap<&JobId, UnixMillis> {
    let mut last = BTreeMap::new();
    for heard in known.beats.values() {
        if let Some(task) = &heard.beat.progress {
            let moved: &mut UnixMillis = last.entry(&task.job).or_insert(heard.moved_at);
            *moved = heard.moved_at.max(*moved);
        }
    }
    last
}

/// Since when nothing of the job has moved: its phase, or a site's work on it. A queued or paused job waits
/// for somebody, and an ended one for nobody: they stand still by right.
pub fn still_since(job: &Job, moved: Option<UnixMillis>) -> Option<UnixMillis> {
    let rests = matches!(job.phase, Phase::Queued | Phase::Paused { .. });
    if rests || job.phase.is_terminal() {
        return None;
    }
    Some(moved.map_or(job.phase_since, |moved| moved.max(job.phase_since)))
}

fn idle_seconds(job: &Job, known: &Known, now: UnixMillis) -> f64 {
    let on_it = known.beats.values().filter(|heard| {
        let progress = heard.beat.progress.as_ref();
        progress.is_some_and(|task| task.job == job.id)
    });
    let moved = on_it.map(|heard| heard.moved_at).max();
    still_since(job, moved).map_or(0.0, |since| now.seconds_since(since))
}

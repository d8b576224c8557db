//! Which jobs are shown, of all there are.

use std::cmp::Reverse;

use chassis::telemetry::JOBS_SHOWN;
use domain::job::Job;
use domain::time::UnixMillis;

use super::jobs::{movements, still_since};
use crate::watch::Known;

/// How long a job is shown after it ended: until whoever watched it has looked.
const AFTERWARDS_MS: u64 = 3_600_000;

/// A job that has stood still or been held up for less is like any other: so the jobs shown do not change
/// with every step that a site makes, and alerts, which wait for longer, see whoever is in need.
const NEED_MS: u64 = 60_000;

/// Those that have not ended, first whoever has been held up or stood still, for longest, then the newest; then those
/// that ended within the hour, the latest first; and how many found no room.
pub fn jobs(known: &Known, now: UnixMillis) -> (Vec<&Job>, usize) {
    let (mut ended, mut jobs): (Vec<&Job>, Vec<&Job>) =
        known.jobs.values().partition(|job| job.phase.is_terminal());
    let moved = movements(known);
    let need = |job: &Job| need_ms(job, moved.get(&job.id).copied(), now);
    jobs.sort_by_cached_key(|job| {
        (
            Reverse(need(job)),
            Reverse(job.submitted_at),
            job.id.clone(),
        )
    });
    ended.retain(|job| now.since(job.phase_since) <= AFTERWARDS_MS);
    ended.sort_by_key(|job| (Reverse(job.phase_since), job.id.clone()));
    jobs.extend(ended);
    let left_out = jobs.len().saturating_sub(JOBS_SHOWN);
    jobs.truncate(JOBS_SHOWN);
    (jobs, left_out)
}

/// How long it has been held up or stood still, whichever is longer; 0: not long enough to matter.
fn need_ms(job: &Job, moved: Option<UnixMillis>, now: UnixMillis) -> u64 {
    let held = job.held.as_ref().map(|held| held.since);
    let since = [held, still_since(job, moved)];
    let longest = since
        .into_iter()
        .flatten()
        .map(|since| now.since(since))
        .max();
    longest.filter(|need| *need >= NEED_MS).unwrap_or(0)
}

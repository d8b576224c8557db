//! Which jobs are shown, of all there are.

use std::cmp::Reverse;

use chassis::telemetry::JOBS_SHOWN;
use domain::job::Job;
use domain::time::UnixMillis;

use crate::watch::Known;

/// How long a job is shown after it ended: until whoever watched it has looked.
const AFTERWARDS_MS: u64 = 3_600_000;

/// Those that have not ended, the newest first, then those that ended within the hour, the latest first;
/// and how many found no room.
pub fn jobs(known: &Known, now: UnixMillis) -> (Vec<&Job>, usize) {
    let (mut ended, mut jobs): (Vec<&Job>, Vec<&Job>) =
        known.jobs.values().partition(|job| job.phase.is_terminal());
    jobs.sort_by_key(|job| (Reverse(job.submitted_at), job.id.clone()));
    ended.retain(|job| now.since(job.phase_since) <= AFTERWARDS_MS);
    ended.sort_by_key(|job| (Reverse(job.phase_since), job.id.clone()));
    jobs.extend(ended);
    let left_out = jobs.len().saturating_sub(JOBS_SHOWN);
    jobs.truncate(JOBS_SHOWN);
    (jobs, left_out)
}

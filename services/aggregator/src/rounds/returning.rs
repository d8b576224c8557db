//! Who is asked again after having been given up.

use domain::fleet::Liveness;
use domain::id::WorkerName;
use domain::job::Job;
use domain::time::UnixMillis;

use crate::app::Aggregator;

/// Sites that were given up, beat again and get on again: the next round asks them. One that beats and
/// is stuck in what it was given up for would cost every round the same wait.
pub fn returning(aggregator: &Aggregator, job: &Job, now: UnixMillis) -> Vec<WorkerName> {
    let give_up_ms = aggregator.config.liveness.give_up_ms();
    let gets_on = |member: bus::fleet::Member| {
        member.liveness(now) == Liveness::Alive && now.since(member.moved_at) <= give_up_ms
    };
    let back = job.lost.iter().filter(|lost| {
        let member = aggregator.fleet.member(&lost.worker);
        !lost.trouble.is_lasting() && member.is_some_and(gets_on)
    });
    back.map(|lost| lost.worker.clone()).collect()
}

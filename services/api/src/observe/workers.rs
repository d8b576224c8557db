//! What is shown of the fleet.

use std::collections::{BTreeMap, BTreeSet};

use bus::Backlog;
use chassis::telemetry::{Metric, Picture, WORKERS_SHOWN};
use domain::fleet::{Liveness, Stage};
use domain::id::WorkerName;
use domain::time::UnixMillis;

use crate::explain::stage_name;
use crate::watch::Known;

/// Every registered worker, by name.
pub fn add(
    picture: &mut Picture,
    known: &Known,
    backlogs: &BTreeMap<WorkerName, Backlog>,
    now: UnixMillis,
) {
    let late: BTreeSet<&WorkerName> = known
        .jobs
        .values()
        .flat_map(|job| job.late.iter().map(|behind| &behind.worker))
        .collect();
    picture.leave_out(known.workers.len().saturating_sub(WORKERS_SHOWN));
    for (worker, registration) in known.workers.iter().take(WORKERS_SHOWN) {
        let name = [worker.as_str()];
        let up = known.liveness(worker, now) == Liveness::Alive;
        picture.add(Metric::WorkerUp, &name, flag(up));
        let quiet = now.seconds_since(known.last_heard(worker));
        picture.add(Metric::WorkerBeatAge, &name, quiet);
        picture.add(Metric::WorkerLate, &name, flag(late.contains(worker)));
        // Invariant: memory stays far below 2^53 bytes, where f64 is exact.
        let limit_bytes = registration.memory_limit_bytes as f64;
        picture.add(Metric::WorkerMemoryLimit, &name, limit_bytes);
        if let Some(backlog) = backlogs.get(worker) {
            picture.add(Metric::WorkerQueue, &name, backlog.tasks as f64);
            let again = backlog.redelivered as f64;
            picture.add(Metric::WorkerRedelivered, &name, again);
        }
        let Some(heard) = known.beats.get(worker).filter(|_| up) else {
            continue;
        };
        let beat = &heard.beat;
        picture.add(
            Metric::WorkerStage,
            &[worker.as_str(), stage_name(beat.stage)],
            1.0,
        );
        picture.add(Metric::WorkerMemory, &name, beat.memory_bytes as f64);
        picture.add(Metric::WorkerRetries, &name, beat.retries as f64);
        let still = match beat.stage {
            Stage::Idle => 0.0,
            _ => now.seconds_since(heard.moved_at),
        };
        picture.add(Metric::WorkerProgressAge, &name, still);
        let progress = beat.progress.as_ref();
        if let Some(speed) = progress.and_then(|task| task.tokens_per_second) {
            picture.add(Metric::WorkerTokens, &name, speed);
        }
    }
}

const fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

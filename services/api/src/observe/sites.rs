//! What is shown of one job's sites: the last committed round beside the plan.

use chassis::telemetry::{Metric, Picture, WORKERS_SHOWN};
use domain::job::Job;

use super::ledger::Entry;

/// Every site of the last committed round, and every planned one.
pub fn add(picture: &mut Picture, job: &Job, entry: &Entry) {
    let id = job.id.as_str();
    let rounds = entry.round.iter().flat_map(|round| &round.workers);
    let beyond = rounds.clone().count().saturating_sub(WORKERS_SHOWN);
    picture.leave_out(beyond);
    for own in rounds.take(WORKERS_SHOWN) {
        let labels = [id, own.worker.as_str()];
        let figures = &own.metrics;
        // Invariant: bytes of a round stay far below 2^53, where f64 is exact.
        if let Some(loss) = figures.loss() {
            picture.add(Metric::SiteLoss, &labels, loss);
        }
        picture.add(Metric::SiteWeight, &labels, own.weight);
        picture.add(Metric::SiteTokens, &labels, figures.tokens_per_second);
        picture.add(Metric::SiteCompute, &labels, figures.compute_seconds);
        if figures.steps > 0 {
            let step_seconds = figures.compute_seconds / f64::from(figures.steps);
            picture.add(Metric::SiteStep, &labels, step_seconds);
        }
        let peak_bytes = figures.peak_memory_bytes as f64;
        picture.add(Metric::SiteMemoryPeak, &labels, peak_bytes);
        picture.add(Metric::SiteUpload, &labels, figures.bytes_up as f64);
        picture.add(Metric::SiteDownload, &labels, figures.bytes_down as f64);
    }
    let planned = entry.plan.iter().flat_map(|plan| &plan.workers);
    for (worker, plan) in planned.take(WORKERS_SHOWN) {
        let labels = [id, worker.as_str()];
        let predicted = &plan.predicted;
        let seconds = predicted.step_seconds * f64::from(plan.local_steps);
        picture.add(Metric::SitePlannedCompute, &labels, seconds);
        let peak_bytes = predicted.peak_memory_bytes as f64;
        picture.add(Metric::SitePlannedMemory, &labels, peak_bytes);
        let upload_bytes = predicted.upload_bytes as f64;
        picture.add(Metric::SitePlannedUpload, &labels, upload_bytes);
    }
}

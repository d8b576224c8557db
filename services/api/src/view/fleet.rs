//! Workers as the API shows them.

use std::collections::BTreeMap;

use domain::fleet::{Beat, DatasetSummary, Liveness, Progress, Registration};
use domain::time::UnixMillis;
use serde::Serialize;
use utoipa::ToSchema;

use super::{finite, rfc3339};
use crate::explain::stage_name;
use crate::watch::Known;

/// A worker of the fleet.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkerView {
    /// Its name.
    pub worker: String,
    /// Version of its program; after `+`, a digest of its engine.
    pub version: String,
    /// Its machine.
    pub host: String,
    /// When its process started (RFC 3339).
    pub started_at: String,
    /// Bytes it may use.
    pub memory_limit_bytes: u64,
    /// Bytes of heap in use at its last beat.
    pub memory_bytes: Option<u64>,
    /// Its compute threads.
    pub threads: u16,
    /// Its data sets by name.
    pub datasets: BTreeMap<String, DatasetView>,
    /// Its site's policy in a sentence.
    pub policy: String,
    /// `alive`, or `unreachable` after three missed beats.
    pub liveness: &'static str,
    /// Milliseconds between two beats.
    pub beat_ms: u64,
    /// When its last beat arrived (RFC 3339); absent if none did since this service started.
    pub last_beat_at: Option<String>,
    /// What it is doing: idle, downloading, loading, probing, training, uploading, evaluating or stopping.
    pub stage: Option<&'static str>,
    /// The job that holds it.
    pub job: Option<String>,
    /// Progress of its task.
    pub progress: Option<ProgressView>,
}

/// What a site says of a data set.
#[derive(Debug, Serialize, ToSchema)]
pub struct DatasetView {
    /// Usable training records.
    pub records: u64,
    /// Held-out records.
    pub held_out: u64,
    /// Records that could not be read.
    pub skipped: u64,
}

/// Progress of a task.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressView {
    /// The task's job.
    pub job: String,
    /// The task's epoch.
    pub epoch: u64,
    /// The task's round.
    pub round: u32,
    /// Steps, records or bytes done, by stage.
    pub done: u64,
    /// Steps, records or bytes in all; 0 where unknown.
    pub total: u64,
    /// Last loss.
    pub loss: Option<f64>,
    /// Tokens a second so far.
    pub tokens_per_second: Option<f64>,
}

/// Live progress of one worker, as event streams show it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressEvent {
    /// Whose.
    pub worker: String,
    /// When it arrived (RFC 3339).
    pub at: String,
    /// What the worker is doing.
    pub stage: &'static str,
    /// Bytes of heap in use.
    pub memory_bytes: u64,
    /// Progress of its task.
    pub progress: Option<ProgressView>,
}

impl From<&Progress> for ProgressView {
    fn from(progress: &Progress) -> Self {
        Self {
            job: progress.job.to_string(),
            epoch: progress.epoch.0,
            round: progress.round,
            done: progress.done,
            total: progress.total,
            loss: progress.loss.and_then(finite),
            tokens_per_second: progress.tokens_per_second.and_then(finite),
        }
    }
}

impl From<&DatasetSummary> for DatasetView {
    fn from(summary: &DatasetSummary) -> Self {
        Self {
            records: summary.records,
            held_out: summary.held_out,
            skipped: summary.skipped,
        }
    }
}

impl ProgressEvent {
    /// A beat that arrived at this moment.
    pub fn new(beat: &Beat, at: UnixMillis) -> Self {
        Self {
            worker: beat.worker.to_string(),
            at: rfc3339(at),
            stage: stage_name(beat.stage),
            memory_bytes: beat.memory_bytes,
            progress: beat.progress.as_ref().map(ProgressView::from),
        }
    }
}

/// The word for a liveness.
pub const fn liveness_name(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Unreachable => "unreachable",
    }
}

/// A worker with what is known of it.
pub fn worker_view(registration: &Registration, known: &Known, now: UnixMillis) -> WorkerView {
    let name = &registration.worker;
    let heard = known.beats.get(name);
    let datasets = registration.datasets.iter();
    WorkerView {
        worker: name.to_string(),
        version: registration.version.clone(),
        host: registration.host.clone(),
        started_at: rfc3339(registration.started_at),
        memory_limit_bytes: registration.memory_limit_bytes,
        memory_bytes: heard.map(|heard| heard.beat.memory_bytes),
        threads: registration.threads,
        datasets: datasets
            .map(|(name, summary)| (name.to_string(), summary.into()))
            .collect(),
        policy: registration.policy.clone(),
        liveness: liveness_name(known.liveness(name, now)),
        beat_ms: registration.beat_ms,
        last_beat_at: heard.map(|heard| rfc3339(heard.at)),
        stage: heard.map(|heard| stage_name(heard.beat.stage)),
        job: known.holder(name).map(|job| job.id.to_string()),
        progress: heard.and_then(|heard| heard.beat.progress.as_ref().map(ProgressView::from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::fixture::{beat_on, registration, training};
    use crate::watch::Watch;
    use domain::fleet::Stage;

    #[test]
    fn a_worker_that_beats_not_a_number_is_shown_with_null() {
        let watch = Watch::new(UnixMillis(0));
        let job = training(1, &["a"]);
        watch.job(job.clone());
        watch.worker(registration("a", "mail"), UnixMillis(0));
        let mut beat = beat_on("a", &job, Stage::Training);
        if let Some(progress) = &mut beat.progress {
            progress.loss = Some(f64::NAN);
            progress.tokens_per_second = Some(f64::INFINITY);
        }
        watch.beat(beat, UnixMillis(1000));
        let view = worker_view(&registration("a", "mail"), &watch.read(), UnixMillis(2000));
        let json = serde_json::to_value(&view).expect("serializes");
        assert!(json["progress"]["loss"].is_null());
        assert!(json["progress"]["tokens_per_second"].is_null());
        assert_eq!(
            (&json["stage"], &json["liveness"]),
            (&"training".into(), &"alive".into())
        );
        assert_eq!(json["job"], job.id.as_str());
    }
}

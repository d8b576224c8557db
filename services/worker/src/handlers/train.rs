//! `train`: one round of local training, its update stored before it is reported.

use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;

use chassis::failpoint::{self, Failpoint};
use chassis::telemetry::{self, Metric, SpanName};
use contract::message::report::Updated;
use contract::message::task::Train;
use domain::artifact::ArtifactRef;
use domain::cause::Trouble;
use domain::fleet::Stage;
use domain::round::{Update, UpdateMetrics};

use super::honour;
use crate::errand::Errand;
use crate::failure::Failure;
use crate::fetch;
use crate::report::Report;
use crate::train::{self as lessons, Lesson, Pending, Trained};

/// Trains, or takes up an update that was trained before the process died, and stores it.
pub(super) async fn handle(running: &Errand, task: &Train) -> Result<Report, Failure> {
    let site = &running.site;
    let pending = Pending::of(&site.work_dir(), &running.address);
    let found = pending.clone();
    let trained = running
        .aside(move |_| found.find().map_err(|e| disk(&e)))
        .await?;
    let mut metrics = match trained {
        Some(metrics) => metrics,
        None => train(running, task, &pending).await?,
    };
    failpoint::hit(Failpoint::WorkerTrainBeforeUpload);

    let (adapter, bytes_up) = upload(running, &task.prefix, &pending.file()).await?;
    metrics.bytes_up = bytes_up;
    metrics.control_bytes_up = site.bus.bytes_sent().saturating_sub(running.sent_before);
    let head = running.report_head();
    Ok(Report::Updated(Box::new(Updated {
        head,
        round: task.round,
        update: Update { adapter, metrics },
    })))
}

async fn train(
    running: &Errand,
    task: &Train,
    pending: &Pending,
) -> Result<UpdateMetrics, Failure> {
    let site = &running.site;
    let key = honour(site, &task.head.model, &task.plan)?;
    let name = task.head.dataset.clone();
    let data = running.aside(move |site| site.data.get(&name)).await?;
    lessons::admit(site, &task.plan, &data)?;

    let files = fetch::model(running).await?;
    let (global, bytes_down) = fetch::adapter(running, &task.global).await?;
    failpoint::hit(Failpoint::WorkerTrainAfterGlobal);
    let planned_bytes = task.plan.predicted.peak_memory_bytes;
    let task = task.clone();
    let lesson = Lesson {
        task,
        key,
        files,
        global,
        data,
    };
    let trained = running
        .compute(move |bench, running| lesson.train(bench, running))
        .await?;
    let Trained {
        update,
        mut metrics,
    } = trained;
    metrics.bytes_down = bytes_down;
    observe_memory(&metrics, planned_bytes);
    let (pending, kept) = (pending.clone(), metrics.clone());
    let keep = move |_: &_| pending.keep(&update, &kept).map_err(|error| disk(&error));
    running.aside(keep).await?;
    Ok(metrics)
}

/// The round's peak beside the plan's. Invariant: memory stays far below 2^53 bytes, where f64 is exact.
fn observe_memory(metrics: &UpdateMetrics, planned_bytes: u64) {
    let peak_bytes = metrics.peak_memory_bytes;
    telemetry::set(Metric::TrainingMemoryPeak, peak_bytes as f64, &[]);
    telemetry::set(Metric::TrainingMemoryPlanned, planned_bytes as f64, &[]);
}

/// Stores the update; returns where, and how many bytes were sent.
async fn upload(
    running: &Errand,
    prefix: &str,
    file: &Path,
) -> Result<(ArtifactRef, u64), Failure> {
    let bytes = std::fs::metadata(file).map_or(0, |about| about.len());
    running.stage(Stage::Uploading, bytes);
    let transfer = running.transfer();
    let _span = telemetry::within(running.trace, SpanName::Upload, &[]);
    let put = running.patiently(Trouble::StorageUnavailable, || {
        running.store.put_file(prefix, file, &transfer)
    });
    let mut put = pin!(put);
    // Between two parts, or between the last part and the manifest.
    let artifact = poll_fn(|context| {
        let polled = put.as_mut().poll(context);
        if transfer.moved() > 0 {
            failpoint::hit(Failpoint::WorkerTrainWhileUploading);
        }
        polled
    });
    let artifact = artifact.await?;
    let moved = transfer.moved();
    telemetry::count(Metric::TransferBytes, moved, &[("direction", "up")]);
    Ok((artifact, moved))
}

fn disk(error: &std::io::Error) -> Failure {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Trouble::DiskFull,
        _ => Trouble::Internal,
    };
    Failure::of(kind, error)
}

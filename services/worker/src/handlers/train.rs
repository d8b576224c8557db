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
use domain::job::spec::Optimizer;
use domain::round::{Update, UpdateMetrics};
use domain::zeroth::{GENERATOR, Scalars};

use super::honour;
use crate::emphasis;
use crate::errand::Errand;
use crate::failure::Failure;
use crate::fetch;
use crate::report::Report;
use crate::train::{self as lessons, Figures, Kept, Lesson, Outcome, Pending, Taught};

/// Trains, or takes up an update that was trained before the process died, and stores it.
pub(super) async fn handle(running: &Errand, task: &Train) -> Result<Report, Failure> {
    let site = &running.site;
    let pending = Pending::of(&site.work_dir(), &running.address);
    let found = pending.clone();
    let trained = running
        .aside(move |_| found.find().map_err(|e| disk(&e)))
        .await?;
    let sends_scalars = task.training.sends_scalars(task.plan.optimizer);
    // Scalars tell nothing without what they began with, which an earlier program did not keep.
    let tells = |figures: &Figures| !sends_scalars || figures.start.is_some();
    let figures = match trained.filter(tells) {
        Some(figures) => figures,
        None => train(running, task, &pending).await?,
    };
    failpoint::hit(Failpoint::WorkerTrainBeforeUpload);
    if sends_scalars {
        return walked(running, task, &pending, figures).await;
    }
    let mut metrics = figures.metrics;
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

/// The report of scalars, which are the update themselves.
async fn walked(
    running: &Errand,
    task: &Train,
    pending: &Pending,
    figures: Figures,
) -> Result<Report, Failure> {
    let file = pending.file();
    let read = move |_: &_| std::fs::read(file).map_err(|error| disk(&error));
    let scalars = Scalars::from_bytes(&running.aside(read).await?);
    let report = |scalars| figures.walked(running.report_head(), task.round, scalars);
    let walked = scalars.and_then(report);
    let mut walked = walked.ok_or_else(|| {
        Failure::new(
            Trouble::Internal,
            "the scalars on disk are damaged".to_owned(),
        )
    })?;
    let sent = running.site.bus.bytes_sent();
    walked.metrics.control_bytes_up = sent.saturating_sub(running.sent_before);
    // The figure is part of what it counts: twice settles its own length.
    for _ in 0..2 {
        let bytes = bus::wire_bytes(&walked).map_err(|error| Failure::internal(&error))?;
        walked.metrics.bytes_up = bytes;
    }
    Ok(Report::Walked(Box::new(walked)))
}

async fn train(running: &Errand, task: &Train, pending: &Pending) -> Result<Figures, Failure> {
    let site = &running.site;
    let key = honour(site, &task.head.model, &task.plan)?;
    let name = task.head.dataset.clone();
    let data = running.aside(move |site| site.data.get(&name)).await?;
    lessons::admit(site, &task.plan, &data)?;

    let files = fetch::model(running).await?;
    let walk = task.walk.as_ref();
    if task.plan.optimizer == Optimizer::Mezo {
        lessons::supported(walk)?;
    }
    let before = walk.map(|walk| (walk, task.round.saturating_sub(1)));
    let (global, mut bytes_down, start) = match before {
        Some(before) => {
            let (path, moved, found) = fetch::verified(running, &task.global, before).await?;
            (path, moved, Some(found))
        }
        None => {
            let (path, moved) = fetch::adapter(running, &task.global, None).await?;
            (path, moved, None)
        }
    };
    let masked = walk.filter(|walk| emphasis::is_masked(walk, task.round));
    let mask = match masked {
        Some(walk) => fetch::mask(running, walk).await?,
        None => None,
    };
    bytes_down += mask.as_ref().map_or(0, |(_, moved)| *moved);
    failpoint::hit(Failpoint::WorkerTrainAfterGlobal);
    let planned_bytes = task.plan.predicted.peak_memory_bytes;
    let task = task.clone();
    let kept = Kept::of(&site.work_dir(), &running.address, &site.token);
    let lesson = Lesson {
        task,
        key,
        files,
        global,
        mask: mask.map(|(path, _)| path),
        data,
        kept: Some(kept),
    };
    let trained = running
        .compute(move |bench, running| lesson.train(bench, running))
        .await?;
    let Taught {
        update,
        mut metrics,
        passes: _,
    } = trained;
    metrics.bytes_down = bytes_down;
    observe_memory(&metrics, planned_bytes);
    let (bytes, reached) = match update {
        Outcome::Tensors(file) => (file, None),
        Outcome::Scalars(scalars, reached) => (scalars.to_bytes(), reached),
    };
    let figures = Figures {
        metrics,
        generator: GENERATOR,
        start,
        reached,
    };
    let (pending, kept) = (pending.clone(), figures.clone());
    let keep = move |_: &_| pending.keep(&bytes, &kept).map_err(|error| disk(&error));
    running.aside(keep).await?;
    Ok(figures)
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
    // Looked at again and again: one that was armed before stands between two parts, or when the last one is stored and nothing
    // of the manifest is sent.
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

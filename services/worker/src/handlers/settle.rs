//! The end of a task: sealed, then said, so that nothing is computed twice and nothing is lost.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bus::{Outcome, Retry};
use chassis::failpoint::{self, Failpoint};
use contract::message::report::{Failed, Head};
use contract::message::task::Task;
use contract::subject::Address;
use domain::cause::Trouble;
use tokio_util::sync::CancellationToken;

use crate::errand::Errand;
use crate::failure::{Failure, explain};
use crate::journal::Casualty;
use crate::report::Report;
use crate::site::Site;
use crate::train::Pending;

/// Pauses between attempts to say a report: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The sealed report on a task, if any.
pub(super) async fn find(site: &Arc<Site>, address: &Address) -> Result<Option<Report>, Outcome> {
    let (sealed, address) = (site.sealed.clone(), address.clone());
    let found = tokio::task::spawn_blocking(move || sealed.find(&address)).await;
    match found {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::error!(%error, "sealed results cannot be read");
            Err(Outcome::Later)
        }
        Err(_) => Err(Outcome::HandBack),
    }
}

/// Seals and says a result, with a fail-point between each two effects.
pub(super) async fn succeed(running: &Errand, task: &Task, report: &Report) -> Outcome {
    let site = &running.site;
    match task {
        Task::Probe(_) => failpoint::hit(Failpoint::WorkerProbeBeforeReport),
        Task::Evaluate(_) => failpoint::hit(Failpoint::WorkerEvaluateBeforeReport),
        Task::Train(_) => failpoint::hit(Failpoint::WorkerTrainAfterUpload),
    }
    match seal(site, &running.address, report).await {
        Ok(()) => {}
        // Trying again would not make room; whoever reads this can.
        Err(Unsealed::Full(failure)) => return fail(site, &running.address, failure).await,
        Err(Unsealed::Instead(outcome)) => return outcome,
    }
    match task {
        Task::Probe(_) => failpoint::hit(Failpoint::WorkerProbeAfterSeal),
        Task::Evaluate(_) => failpoint::hit(Failpoint::WorkerEvaluateAfterSeal),
        Task::Train(_) => {
            failpoint::hit(Failpoint::WorkerTrainAfterSeal);
            forget(running).await;
            failpoint::hit(Failpoint::WorkerTrainAfterForget);
        }
    }
    let outcome = say(site, report, running.stop.token()).await;
    match task {
        Task::Probe(_) => failpoint::hit(Failpoint::WorkerProbeAfterReport),
        Task::Evaluate(_) => failpoint::hit(Failpoint::WorkerEvaluateAfterReport),
        Task::Train(_) => failpoint::hit(Failpoint::WorkerTrainAfterReport),
    }
    outcome
}

/// The stored and sealed update is not needed here any more.
async fn forget(running: &Errand) {
    let pending = Pending::of(&running.site.work_dir(), &running.address);
    let done = tokio::task::spawn_blocking(move || pending.forget()).await;
    if let Ok(Err(error)) = done {
        tracing::warn!(%error, "the file of a stored update remains");
    }
}

/// Seals and says that a task cannot be done here.
pub(super) async fn fail(site: &Arc<Site>, address: &Address, failure: Failure) -> Outcome {
    let Some(report) = failed(address, failure) else {
        return Outcome::HandBack;
    };
    // A failure that cannot be sealed, on a full disk perhaps, is said all the same.
    if let Err(error) = seal(site, address, &report).await {
        tracing::warn!(?error, "a failure is said without being sealed");
    }
    failpoint::hit(Failpoint::WorkerFailAfterSeal);
    say(site, &report, &site.token).await
}

/// Seals what is to be said of a task that killed the process before this one.
///
/// # Errors
/// If it cannot be sealed; the journal then still holds it.
pub fn bury(site: &Site, casualty: Casualty) -> std::io::Result<Option<Report>> {
    let Casualty { task, failure } = casualty;
    let report = failed(&task, failure);
    if let Some(report) = &report {
        site.sealed.seal(&task, report)?;
    }
    site.journal.end()?;
    Ok(report)
}

fn failed(address: &Address, failure: Failure) -> Option<Report> {
    let Failure::Site { trouble, detail } = failure else {
        return None;
    };
    tracing::error!(job = %address.job, kind = address.kind, %trouble, detail, "task failed");
    Some(Report::Failed(Box::new(Failed {
        head: Head {
            worker: address.worker.clone(),
            job: address.job.clone(),
            epoch: address.epoch,
        },
        task: address.kind.clone(),
        trouble,
        detail,
    })))
}

/// Why a result is not sealed.
#[derive(Debug)]
enum Unsealed {
    /// The disk is full.
    Full(Failure),
    /// What becomes of the task.
    Instead(Outcome),
}

async fn seal(site: &Arc<Site>, address: &Address, report: &Report) -> Result<(), Unsealed> {
    let (sealed, address, report) = (site.sealed.clone(), address.clone(), report.clone());
    let done = tokio::task::spawn_blocking(move || sealed.seal(&address, &report)).await;
    match done {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            tracing::error!(%error, "the result cannot be sealed");
            let full = matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            );
            Err(if full {
                Unsealed::Full(Failure::of(Trouble::DiskFull, &error))
            } else {
                Unsealed::Instead(Outcome::Later)
            })
        }
        Err(_) => Err(Unsealed::Instead(Outcome::HandBack)),
    }
}

/// Says a report until the server has it. What is sealed is never lost: a process that stops first
/// hands the task back, and the next one says it.
pub async fn say(site: &Site, report: &Report, stop: &CancellationToken) -> Outcome {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match report.publish(&site.bus).await {
            Ok(said) => {
                tracing::info!(job = %report.head().job, kind = report.kind(), ?said, "reported");
                return Outcome::Done;
            }
            Err(error) => error,
        };
        if error.retry() == Retry::Never {
            tracing::error!(error = explain(&error), "a report cannot be said");
            return Outcome::Done;
        }
        tracing::warn!(error = explain(&error), "report not said yet");
        let stopped = tokio::time::timeout(pause, stop.cancelled()).await.is_ok();
        if stopped && site.token.is_cancelled() {
            return Outcome::HandBack;
        }
        if stopped {
            return Outcome::Done;
        }
        site.status.retried();
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

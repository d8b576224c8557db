//! One task of the fleet under way: who asked for it, its transfers, and patience with storage.

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use artifacts::{Retry, Store, Transfer};
use chassis::clock;
use chassis::telemetry::{self, Metric, SpanName};
use contract::message::report;
use contract::message::task::Head;
use contract::subject::Address;
use domain::cause::Trouble;
use domain::trace::Trace;

use crate::compute::Bench;
use crate::failure::Failure;
use crate::running::Running;
use crate::site::Site;

/// Pauses between attempts at storage: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// One task of the fleet under way; clones are the same task.
#[derive(Debug, Clone)]
pub struct Errand {
    /// The worker.
    pub site: Arc<Site>,
    /// What its computation sees of it; its methods are the errand's.
    pub running: Running,
    /// Which task.
    pub address: Address,
    /// What every task carries.
    pub head: Head,
    /// Object storage, as far as the task's job lets this worker reach it.
    pub store: Store,
    /// Bytes said on the bus before it began.
    pub sent_before: u64,
    /// Its span.
    pub trace: Option<Trace>,
}

// An errand is a running task that somebody asked for.
impl Deref for Errand {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl Errand {
    /// Who reports, on which job, in which epoch.
    #[must_use]
    pub fn report_head(&self) -> report::Head {
        report::Head {
            worker: self.address.worker.clone(),
            job: self.address.job.clone(),
            epoch: self.address.epoch,
        }
    }

    /// A transfer of this task: counted, stopped with it, held to the site's bandwidth.
    #[must_use]
    pub fn transfer(&self) -> Transfer {
        Transfer::new(self.stop.token().clone())
            .with_progress(Arc::clone(&self.progress))
            .with_bandwidth(self.site.config.bandwidth())
    }

    /// Does work on the compute thread.
    ///
    /// # Errors
    /// What the work returns; [`Failure::Stopped`] if the thread is gone, for then the process ends.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Bench, &Running) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let running = self.running.clone();
        let _span = telemetry::within(self.trace, SpanName::Compute, &[]);
        let done = self.site.compute.run(move |bench| {
            running.stop.check()?;
            work(bench, &running)
        });
        done.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the task cannot be computed");
            self.site.token.cancel();
            Err(Failure::Stopped)
        })
    }

    /// Does blocking work beside the async threads.
    ///
    /// # Errors
    /// What the work returns.
    pub async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Site) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let site = Arc::clone(&self.site);
        let done = tokio::task::spawn_blocking(move || work(&site)).await;
        done.unwrap_or_else(|error| Err(Failure::internal(&error)))
    }

    /// Tries something with storage until it succeeds, cannot succeed, or the task expires. While
    /// storage is away nothing counts as progress.
    ///
    /// # Errors
    /// What storage answers, as a trouble of the site; `missing` is what an absent or damaged object
    /// means.
    pub async fn patiently<T, F>(
        &self,
        missing: Trouble,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, artifacts::Error>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            self.stop.check()?;
            let waits = is_away(&error) && clock::now().plus(millis(pause)) < self.head.expires_at;
            if !waits {
                return Err(trouble(&error, missing));
            }
            tracing::warn!(%error, pause_ms = millis(pause), "storage is away, trying again");
            telemetry::count(Metric::StorageRetries, 1, &[]);
            self.site.status.retried();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Carries the computation's progress to the task's counter; never returns.
    pub async fn pump(&self) -> Infallible {
        let idle = Duration::from_millis(self.site.config.liveness.ack_wait_ms());
        let interval = (idle / 16).clamp(Duration::from_millis(10), Duration::from_millis(500));
        let mut seen = 0;
        loop {
            tokio::time::sleep(interval).await;
            let blocks = self.stop.control().progress();
            self.progress.fetch_add(blocks - seen, Ordering::Relaxed);
            seen = blocks;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A full disk is told at once: waiting does not empty it, a person does.
fn is_away(error: &artifacts::Error) -> bool {
    let full = matches!(
        error,
        artifacts::Error::Full { .. } | artifacts::Error::NoRoom { .. }
    );
    error.retry() == Retry::Later && !full
}

/// What an error of storage means to the fleet.
fn trouble(error: &artifacts::Error, missing: Trouble) -> Failure {
    use artifacts::Error;
    let kind = match error {
        Error::Full { .. } | Error::NoRoom { .. } => Trouble::DiskFull,
        Error::NotFound { .. }
        | Error::Corrupt { .. }
        | Error::WrongLength { .. }
        | Error::TooLarge { .. }
        | Error::Manifest { .. }
        | Error::Hub(_) => missing,
        Error::Cancelled => return Failure::Stopped,
        _ => Trouble::StorageUnavailable,
    };
    Failure::of(kind, error)
}

//! Driving jobs: one loop that every control service shares.
//!
//! The loop is level-triggered. Whatever wakes it (a change of the job, a report, a timer), it reads
//! the stored job, takes the lease, says again what the state implies, and asks the service for one
//! step. A lost wake-up costs one sweep, never a job; a crash between two effects is repaired by the
//! next step, because a step looks at what is there and does what is missing.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use contract::message::job::{Event, JobEvent, implied};
use contract::topology::Bucket;
use domain::cause::{Cause, SiteTrouble};
use domain::id::{Epoch, InstanceId, JobId};
use domain::job::{Job, Phase, Role};
use domain::time::UnixMillis;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Bus, Error, Retry, Revision, Store};

/// Which jobs to drive, and how patiently.
#[derive(Debug, Clone)]
pub struct Drive {
    /// The service's role.
    pub role: Role,
    /// This process.
    pub instance: InstanceId,
    /// How long a lease holds without being renewed, in milliseconds.
    pub lease_ms: u64,
    /// How often a job is looked at without being woken, in milliseconds.
    pub sweep_ms: u64,
    /// The clock.
    pub clock: fn() -> UnixMillis,
}

/// What a step says about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Something changed: look again at once.
    Again,
    /// Nothing to do until something wakes the job, or this moment at the latest.
    Wait(Option<UnixMillis>),
}

/// A service's part of a job's life.
pub trait Driver: Send + Sync + 'static {
    /// Why a step did not succeed.
    type Error: std::error::Error + Send;

    /// Looks at the job and does what is missing.
    fn step(&self, job: &mut Owned) -> impl Future<Output = Result<Next, Self::Error>> + Send;

    /// Whether a failed step may be tried again; otherwise the job ends with the cause that
    /// [`Driver::give_up`] stores.
    fn retry(&self, error: &Self::Error) -> Retry;

    /// Ends a job whose step can never succeed.
    fn give_up(
        &self,
        job: &mut Owned,
        error: &Self::Error,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A job whose lease this process holds.
#[derive(Debug)]
pub struct Owned {
    bus: Bus,
    jobs: Store<Job>,
    job: Job,
    revision: Revision,
    drive: Drive,
}

impl Owned {
    /// The job as stored.
    #[must_use]
    pub const fn job(&self) -> &Job {
        &self.job
    }

    /// The connection.
    #[must_use]
    pub const fn bus(&self) -> &Bus {
        &self.bus
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        (self.drive.clock)()
    }

    /// Changes the job and stores it, if this process still holds the lease and nobody wrote since.
    ///
    /// # Errors
    /// `Conflict` if somebody wrote; then the step is repeated on what they wrote.
    pub async fn change(&mut self, change: impl FnOnce(&mut Job)) -> Result<(), Error> {
        let mut job = self.job.clone();
        change(&mut job);
        if let Some(owner) = &mut job.owner {
            owner.expires_at = self.now().plus(self.drive.lease_ms);
        }
        self.revision = self
            .jobs
            .update(job.id.as_str(), &job, self.revision)
            .await?;
        self.job = job;
        Ok(())
    }

    /// Goes to the next phase, with what else changes in the same write. Announce it afterwards.
    ///
    /// # Errors
    /// `Conflict` if somebody wrote, or if the transition is no longer legal.
    pub async fn advance(
        &mut self,
        next: Phase,
        change: impl FnOnce(&mut Job),
    ) -> Result<(), Error> {
        let mut job = self.job.clone();
        change(&mut job);
        if let Err(error) = job.advance(next, self.now()) {
            tracing::error!(job = %job.id, %error, "transition refused");
            return Err(Error::Conflict {
                key: self.job.id.to_string(),
            });
        }
        tracing::info!(job = %job.id, phase = job.phase.name(), epoch = job.epoch.0, "job advanced");
        self.change(|stored| *stored = job).await
    }

    /// Ends the job and says so.
    ///
    /// # Errors
    /// As [`Owned::advance`].
    pub async fn fail(&mut self, cause: Cause) -> Result<(), Error> {
        tracing::warn!(job = %self.job.id, kind = ?cause.kind, message = cause.message, "job failed");
        self.advance(Phase::Failed { cause }, |_| {}).await?;
        self.announce().await
    }

    /// Gives a site up for this job: stored first, then said.
    ///
    /// # Errors
    /// As [`Owned::change`].
    pub async fn lose(&mut self, site: SiteTrouble) -> Result<(), Error> {
        if self.job.lost.iter().all(|lost| lost.worker != site.worker) {
            let lost = site.clone();
            self.change(|job| job.lost.push(lost)).await?;
        }
        self.say(Event::Lost { site }).await
    }

    /// Says an event of the present epoch.
    ///
    /// # Errors
    /// If the server does not confirm it.
    pub async fn say(&self, event: Event) -> Result<(), Error> {
        let event = JobEvent {
            job: self.job.id.clone(),
            epoch: self.job.epoch,
            at: self.now(),
            event,
        };
        self.bus.publish(&event, None).await.map(drop)
    }

    /// Says what the stored state implies; what was said before stays as it is.
    ///
    /// # Errors
    /// If the server does not confirm it.
    pub async fn announce(&self) -> Result<(), Error> {
        for event in implied(&self.job) {
            self.bus.publish(&event, None).await?;
        }
        Ok(())
    }
}

impl Drive {
    /// Drives jobs until the token is cancelled.
    ///
    /// # Errors
    /// If the buckets cannot be opened at the start.
    pub async fn run<D: Driver>(
        &self,
        bus: &Bus,
        driver: Arc<D>,
        token: &CancellationToken,
    ) -> Result<(), Error> {
        let jobs: Store<Job> = bus.store(Bucket::Jobs).await?;
        let mut changes = bus.changes::<Job>(Bucket::Jobs);
        let mut reports = bus.report_feed();
        let mut wakers: HashMap<JobId, Arc<Notify>> = HashMap::new();
        let mut tasks: JoinSet<JobId> = JoinSet::new();
        loop {
            tokio::select! {
                () = token.cancelled() => break,
                Some(change) = changes.recv() => {
                    let Some(job) = change.value.filter(|job| self.concerns(job)) else { continue };
                    if let Some(waker) = wakers.get(&job.id) {
                        waker.notify_one();
                        continue;
                    }
                    let waker = Arc::new(Notify::new());
                    wakers.insert(job.id.clone(), Arc::clone(&waker));
                    let one = One { drive: self.clone(), bus: bus.clone(), jobs: jobs.clone(), waker };
                    tasks.spawn(one.run(job.id, Arc::clone(&driver), token.clone()));
                }
                Some(address) = reports.recv() => {
                    if let Some(waker) = wakers.get(&address.job) {
                        waker.notify_one();
                    }
                }
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Ok(job) = ended {
                        wakers.remove(&job);
                        // It may have come back while its task was ending.
                        if let Ok(Some((stored, _))) = jobs.get(job.as_str()).await
                            && self.concerns(&stored)
                        {
                            let waker = Arc::new(Notify::new());
                            wakers.insert(job.clone(), Arc::clone(&waker));
                            let one = One { drive: self.clone(), bus: bus.clone(), jobs: jobs.clone(), waker };
                            tasks.spawn(one.run(job, Arc::clone(&driver), token.clone()));
                        }
                    }
                }
            }
        }
        tasks.join_all().await;
        Ok(())
    }

    fn concerns(&self, job: &Job) -> bool {
        job.phase.role() == self.role && !(job.phase.is_terminal() && job.settled)
    }
}

/// The driving of one job.
struct One {
    drive: Drive,
    bus: Bus,
    jobs: Store<Job>,
    waker: Arc<Notify>,
}

impl One {
    async fn run<D: Driver>(self, id: JobId, driver: Arc<D>, token: CancellationToken) -> JobId {
        let mut failures = 0_u32;
        let mut announced = None;
        loop {
            let mut woken_by_time = false;
            let wait = match self.once(&id, driver.as_ref(), &mut announced).await {
                Ok(None) => return id,
                Ok(Some(Next::Again)) => {
                    failures = 0;
                    continue;
                }
                Ok(Some(Next::Wait(until))) => {
                    failures = 0;
                    let due =
                        until.map_or(self.drive.sweep_ms, |at| at.since((self.drive.clock)()));
                    Duration::from_millis(due.clamp(1, self.drive.sweep_ms))
                }
                Err(Retry::Reread) => Duration::from_millis(1),
                Err(_) => {
                    failures = failures.saturating_add(1);
                    let slow = 100_u64 << failures.min(5);
                    Duration::from_millis(slow.min(self.drive.sweep_ms.max(500)))
                }
            };
            tokio::select! {
                () = token.cancelled() => return id,
                () = self.waker.notified() => {}
                () = tokio::time::sleep(wait) => woken_by_time = true,
            }
            if woken_by_time {
                // What was said may have been lost on the way; say it again.
                announced = None;
            }
        }
    }

    async fn once<D: Driver>(
        &self,
        id: &JobId,
        driver: &D,
        announced: &mut Option<Epoch>,
    ) -> Result<Option<Next>, Retry> {
        let log = |error: &Error| tracing::warn!(job = %id, %error, cause = error_chain(error), "step interrupted");
        let mut owned = match self.claim(id).await {
            Ok(Claim::Owned(owned)) => owned,
            Ok(Claim::Held(until)) => return Ok(Some(Next::Wait(Some(until)))),
            Ok(Claim::NotOurs) => return Ok(None),
            Err(error) => {
                log(&error);
                return Err(error.retry());
            }
        };
        if *announced != Some(owned.job.epoch) {
            owned.announce().await.map_err(|error| {
                log(&error);
                error.retry()
            })?;
            *announced = Some(owned.job.epoch);
        }
        let error = match driver.step(&mut owned).await {
            Ok(next) => return Ok(Some(next)),
            Err(error) => error,
        };
        let retry = driver.retry(&error);
        match retry {
            Retry::Reread => {
                tracing::debug!(job = %id, cause = error_chain(&error), "step overtaken")
            }
            Retry::Later => {
                tracing::warn!(job = %id, cause = error_chain(&error), "step postponed")
            }
            Retry::Never => {
                tracing::error!(job = %id, cause = error_chain(&error), "step impossible");
                driver
                    .give_up(&mut owned, &error)
                    .await
                    .map_err(|error| error.retry())?;
                return Ok(Some(Next::Again));
            }
        }
        Err(retry)
    }

    async fn claim(&self, id: &JobId) -> Result<Claim, Error> {
        let Some((mut job, mut revision)) = self.jobs.get(id.as_str()).await? else {
            return Ok(Claim::NotOurs);
        };
        if !self.drive.concerns(&job) {
            return Ok(Claim::NotOurs);
        }
        let now = (self.drive.clock)();
        let fresh = |job: &Job| {
            let owner = job
                .owner
                .as_ref()
                .filter(|owner| owner.holder == self.drive.instance);
            owner.is_some_and(|owner| owner.expires_at.since(now) > self.drive.lease_ms / 2)
        };
        if !fresh(&job) {
            let held_until = job.owner.as_ref().map(|owner| owner.expires_at);
            if job
                .claim(&self.drive.instance, now, now.plus(self.drive.lease_ms))
                .is_none()
            {
                return Ok(Claim::Held(held_until.unwrap_or(now)));
            }
            revision = self.jobs.update(id.as_str(), &job, revision).await?;
        }
        let owned = Owned {
            bus: self.bus.clone(),
            jobs: self.jobs.clone(),
            job,
            revision,
            drive: self.drive.clone(),
        };
        Ok(Claim::Owned(Box::new(owned)))
    }
}

enum Claim {
    Owned(Box<Owned>),
    Held(UnixMillis),
    NotOurs,
}

/// An error and its sources in one line, for the log at the edge.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

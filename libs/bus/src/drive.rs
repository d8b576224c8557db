//! Driving jobs: one loop that every control service shares.
//!
//! The loop is level-triggered. Whatever wakes it (a change of the job, a report, a timer), it reads
//! the stored job, takes the lease, says again what the state implies, and asks the service for one
//! step. A lost wake-up costs one sweep, never a job; a crash between two effects is repaired by the
//! next step, because a step looks at what is there and does what is missing.

mod driven;
mod one;
mod pace;

use std::future::Future;
use std::sync::Arc;

use contract::message::dead::DeadLetter;
use contract::message::job::{Event, JobEvent, implied};
use contract::topology::Bucket;
use domain::cause::{Cause, SiteTrouble, Trouble};
use domain::id::{InstanceId, JobId, WorkerName};
use domain::job::{Held, Job, Phase, Role};
use domain::time::UnixMillis;
use tokio_util::sync::CancellationToken;

use self::driven::Driven;
use crate::{Bus, Error, Retry, Revision, Store, Unreadable};

/// Longest reason that is stored, in characters.
const HELD_LIMIT: usize = 600;

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
    /// Told of each transition that was stored: the job before it, after it, and when. For traces; it must not
    /// wait.
    pub moved: fn(&Job, &Job, UnixMillis),
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

    /// Lets go of what this process keeps of a job: it is not this role's any more, whichever process took it there. No
    /// step of it is under way, and none begins before this has returned. Not called when the process ends.
    fn left(&self, _job: &JobId) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// A job whose lease this process holds.
#[derive(Debug)]
pub struct Owned {
    bus: Bus,
    jobs: Store<Job>,
    job: Job,
    revision: Revision,
    /// What is stored as keeping us from going on; in `job` it is over already, so that the next write
    /// ends it.
    held: Option<Held>,
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

    /// What has kept the job's owner from going on until this step, if anything has.
    #[must_use]
    pub const fn held(&self) -> Option<&Held> {
        self.held.as_ref()
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
        self.held = None;
        Ok(())
    }

    /// Stores what keeps this process from going on, for whoever asks; once until it can.
    async fn hold(&mut self, why: &str) -> Result<(), Error> {
        if self.held.is_some() || self.job.phase.is_terminal() {
            return Ok(());
        }
        let (why, now) = (why.chars().take(HELD_LIMIT).collect(), self.now());
        self.change(|job| job.hold(why, now)).await
    }

    /// Stores that this process goes on, unless a write of the step has done so.
    async fn release(&mut self) -> Result<(), Error> {
        if self.held.is_some() {
            self.change(|_| {}).await?;
        }
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
        let before = self.job.clone();
        self.change(|stored| *stored = job).await?;
        (self.drive.moved)(&before, &self.job, self.now());
        Ok(())
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
        let mut job = self.job.clone();
        job.lose(site.clone());
        if job != self.job {
            self.change(|stored| *stored = job).await?;
        }
        self.say(Event::Lost { site }).await
    }

    /// Lays a site's report that cannot be read down for whoever looks for the defect. Returns what its site is lost with:
    /// this trouble, in the words of why it cannot be read.
    ///
    /// # Errors
    /// If the server does not confirm it.
    pub async fn bury(
        &self,
        worker: &WorkerName,
        trouble: Trouble,
        report: &Unreadable,
    ) -> Result<SiteTrouble, Error> {
        let why = error_chain(&report.error);
        let site = SiteTrouble::new(worker.clone(), trouble, &why);
        tracing::warn!(job = %self.job.id, %worker, kind = report.kind, cause = site.detail, "report set aside");
        let letter = DeadLetter {
            service: service(self.drive.role).to_owned(),
            original: report.subject.clone(),
            kind: Some(report.kind.to_owned()),
            bytes: report.bytes,
            why: site.detail.clone(),
            at: self.now(),
        };
        self.bus.publish(&letter, None).await?;
        Ok(site)
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
        let mut driven = Driven::new(self, bus, jobs, driver, token);
        while !token.is_cancelled() {
            tokio::select! {
                () = token.cancelled() => {}
                Some(change) = changes.recv() => driven.hear(change),
                Some(address) = reports.recv() => driven.wake(&address.job),
                Some(ended) = driven.next_ended(), if !driven.is_empty() => driven.collect(ended),
            }
        }
        driven.finish().await;
        Ok(())
    }

    fn concerns(&self, job: &Job) -> bool {
        job.phase.role() == self.role && !(job.phase.is_terminal() && job.settled)
    }
}

/// What the service of a role is called.
const fn service(role: Role) -> &'static str {
    match role {
        Role::Profiler => "profiler",
        Role::Planner => "planner",
        Role::Aggregator => "aggregator",
    }
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

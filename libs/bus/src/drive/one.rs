//! The driving of one job, from the first look until it is another role's.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use domain::cause::{Cause, CauseKind};
use domain::id::{Epoch, JobId};
use domain::job::Job;
use domain::time::UnixMillis;
use domain::trace::Trace;
use futures::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::pace::{Looked, Pace};
use super::{Drive, Driver, Next, Owned, error_chain};
use crate::{Bus, Error, Retry, Store};

/// Panics in a row after which a job ends: one may have had a passing reason, three are a defect.
const PANIC_LIMIT: u32 = 3;
/// Postponed steps in a row after which the reason is stored: a hiccup is nobody's concern.
const POSTPONED_LIMIT: u32 = 2;

/// One job and what its driving needs.
pub(super) struct One {
    pub(super) drive: Drive,
    pub(super) bus: Bus,
    pub(super) jobs: Store<Job>,
    pub(super) id: JobId,
    pub(super) waker: Arc<Notify>,
}

/// What went wrong in a row before this look.
#[derive(Debug, Clone, Copy)]
struct Failures {
    panics: u32,
    postponed: u32,
}

/// What a claim came to.
enum Claim {
    Owned(Box<Owned>),
    Held(UnixMillis),
    NotOurs,
}

impl One {
    /// Drives the job until it is not this role's any more, or the token is cancelled.
    pub(super) async fn run<D: Driver>(self, driver: Arc<D>, token: CancellationToken) {
        let mut pace = Pace::default();
        let mut announced = None;
        let (mut panics, mut postponed) = (0, 0);
        while !token.is_cancelled() {
            let failures = Failures { panics, postponed };
            let look = AssertUnwindSafe(self.look(driver.as_ref(), &mut announced, failures));
            let looked = match look.catch_unwind().await {
                Ok(None) => return driver.left(&self.id).await,
                Ok(Some(looked)) => {
                    panics = 0;
                    postponed = match looked {
                        Looked::Failed(Retry::Later) => postponed + 1,
                        Looked::Failed(_) => postponed,
                        Looked::Next(_) => 0,
                    };
                    looked
                }
                Err(_) => {
                    panics += 1;
                    tracing::error!(job = %self.id, panics, "a step panicked");
                    Looked::Failed(Retry::Later)
                }
            };
            let rest = pace.rest(looked, (self.drive.clock)(), self.drive.sweep_ms);
            if rest.is_zero() {
                continue;
            }
            tokio::select! {
                () = token.cancelled() => {}
                () = self.waker.notified() => {}
                () = tokio::time::sleep(rest) => {
                    if matches!(looked, Looked::Next(_)) && rest >= Duration::from_millis(self.drive.sweep_ms) {
                        // What was said may have been lost on the way; say it again, but not each time a step looks
                        // whether its turn has come.
                        announced = None;
                    }
                }
            }
        }
        self.release().await;
    }

    /// Reads, claims, announces, steps; `None` if the job is not this role's.
    async fn look<D: Driver>(
        &self,
        driver: &D,
        announced: &mut Option<Epoch>,
        failures: Failures,
    ) -> Option<Looked> {
        match self.step(driver, announced, failures).await {
            Ok(next) => next.map(Looked::Next),
            Err(retry) => Some(Looked::Failed(retry)),
        }
    }

    async fn step<D: Driver>(
        &self,
        driver: &D,
        announced: &mut Option<Epoch>,
        failures: Failures,
    ) -> Result<Option<Next>, Retry> {
        let interrupted = |error: Error| {
            tracing::warn!(job = %self.id, cause = error_chain(&error), "step interrupted");
            error.retry()
        };
        let mut owned = match self.claim().await.map_err(interrupted)? {
            Claim::Owned(owned) => owned,
            Claim::Held(until) => return Ok(Some(Next::Wait(Some(until)))),
            Claim::NotOurs => return Ok(None),
        };
        if failures.panics >= PANIC_LIMIT && !owned.job().phase.is_terminal() {
            owned.fail(defect()).await.map_err(interrupted)?;
            return Ok(Some(Next::Again));
        }
        if *announced != Some(owned.job().epoch) {
            owned.announce().await.map_err(interrupted)?;
            *announced = Some(owned.job().epoch);
        }
        let trace = Trace::of_phase(owned.job());
        let span = tracing::info_span!("step", job = %self.id, trace_id = %trace.trace_hex(), span_id = %trace.span_hex());
        let error = match driver.step(&mut owned).instrument(span).await {
            Ok(next) => {
                owned.release().await.map_err(interrupted)?;
                return Ok(Some(next));
            }
            Err(error) => error,
        };
        let (job, cause) = (&self.id, error_chain(&error));
        let retry = driver.retry(&error);
        match retry {
            Retry::Reread => tracing::debug!(%job, cause, "step overtaken"),
            Retry::Later => {
                tracing::warn!(%job, cause, "step postponed");
                if failures.postponed + 1 >= POSTPONED_LIMIT
                    && let Err(error) = owned.hold(&cause).await
                {
                    tracing::debug!(%job, %error, "what keeps the job is not stored");
                }
            }
            Retry::Never => {
                tracing::error!(%job, cause, "step impossible");
                let given_up = driver.give_up(&mut owned, &error).await;
                given_up.map_err(interrupted)?;
                return Ok(Some(Next::Again));
            }
        }
        Err(retry)
    }

    async fn claim(&self) -> Result<Claim, Error> {
        // A job whose record cannot be read any more is not for this release to drive; as an error of this look it would be
        // tried, and told, for ever.
        let Some((mut job, mut revision)) = self.jobs.readable(self.id.as_str()).await? else {
            return Ok(Claim::NotOurs);
        };
        if !self.drive.concerns(&job) {
            return Ok(Claim::NotOurs);
        }
        let now = (self.drive.clock)();
        let owner = job.owner.as_ref();
        let held_until = owner.map_or(now, |owner| owner.expires_at);
        let fresh = self.holds(&job) && held_until.since(now) > self.drive.lease_ms / 2;
        if !fresh {
            let expires_at = now.plus(self.drive.lease_ms);
            if job.claim(&self.drive.instance, now, expires_at).is_none() {
                return Ok(Claim::Held(held_until));
            }
            revision = self.jobs.update(self.id.as_str(), &job, revision).await?;
        }
        let held = job.held.clone();
        job.release(now);
        Ok(Claim::Owned(Box::new(Owned {
            bus: self.bus.clone(),
            jobs: self.jobs.clone(),
            job,
            revision,
            held,
            drive: self.drive.clone(),
        })))
    }

    /// Lets the lease end now, so that another process takes over at once. If this fails the lease
    /// runs out by itself.
    async fn release(&self) {
        let Ok(Some((mut job, revision))) = self.jobs.get(self.id.as_str()).await else {
            return;
        };
        if !self.holds(&job) {
            return;
        }
        if let Some(owner) = &mut job.owner {
            owner.expires_at = (self.drive.clock)();
        }
        if let Err(error) = self.jobs.update(self.id.as_str(), &job, revision).await {
            tracing::debug!(job = %self.id, %error, "lease not given back");
        }
    }

    fn holds(&self, job: &Job) -> bool {
        let owner = job.owner.as_ref();
        owner.is_some_and(|owner| owner.holder == self.drive.instance)
    }
}

fn defect() -> Cause {
    Cause {
        kind: CauseKind::Internal,
        message: format!(
            "the job's next step panicked {PANIC_LIMIT} times; the log of the service that drives it says where"
        ),
        sites: Vec::new(),
    }
}

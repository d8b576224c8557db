//! The jobs that one process drives at present: one task each, woken by name.

use std::collections::HashMap;
use std::sync::Arc;

use domain::id::JobId;
use domain::job::Job;
use futures::FutureExt;
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::one::One;
use super::{Drive, Driver};
use crate::feed::Change;
use crate::{Bus, Store};

/// Every job under way and its waker.
///
/// Invariant: a job in `wakers` has exactly one task, and only this struct notifies its waker. So a
/// wake-up that the task did not live to hear is still in the waker when the task is collected.
pub(super) struct Driven<D> {
    drive: Drive,
    bus: Bus,
    jobs: Store<Job>,
    driver: Arc<D>,
    token: CancellationToken,
    wakers: HashMap<JobId, Arc<Notify>>,
    tasks: JoinSet<()>,
    ids: HashMap<Id, JobId>,
}

impl<D: Driver> Driven<D> {
    pub(super) fn new(
        drive: &Drive,
        bus: &Bus,
        jobs: Store<Job>,
        driver: Arc<D>,
        token: &CancellationToken,
    ) -> Self {
        Self {
            drive: drive.clone(),
            bus: bus.clone(),
            jobs,
            driver,
            token: token.clone(),
            wakers: HashMap::new(),
            tasks: JoinSet::new(),
            ids: HashMap::new(),
        }
    }

    /// A job was written or removed.
    pub(super) fn hear(&mut self, change: Change<Job>) {
        match change.value.filter(|job| self.drive.concerns(job)) {
            Some(job) if !self.wakers.contains_key(&job.id) => {
                self.begin(job.id, Arc::new(Notify::new()));
            }
            // Also a job that went elsewhere: its task looks and ends.
            _ => {
                if let Ok(job) = change.key.parse() {
                    self.wake(&job);
                }
            }
        }
    }

    /// Something happened that may concern the job.
    pub(super) fn wake(&self, job: &JobId) {
        if let Some(waker) = self.wakers.get(job) {
            waker.notify_one();
        }
    }

    /// Whether there is nothing to wait for in [`Driven::next_ended`].
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits for a task to end; `None` if there is none.
    pub(super) async fn next_ended(&mut self) -> Option<Result<(Id, ()), JoinError>> {
        self.tasks.join_next_with_id().await
    }

    /// Collects a task: forgets its job, unless it was woken while it ended.
    pub(super) fn collect(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (task, broken) = match ended {
            Ok((task, ())) => (task, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let Some(job) = self.ids.remove(&task) else {
            return;
        };
        let Some(waker) = self.wakers.remove(&job) else {
            return;
        };
        let woken = waker.notified().now_or_never().is_some();
        if woken || broken {
            self.begin(job, waker);
        }
    }

    /// Waits until every task has ended; the token is cancelled by now.
    pub(super) async fn finish(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    fn begin(&mut self, id: JobId, waker: Arc<Notify>) {
        self.wakers.insert(id.clone(), Arc::clone(&waker));
        let one = One {
            drive: self.drive.clone(),
            bus: self.bus.clone(),
            jobs: self.jobs.clone(),
            id: id.clone(),
            waker,
        };
        let task = one.run(Arc::clone(&self.driver), self.token.clone());
        self.ids.insert(self.tasks.spawn(task).id(), id);
    }
}

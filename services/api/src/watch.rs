//! The fleet and the jobs as last heard, in memory: for lists, for liveness and for live progress.
//!
//! It is fed by the buckets' changes and by beats, and may be a moment old; whatever decides
//! something reads the key-value store instead.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use domain::fleet::{Beat, Liveness, Registration, liveness};
use domain::id::{JobId, WorkerName};
use domain::job::Job;
use domain::time::UnixMillis;
use tokio::sync::broadcast;

/// Beats that wait for a slow event stream before it loses some; progress is not history.
const BEATS: usize = 1024;

/// A worker's last sign of life.
#[derive(Debug, Clone)]
pub struct Heard {
    /// By this process's clock: workers' clocks may be wrong.
    pub at: UnixMillis,
    /// Since when its counter or its stage stands still, by this process's clock.
    pub moved_at: UnixMillis,
    /// What it said.
    pub beat: Beat,
}

/// Everything known at one moment.
#[derive(Debug, Default)]
pub struct Known {
    /// Jobs by id.
    pub jobs: BTreeMap<JobId, Job>,
    /// Registered workers.
    pub workers: BTreeMap<WorkerName, Registration>,
    /// When this process learned of each of them: it heard none of their beats of before.
    registered_at: BTreeMap<WorkerName, UnixMillis>,
    /// Last beats.
    pub beats: BTreeMap<WorkerName, Heard>,
    /// Since when this process listens.
    pub since: UnixMillis,
}

impl Known {
    /// When a worker was last heard. This process's start counts as a beat of everybody, and its registration as one of a
    /// worker, so that nobody is called unreachable before it had time to speak and to be heard.
    pub fn last_heard(&self, worker: &WorkerName) -> UnixMillis {
        let registered_at = self.registered_at.get(worker).copied();
        let beat = self.beats.get(worker).map(|heard| heard.at);
        registered_at.max(beat).unwrap_or_default().max(self.since)
    }

    /// How alive a worker is.
    pub fn liveness(&self, worker: &WorkerName, now: UnixMillis) -> Liveness {
        let beat_ms = self
            .workers
            .get(worker)
            .map_or(DEFAULT_BEAT_MS, |known| known.beat_ms);
        liveness(Some(self.last_heard(worker)), beat_ms.max(1), now)
    }

    /// The job that holds a worker, if any.
    pub fn holder(&self, worker: &WorkerName) -> Option<&Job> {
        self.jobs.values().find(|job| job.holds(worker))
    }
}

/// Of a worker that never registered.
const DEFAULT_BEAT_MS: u64 = 3000;

/// What is known, shared by all requests.
#[derive(Debug)]
pub struct Watch {
    known: RwLock<Known>,
    beats: broadcast::Sender<Heard>,
}

impl Watch {
    /// Nothing known yet.
    pub fn new(now: UnixMillis) -> Self {
        let known = Known {
            since: now,
            ..Known::default()
        };
        Self {
            known: RwLock::new(known),
            beats: broadcast::channel(BEATS).0,
        }
    }

    /// What is known; hold it shortly and never across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        // Invariant: each change is one insertion or removal; none is left half done.
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job as stored. An older epoch than the known one is an echo of the past.
    pub fn job(&self, job: Job) {
        let mut known = self.write();
        let newer = known
            .jobs
            .get(&job.id)
            .is_none_or(|old| old.epoch <= job.epoch);
        if newer {
            known.jobs.insert(job.id.clone(), job);
        }
    }

    /// A job was deleted, or its record can no longer be read.
    pub fn job_gone(&self, id: &JobId) {
        self.write().jobs.remove(id);
    }

    /// A worker as registered.
    pub fn worker(&self, registration: Registration, now: UnixMillis) {
        let name = registration.worker.clone();
        let mut known = self.write();
        known.registered_at.entry(name.clone()).or_insert(now);
        known.workers.insert(name, registration);
    }

    /// A registration was removed.
    pub fn worker_gone(&self, worker: &WorkerName) {
        let mut known = self.write();
        known.workers.remove(worker);
        known.registered_at.remove(worker);
        known.beats.remove(worker);
    }

    /// A sign of life. One of a worker that is not registered is nobody's.
    pub fn beat(&self, beat: Beat, now: UnixMillis) {
        let mut known = self.write();
        if !known.workers.contains_key(&beat.worker) {
            return;
        }
        let before = known.beats.get(&beat.worker);
        let still =
            before.filter(|old| old.beat.counter == beat.counter && old.beat.stage == beat.stage);
        let heard = Heard {
            at: now,
            moved_at: still.map_or(now, |old| old.moved_at),
            beat,
        };
        known.beats.insert(heard.beat.worker.clone(), heard.clone());
        drop(known);
        // Nobody listening is the usual case.
        let _ = self.beats.send(heard);
    }

    /// Beats from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Heard> {
        self.beats.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::fixture::{beat, job, registration};

    #[test]
    fn a_site_is_unreachable_after_three_missed_beats_and_not_before_this_process_listened_as_long()
    {
        let watch = Watch::new(UnixMillis(1000));
        watch.worker(registration("a", "mail"), UnixMillis(1000));
        let name: WorkerName = "a".parse().expect("legal");
        let at = |ms| watch.read().liveness(&name, UnixMillis(ms));
        assert_eq!(at(10_000), Liveness::Alive);
        assert_eq!(at(10_001), Liveness::Unreachable);
        watch.beat(beat("a"), UnixMillis(20_000));
        assert_eq!(at(29_000), Liveness::Alive);
        assert_eq!(at(29_001), Liveness::Unreachable);
    }

    #[test]
    fn a_site_that_registers_long_after_this_process_began_has_as_long_to_be_heard() {
        let watch = Watch::new(UnixMillis(0));
        let name: WorkerName = "a".parse().expect("legal");
        // It beats before it registers.
        watch.beat(beat("a"), UnixMillis(99_000));
        watch.worker(registration("a", "mail"), UnixMillis(100_000));
        let at = |ms| watch.read().liveness(&name, UnixMillis(ms));
        assert_eq!(at(109_000), Liveness::Alive);
        assert_eq!(at(109_001), Liveness::Unreachable);
        // It may say anew what it has, and that is no sign of life.
        watch.worker(registration("a", "mail"), UnixMillis(109_000));
        assert_eq!(at(109_001), Liveness::Unreachable);
        watch.worker_gone(&name);
        watch.worker(registration("a", "mail"), UnixMillis(200_000));
        assert_eq!(at(209_000), Liveness::Alive);
    }

    #[test]
    fn a_worker_that_is_not_registered_is_not_heard() {
        let watch = Watch::new(UnixMillis(0));
        watch.worker(registration("a", "mail"), UnixMillis(0));
        let mut heard = watch.subscribe();
        watch.beat(beat("b"), UnixMillis(1));
        assert!(watch.read().beats.is_empty());
        assert!(heard.try_recv().is_err());
        watch.beat(beat("a"), UnixMillis(1));
        let gone: WorkerName = "a".parse().expect("legal");
        assert!(heard.try_recv().is_ok() && watch.read().beats.contains_key(&gone));
        watch.worker_gone(&gone);
        watch.beat(beat("a"), UnixMillis(2));
        assert!(watch.read().beats.is_empty());
    }

    #[test]
    fn an_echo_of_the_past_does_not_undo_what_is_known() {
        let watch = Watch::new(UnixMillis(0));
        let old = job(1, &["a"]);
        let mut new = old.clone();
        new.epoch = new.epoch.next();
        watch.job(new.clone());
        watch.job(old);
        assert_eq!(watch.read().jobs[&new.id].epoch, new.epoch);
    }
}

//! What the worker is doing, as its beats say it. Written from any thread, read by the beats.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::fleet::{Beat, Progress, Stage};
use domain::id::WorkerName;
use domain::time::UnixMillis;
use tokio::sync::Notify;

/// The worker's state for its beats.
#[derive(Debug)]
pub struct Status {
    inner: Mutex<Inner>,
    changed: Notify,
    /// Attempts that were made again since the process started.
    retries: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    stage: Stage,
    progress: Option<Progress>,
    /// Progress of finished tasks.
    finished: u64,
    /// Progress of the task under way.
    moving: Arc<AtomicU64>,
}

impl Default for Status {
    fn default() -> Self {
        let inner = Inner {
            stage: Stage::Idle,
            progress: None,
            finished: 0,
            moving: Arc::default(),
        };
        Self {
            inner: Mutex::new(inner),
            changed: Notify::new(),
            retries: AtomicU64::new(0),
        }
    }
}

impl Status {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task begins; `moving` is its counter.
    pub fn begin(&self, progress: Progress, moving: Arc<AtomicU64>) {
        let mut inner = self.lock();
        inner.finished += inner.moving.load(Ordering::Relaxed);
        inner.moving = moving;
        inner.progress = Some(progress);
    }

    /// The task is over.
    pub fn end(&self) {
        let mut inner = self.lock();
        inner.progress = None;
        // A process that is stopping stays so.
        if inner.stage != Stage::Stopping {
            inner.stage = Stage::Idle;
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Another stage; its units are counted anew. Said at once.
    pub fn stage(&self, stage: Stage, total: u64) {
        let mut inner = self.lock();
        inner.stage = stage;
        if let Some(progress) = &mut inner.progress {
            progress.done = 0;
            progress.total = total;
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Changes the figures of the task under way; said with the next beat.
    pub fn update(&self, change: impl FnOnce(&mut Progress)) {
        if let Some(progress) = &mut self.lock().progress {
            change(progress);
        }
    }

    /// Something that failed is tried again; said with the next beat.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for a new stage.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The present state as a beat.
    #[must_use]
    pub fn beat(&self, worker: &WorkerName, at: UnixMillis) -> Beat {
        let inner = self.lock();
        Beat {
            worker: worker.clone(),
            at,
            stage: inner.stage,
            counter: inner.finished + inner.moving.load(Ordering::Relaxed),
            progress: inner.progress.clone(),
            memory_bytes: chassis::memory::current_bytes(),
            retries: self.retries.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::id::{Epoch, JobId};

    use super::*;

    #[test]
    fn the_counter_only_rises_over_tasks_and_the_stage_goes_back_to_idle() {
        let (status, worker) = (Status::default(), "w".parse().unwrap());
        let mut seen = 0;
        for _ in 0..2 {
            let moving = Arc::new(AtomicU64::new(0));
            let progress = Progress {
                job: JobId::from_bits(1),
                epoch: Epoch(1),
                round: 1,
                done: 0,
                total: 0,
                loss: None,
                tokens_per_second: None,
            };
            status.begin(progress, Arc::clone(&moving));
            status.stage(Stage::Training, 8);
            moving.fetch_add(5, Ordering::Relaxed);
            let beat = status.beat(&worker, UnixMillis(1));
            assert_eq!((beat.stage, beat.counter), (Stage::Training, seen + 5));
            assert_eq!(beat.progress.map(|p| p.total), Some(8));
            seen = beat.counter;
            status.end();
            let beat = status.beat(&worker, UnixMillis(1));
            assert_eq!(
                (beat.stage, beat.counter, beat.progress),
                (Stage::Idle, seen, None)
            );
        }
    }

    #[test]
    fn what_was_tried_again_is_told_with_every_beat_from_then_on() {
        let (status, worker) = (Status::default(), "w".parse().unwrap());
        let retries = || status.beat(&worker, UnixMillis(1)).retries;
        assert_eq!(retries(), 0);
        status.retried();
        status.retried();
        assert_eq!([retries(), retries()], [2, 2]);
    }
}

//! Which tasks no longer count: per job the epoch below which everything was cancelled; and the one under way, which an
//! order that cancels it stops, whichever of the two comes first.
//!
//! Kept in memory only: a task that was cancelled is also purged from the queue, so after a restart
//! it does not come again; were it to, its report would be ignored.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::id::{Epoch, JobId};

use crate::stop::Stop;

/// Most jobs remembered; beyond it all are forgotten, which costs at most wasted work.
const JOBS: usize = 4096;

/// The floors of all jobs, and the task under way.
#[derive(Debug, Default)]
pub struct Floors(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    below: HashMap<JobId, Epoch>,
    underway: Option<(JobId, Epoch, Stop)>,
}

impl Known {
    fn covers(&self, job: &JobId, epoch: Epoch) -> bool {
        self.below.get(job).is_some_and(|floor| epoch < *floor)
    }

    /// Stops the task under way if it was cancelled.
    fn stop(&self) -> bool {
        let cancelled = self.underway.as_ref();
        let cancelled = cancelled.filter(|(job, epoch, _)| self.covers(job, *epoch));
        cancelled.inspect(|(.., stop)| stop.stop()).is_some()
    }
}

impl Floors {
    /// Nothing of the job below this epoch counts any more. Says whether that stopped the task under way.
    pub fn raise(&self, job: &JobId, below: Epoch) -> bool {
        let mut known = self.lock();
        if known.below.len() >= JOBS {
            known.below.clear();
        }
        let floor = known.below.entry(job.clone()).or_insert(below);
        *floor = below.max(*floor);
        known.stop()
    }

    /// Whether a task of this epoch was cancelled.
    #[must_use]
    pub fn cover(&self, job: &JobId, epoch: Epoch) -> bool {
        self.lock().covers(job, epoch)
    }

    /// Notes the task under way; one that was cancelled meanwhile is stopped at once.
    pub fn begin(&self, job: &JobId, epoch: Epoch, stop: &Stop) {
        let mut known = self.lock();
        known.underway = Some((job.clone(), epoch, stop.clone()));
        known.stop();
    }

    /// No task is under way.
    pub fn end(&self) {
        self.lock().underway = None;
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn a_floor_only_rises_and_covers_what_is_below() {
        let (floors, job) = (Floors::default(), JobId::from_bits(1));
        assert!(!floors.cover(&job, Epoch(0)));
        floors.raise(&job, Epoch(5));
        floors.raise(&job, Epoch(3));
        assert!(floors.cover(&job, Epoch(4)));
        assert!(!floors.cover(&job, Epoch(5)));
        assert!(!floors.cover(&JobId::from_bits(2), Epoch(0)));
    }

    #[test]
    fn a_task_that_is_cancelled_is_stopped_whether_the_order_comes_before_or_after_it_began() {
        let (floors, job) = (Floors::default(), JobId::from_bits(1));
        let stop = || Stop::below(&CancellationToken::new());
        let early = stop();
        assert!(!floors.raise(&job, Epoch(5)), "nothing is under way");
        floors.begin(&job, Epoch(4), &early);
        assert!(early.check().is_err());
        floors.end();
        let late = stop();
        floors.begin(&job, Epoch(5), &late);
        assert!(!floors.raise(&JobId::from_bits(2), Epoch(9)));
        assert!(!floors.raise(&job, Epoch(5)));
        assert!(late.check().is_ok(), "nothing cancelled it");
        assert!(floors.raise(&job, Epoch(6)));
        assert!(late.check().is_err());
        floors.end();
        assert!(!floors.raise(&job, Epoch(7)), "nothing is under way");
    }
}

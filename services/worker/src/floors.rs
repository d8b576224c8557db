//! Which tasks no longer count: per job the epoch below which everything was cancelled.
//!
//! Kept in memory only: a task that was cancelled is also purged from the queue, so after a restart
//! it does not come again; were it to, its report would be ignored.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use domain::id::{Epoch, JobId};

/// Most jobs remembered; beyond it all are forgotten, which costs at most wasted work.
const JOBS: usize = 4096;

/// The floors of all jobs.
#[derive(Debug, Default)]
pub struct Floors(Mutex<HashMap<JobId, Epoch>>);

impl Floors {
    /// Nothing of the job below this epoch counts any more.
    pub fn raise(&self, job: &JobId, below: Epoch) {
        let mut floors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if floors.len() >= JOBS {
            floors.clear();
        }
        let floor = floors.entry(job.clone()).or_insert(below);
        *floor = below.max(*floor);
    }

    /// Whether a task of this epoch was cancelled.
    #[must_use]
    pub fn cover(&self, job: &JobId, epoch: Epoch) -> bool {
        let floors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        floors.get(job).is_some_and(|floor| epoch < *floor)
    }
}

#[cfg(test)]
mod tests {
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
}

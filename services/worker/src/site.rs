//! What every task of this worker shares.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use artifacts::ModelCache;
use bus::Bus;
use contract::subject::Address;
use domain::id::{Epoch, JobId, WorkerName};
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::compute::{Compute, Pace};
use crate::data::Data;
use crate::floors::Floors;
use crate::journal::Journal;
use crate::sealed::Sealed;
use crate::status::Status;
use crate::stop::Stop;
use crate::storage::Storage;

/// What every task of this worker shares.
#[derive(Debug)]
pub struct Site {
    /// The worker's name.
    pub name: WorkerName,
    /// The configuration, checked.
    pub config: Config,
    /// Bytes the process may use.
    pub memory_limit_bytes: u64,
    /// Compute threads.
    pub threads: u16,
    /// The bus.
    pub bus: Bus,
    /// Object storage.
    pub storage: Storage,
    /// Models fetched by digest.
    pub cache: ModelCache,
    /// The compute thread.
    pub compute: Compute,
    /// What the beats say.
    pub status: Status,
    /// Decided results.
    pub sealed: Sealed,
    /// What the next process must know.
    pub journal: Journal,
    /// The site's data sets.
    pub data: Data,
    /// How many times as fast as training a forward pass is, by the last probe of this process.
    pub forward_speedup: Mutex<Option<f64>>,
    /// Cancelled epochs.
    pub floors: Floors,
    /// Stops the process.
    pub token: CancellationToken,
    /// The task under way, and how to stop it.
    pub current: Mutex<Option<(Address, Stop)>>,
}

impl Site {
    /// The cap on speed, if this site plays a slower machine.
    #[must_use]
    pub fn pace(&self) -> Pace {
        Pace::new(self.config.throttle_tokens_per_second)
    }

    /// The cap on speed of forward passes alone.
    #[must_use]
    pub fn forward_pace(&self) -> Pace {
        let measured = *self
            .forward_speedup
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.pace().forward(measured)
    }

    /// Notes how many times as fast as training a forward pass is on this machine.
    pub fn set_forward_speedup(&self, speedup: f64) {
        *self
            .forward_speedup
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(speedup);
    }

    /// Where files of the task under way lie.
    #[must_use]
    pub fn work_dir(&self) -> PathBuf {
        self.config.state_dir.join("work")
    }

    /// Stops the task under way if it belongs to the job and an epoch below this one.
    pub fn stop_below(&self, job: &JobId, below: Epoch) -> bool {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some((task, stop)) if task.job == *job && task.epoch < below => {
                stop.stop();
                true
            }
            _ => false,
        }
    }

    /// Notes the task under way.
    pub fn set_current(&self, current: Option<(Address, Stop)>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }
}

//! The machine beside the data: what measuring, training and scoring need, and nothing of the fleet.
//!
//! It knows neither bus nor object storage, so that the same work is done in a worker's process, for the
//! fleet, and in a simulation's, for nobody.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use domain::id::WorkerName;

use crate::Config;
use crate::compute::{Pace, Tempo};
use crate::data::Data;
use crate::journal::Journal;
use crate::status::Status;

/// What every computation of this worker shares.
#[derive(Debug)]
pub struct Machine {
    /// The worker's name.
    pub name: WorkerName,
    /// The configuration, checked.
    pub config: Config,
    /// Bytes the process may use.
    pub memory_limit_bytes: u64,
    /// Compute threads.
    pub threads: u16,
    /// What becomes of the time by which this machine is faster than the one it plays.
    pub tempo: Tempo,
    /// What the beats say.
    pub status: Status,
    /// What the next process must know.
    pub journal: Journal,
    /// The site's data sets.
    pub data: Data,
    /// How many times as fast as training a forward pass is, by the last probe of this process.
    pub forward_speedup: Mutex<Option<f64>>,
    /// Bytes a second from object storage, by the last probe of this process.
    pub download: Mutex<Option<f64>>,
}

impl Machine {
    /// Of a checked configuration that holds this name.
    #[must_use]
    pub fn new(name: WorkerName, config: Config, memory_limit_bytes: u64, tempo: Tempo) -> Self {
        Self {
            name,
            memory_limit_bytes,
            threads: config.compute_threads(),
            tempo,
            status: Status::default(),
            journal: Journal::at(&config.state_dir.join("running")),
            data: Data::new(config.datasets.clone()),
            forward_speedup: Mutex::default(),
            download: Mutex::default(),
            config,
        }
    }

    /// The pace of training, if this site plays a slower machine.
    #[must_use]
    pub fn pace(&self) -> Pace {
        let Config {
            throttle_tokens_per_second,
            speed,
            ..
        } = self.config;
        Pace::new(throttle_tokens_per_second, speed, self.tempo)
    }

    /// The pace of forward passes alone.
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

    /// How fast objects come from storage, if a probe of this process has measured it.
    #[must_use]
    pub fn download_bytes_per_second(&self) -> Option<f64> {
        *self.download.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how fast objects come from storage.
    pub fn set_download(&self, bytes_per_second: f64) {
        *self.download.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes_per_second);
    }

    /// Where files of the task under way lie.
    #[must_use]
    pub fn work_dir(&self) -> PathBuf {
        self.config.state_dir.join("work")
    }
}

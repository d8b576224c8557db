//! The machine's place in the fleet: what every task of this worker shares.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use artifacts::{Hub, ModelCache};
use bus::Bus;
use contract::subject::Address;
use domain::id::{Epoch, JobId};
use tokio_util::sync::CancellationToken;

use crate::compute::Compute;
use crate::floors::Floors;
use crate::machine::Machine;
use crate::sealed::Sealed;
use crate::stop::Stop;
use crate::storage::Storage;

/// What every task of this worker shares.
#[derive(Debug)]
pub struct Site {
    /// What computes; its fields are the site's.
    pub machine: Arc<Machine>,
    /// The bus.
    pub bus: Bus,
    /// Object storage.
    pub storage: Storage,
    /// Models that were fetched.
    pub cache: ModelCache,
    /// Where models named `hf://…` come from.
    pub hub: Hub,
    /// The compute thread.
    pub compute: Compute,
    /// Decided results.
    pub sealed: Sealed,
    /// Cancelled epochs.
    pub floors: Floors,
    /// Stops the process.
    pub token: CancellationToken,
    /// The task under way, and how to stop it.
    pub current: Mutex<Option<(Address, Stop)>>,
}

// A site is its machine, with a way to the others.
impl Deref for Site {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl Site {
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

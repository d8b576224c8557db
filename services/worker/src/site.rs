//! The machine's place in the fleet: what every task of this worker shares.

use std::ops::Deref;
use std::sync::Arc;

use artifacts::{Hub, ModelCache};
use bus::Bus;
use tokio_util::sync::CancellationToken;

use crate::compute::Compute;
use crate::floors::Floors;
use crate::machine::Machine;
use crate::sealed::Sealed;
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
    /// Cancelled epochs, and the task under way.
    pub floors: Floors,
    /// Stops the process.
    pub token: CancellationToken,
}

// A site is its machine, with a way to the others.
impl Deref for Site {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

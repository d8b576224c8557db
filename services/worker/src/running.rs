//! One task under way, as far as its computation goes: its stage, its progress, its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::fleet::Stage;

use crate::machine::Machine;
use crate::stop::Stop;

/// One task under way; clones are the same task.
#[derive(Debug, Clone)]
pub struct Running {
    /// The machine.
    pub site: Arc<Machine>,
    /// Ends it early.
    pub stop: Stop,
    /// Steps, blocks, bytes and records; what keeps the task ours.
    pub progress: Arc<AtomicU64>,
}

impl Running {
    /// Begins another stage of `total` units, 0 where unknown.
    pub fn stage(&self, stage: Stage, total: u64) {
        if let Err(error) = self.site.journal.stage(stage) {
            tracing::warn!(%error, "the journal cannot be written");
        }
        self.site.status.stage(stage, total);
        self.advance();
    }

    /// One more unit of work is done.
    pub fn advance(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

//! How a caller watches and stops a computation that runs on another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A cancel flag and a progress counter, consulted between transformer blocks.
///
/// Clones share both, so that one end can be given away.
#[derive(Debug, Clone, Default)]
pub struct Control {
    cancelled: Arc<AtomicBool>,
    blocks: Arc<AtomicU64>,
}

/// The computation was cancelled; nothing was changed by the step that was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

impl Control {
    /// A control that nobody has cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the computation to stop at the next block.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Whether somebody asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Blocks computed so far, forward and backward each counting one, and other work of that order.
    ///
    /// It only grows; liveness is that it moves.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Called by the engine before each block, or another piece of work of that order.
    pub(crate) fn block(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() {
            return Err(Cancelled);
        }
        self.blocks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

//! How a task under way is told to stop: at once for what waits, at the next block for what computes.

use engine::control::Control;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// Stops one task; clones stop the same one.
#[derive(Debug, Clone)]
pub struct Stop {
    token: CancellationToken,
    control: Control,
}

impl Stop {
    /// For one task; it stops with the process.
    #[must_use]
    pub fn below(process: &CancellationToken) -> Self {
        Self {
            token: process.child_token(),
            control: Control::new(),
        }
    }

    /// Stops the task.
    pub fn stop(&self) {
        self.token.cancel();
        self.control.cancel();
    }

    /// Waits until somebody stops the task or the process, and tells the computation.
    pub async fn stopped(&self) {
        self.token.cancelled().await;
        self.control.cancel();
    }

    /// What the computation consults between blocks.
    #[must_use]
    pub const fn control(&self) -> &Control {
        &self.control
    }

    /// What waits and transfers consult.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// # Errors
    /// [`Failure::Stopped`] if the task was stopped.
    pub fn check(&self) -> Result<(), Failure> {
        if self.token.is_cancelled() || self.control.is_cancelled() {
            return Err(Failure::Stopped);
        }
        Ok(())
    }
}

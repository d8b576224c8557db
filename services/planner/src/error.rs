//! What can go wrong in the planner.

use bus::Retry;

/// What can go wrong in the planner.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process cannot start.
    #[error("planner cannot start")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The bus.
    #[error("message bus")]
    Bus(#[from] bus::Error),
    /// The process ended before a plan was computed.
    #[error("planning was interrupted")]
    Interrupted,
}

impl Error {
    /// Whether trying again helps.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Start(_) => Retry::Never,
            Self::Bus(error) => error.retry(),
            // The next owner does the step again.
            Self::Interrupted => Retry::Later,
        }
    }

    pub(crate) fn start(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Start(Box::new(error))
    }
}

//! Why a worker does not start or cannot go on. What goes wrong with a task is a
//! [`crate::failure::Failure`].

use std::path::PathBuf;

/// Why a worker does not start or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value of the configuration cannot be used.
    #[error("the configuration's {key} cannot be used: {reason}")]
    Config {
        /// The key.
        key: &'static str,
        /// What would be right.
        reason: String,
    },
    /// The frame did not start.
    #[error("the service did not start")]
    Frame(#[from] chassis::service::Error),
    /// Memory cannot be measured or limited.
    #[error("memory cannot be limited")]
    Memory(#[from] chassis::memory::Error),
    /// The bus cannot be used as configured.
    #[error("the bus cannot be used")]
    Bus(#[from] bus::Error),
    /// Object storage or the model cache cannot be used as configured.
    #[error("storage cannot be used")]
    Storage(#[from] artifacts::Error),
    /// The state folder cannot be used.
    #[error("cannot use {path}")]
    State {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The compute thread could not be started.
    #[error("the compute thread cannot be started")]
    Thread(#[source] std::io::Error),
    /// The compute thread died of a defect; the journal makes the next process count it.
    #[error("the compute thread is gone")]
    ComputeGone,
}

//! What a worker is told beside its training, as request and reply; obeyed within one block.

use domain::id::{Epoch, JobId, WorkerName};
use serde::{Deserialize, Serialize};

use crate::{Message, subject};

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// To whom.
    pub worker: WorkerName,
    /// What to do.
    pub order: Order,
}

/// What a worker can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Drop every task of the job with an epoch below this one.
    Cancel {
        /// The job.
        job: JobId,
        /// Tasks of earlier epochs no longer count.
        below: Epoch,
    },
    /// Answer, nothing else: is anybody there?
    Ping,
}

/// A worker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Who answers.
    pub worker: WorkerName,
    /// Whether a task under way was stopped by it.
    pub stopped: bool,
}

impl Message for Control {
    const KIND: &'static str = "control";
    const VERSION: u16 = 1;

    fn subject(&self) -> String {
        subject::control(&self.worker)
    }
}

impl Message for Reply {
    const KIND: &'static str = "control-reply";
    const VERSION: u16 = 1;

    // A reply goes to the requester's inbox; this names it in logs only.
    fn subject(&self) -> String {
        subject::control(&self.worker)
    }
}

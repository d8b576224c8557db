//! How full the queues are: for people who look after the bus; nobody decides by it.

use std::collections::BTreeMap;

use contract::topology::{self, STREAMS, TASKS};
use domain::id::WorkerName;
use futures::TryStreamExt;

use crate::{Bus, Error};

/// Workers whose queues are looked at, at most.
const WORKERS: usize = 1024;

/// What lies in one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What lies before one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Tasks that wait, and those that it works on.
    pub tasks: u64,
    /// Tasks in its hands that were delivered more than once.
    pub redelivered: u64,
}

impl Bus {
    /// Every stream by name.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn depths(&self) -> Result<BTreeMap<&'static str, Depth>, Error> {
        let mut depths = BTreeMap::new();
        for declared in STREAMS {
            let info = self.stream(declared.name).await?.get_info().await;
            let info =
                info.map_err(|error| Error::unavailable("look at a stream")(Box::new(error)))?;
            let depth = Depth {
                messages: info.state.messages,
                bytes: info.state.bytes,
            };
            depths.insert(declared.name, depth);
        }
        Ok(depths)
    }

    /// The tasks of every worker that has a queue; of a larger fleet some are left out.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn backlogs(&self) -> Result<BTreeMap<WorkerName, Backlog>, Error> {
        let away = |error| Error::unavailable("look at the queues")(error);
        let tasks = self.stream(TASKS.name).await?;
        let mut consumers = tasks.consumers();
        let mut backlogs = BTreeMap::new();
        while backlogs.len() < WORKERS {
            let next = consumers.try_next().await;
            let Some(info) = next.map_err(|error| away(Box::new(error)))? else {
                break;
            };
            if let Some(worker) = topology::worker_of(&info.name) {
                let backlog = Backlog {
                    tasks: info.num_pending + info.num_ack_pending as u64,
                    redelivered: info.num_redelivered as u64,
                };
                backlogs.insert(worker, backlog);
            }
        }
        Ok(backlogs)
    }
}

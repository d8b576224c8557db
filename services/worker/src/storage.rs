//! How a worker reaches object storage: with credentials of its own, or, without any, through URLs
//! that the control plane signs for one job at a time.

use std::sync::Arc;
use std::time::Duration;

use artifacts::{Config, Link, SignError, Signed, Signer, Store};
use bus::Bus;
use contract::message::grant::{Answer, Ask};
use domain::grant::Wanted;
use domain::id::{JobId, WorkerName};
use futures::FutureExt;
use futures::future::BoxFuture;

/// How a worker reaches object storage; clones share the connections.
#[derive(Debug, Clone)]
pub enum Storage {
    /// With credentials of its own.
    Own(Store),
    /// Through signed URLs.
    Granted(Box<Granted>),
}

/// What a worker without credentials needs.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The connections.
    link: Link,
    /// On which it asks.
    bus: Bus,
    /// Under which name.
    worker: WorkerName,
}

impl Storage {
    /// As the site's `[storage]` says: a url is its own storage, none means signed URLs.
    ///
    /// # Errors
    /// If the settings cannot be used; nothing is asked yet.
    pub fn open(config: &Config, bus: &Bus, worker: &WorkerName) -> Result<Self, artifacts::Error> {
        if config.url.is_empty() {
            return Ok(Self::Granted(Box::new(Granted {
                link: Link::open(config)?,
                bus: bus.clone(),
                worker: worker.clone(),
            })));
        }
        Store::open(config).map(Self::Own)
    }

    /// Storage for the work on one job; without a job only [`Store::ready`] is answered through URLs.
    #[must_use]
    pub fn store(&self, job: Option<&JobId>) -> Store {
        match self {
            Self::Own(store) => store.clone(),
            Self::Granted(granted) => {
                let asks = Asks {
                    bus: granted.bus.clone(),
                    worker: granted.worker.clone(),
                    job: job.cloned(),
                };
                Store::granted(&granted.link, Arc::new(asks))
            }
        }
    }
}

/// Asks the control plane for URLs.
#[derive(Debug)]
struct Asks {
    bus: Bus,
    worker: WorkerName,
    job: Option<JobId>,
}

impl Signer for Asks {
    fn sign(&self, wanted: Vec<Wanted>) -> BoxFuture<'_, Result<Signed, SignError>> {
        let ask = Ask {
            worker: self.worker.clone(),
            job: self.job.clone(),
            wanted,
        };
        async move {
            let answer = self.bus.ask(&ask).await;
            match answer.map_err(|error| SignError::Away(Box::new(error)))? {
                Answer::Granted { urls, valid_ms } => {
                    let valid = Duration::from_millis(valid_ms);
                    Ok(Signed { urls, valid })
                }
                Answer::Refused(refusal) => Err(SignError::Refused(refusal)),
                Answer::Away { detail } => Err(SignError::Away(detail.into())),
            }
        }
        .boxed()
    }
}

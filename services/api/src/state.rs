//! What every handler can reach.

use std::sync::Arc;

use artifacts::{Hub, Store as Objects};
use bus::{Bus, Store};
use contract::topology::Bucket;
use domain::id::JobId;
use domain::job::Job;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Limits};
use crate::problem::Problem;
use crate::tokens::Tokens;
use crate::watch::Watch;

/// The service as handlers see it; clones share it.
#[derive(Clone)]
pub struct App(Arc<Shared>);

struct Shared {
    bus: Bus,
    objects: Objects,
    hub: Hub,
    jobs: OnceCell<Store<Job>>,
    watch: Watch,
    streams: Arc<Semaphore>,
    merging: Arc<Semaphore>,
    computing: Arc<Semaphore>,
    tokens: Tokens,
    limits: Limits,
    stop: CancellationToken,
}

impl App {
    /// Puts the parts together; nothing is asked over the network.
    pub fn new(
        bus: Bus,
        (objects, hub): (Objects, Hub),
        config: &Config,
        tokens: Tokens,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Shared {
            bus,
            objects,
            hub,
            jobs: OnceCell::new(),
            watch: Watch::new(chassis::clock::now()),
            streams: Arc::new(Semaphore::new(config.limits.event_streams)),
            merging: Arc::new(Semaphore::new(1)),
            computing: Arc::new(Semaphore::new(1)),
            tokens,
            limits: config.limits.clone(),
            stop,
        }))
    }

    /// The message bus.
    pub fn bus(&self) -> &Bus {
        &self.0.bus
    }

    /// Object storage.
    pub fn objects(&self) -> &Objects {
        &self.0.objects
    }

    /// The Hub.
    pub fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// What is known of jobs and fleet.
    pub fn watch(&self) -> &Watch {
        &self.0.watch
    }

    /// One permit per open event stream.
    pub fn streams(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.streams)
    }

    /// The one permit to make a model of a base and an adapter, which takes time and room.
    pub fn merging(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.merging)
    }

    /// The one permit of whatever takes memory by the size of an adapter or a model.
    pub fn computing(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.computing)
    }

    /// The tokens that requests must show one of; where there is none, nobody is asked.
    pub fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// The configured bounds.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Cancelled when the process is to stop.
    pub fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// The stored jobs.
    pub async fn jobs(&self) -> Result<&Store<Job>, bus::Error> {
        let open = || self.0.bus.store(Bucket::Jobs);
        self.0.jobs.get_or_try_init(open).await
    }

    /// Other values of a bucket.
    pub async fn store<T: Serialize + DeserializeOwned>(
        &self,
        bucket: Bucket,
    ) -> Result<Store<T>, bus::Error> {
        self.0.bus.store(bucket).await
    }

    /// A job as stored, or the problem that there is none.
    pub async fn stored(&self, id: &JobId) -> Result<Job, Problem> {
        let found = self.jobs().await?.get(id.as_str()).await?;
        found
            .map(|(job, _)| job)
            .ok_or_else(|| Problem::no_job(id.as_str()))
    }
}

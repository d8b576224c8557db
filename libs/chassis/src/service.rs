//! The frame every service stands in: telemetry, signals, readiness and the health server.

use std::net::SocketAddr;

use domain::id::{self, InstanceId};
use tokio_util::sync::CancellationToken;

use crate::health::{self, Readiness, Server};
use crate::{clock, config, failpoint, signals, telemetry};

/// Why a service did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service's name is not legal.
    #[error("the service has no legal name")]
    Name(#[source] id::Invalid),
    /// No logs or metrics.
    #[error("telemetry did not start")]
    Telemetry(#[source] telemetry::Error),
    /// No signals.
    #[error("signals are not obeyed")]
    Signals(#[source] signals::Error),
    /// No health server.
    #[error("health is not served")]
    Health(#[source] health::Error),
}

/// A started process.
#[derive(Debug)]
pub struct Frame {
    /// The service's name.
    pub service: String,
    /// This process's own name, new at each start.
    pub instance: InstanceId,
    /// Cancelled when the process is to stop.
    pub token: CancellationToken,
    /// The process's conditions.
    pub readiness: Readiness,
    /// Where health is served.
    pub health_address: SocketAddr,
    server: Server,
}

impl Frame {
    /// Starts telemetry, obeys signals and the parent's death, and serves health; the process is
    /// ready once each of `conditions` was set.
    ///
    /// # Errors
    /// [`Error`], in the order of starting.
    pub async fn start(
        service: &str,
        telemetry: &config::Telemetry,
        health: &config::Health,
        conditions: &[&'static str],
    ) -> Result<Self, Error> {
        let instance = clock::instance_id(service).map_err(Error::Name)?;
        telemetry::init(service, &instance, telemetry).map_err(Error::Telemetry)?;
        let token = signals::stop_on_signals().map_err(Error::Signals)?;
        // After the handlers: a parent that is dead already must end us in order too.
        signals::follow_parent().map_err(Error::Signals)?;
        failpoint::announce();
        let readiness = Readiness::new(conditions);
        let server = health::serve(health, readiness.clone(), token.clone())
            .await
            .map_err(Error::Health)?;
        tracing::info!(service, %instance, version = env!("CARGO_PKG_VERSION"), "started");
        Ok(Self {
            service: service.to_owned(),
            instance,
            token,
            readiness,
            health_address: server.address(),
            server,
        })
    }

    /// Stops what was started and waits for it; for the end of a service's `run`.
    pub async fn stop(self) {
        self.token.cancel();
        self.server.finished().await;
        tracing::info!(service = self.service, instance = %self.instance, "stopped");
        telemetry::farewell().await;
    }
}

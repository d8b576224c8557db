//! The server of the health pages.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Readiness;
use crate::{config, telemetry};

/// Why health is not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen on {address} for health")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The bound address cannot be written to its file.
    #[error("cannot write the address of health to {path}")]
    AddressFile {
        /// The configured file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// How long a reader may take to end its request when the process stops.
const LONGEST_FAREWELL: Duration = Duration::from_secs(2);

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    token: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Where it really listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until its token was cancelled and open requests were answered; for those, 2 s at most.
    pub async fn finished(self) {
        self.token.cancelled().await;
        match timeout(LONGEST_FAREWELL, self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the health server broke down"),
            Err(_) => tracing::warn!("a reader of health is too slow to wait for"),
        }
    }
}

/// The pages as routes, for a service that has a server of its own.
pub fn router(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(readiness)
}

/// Serves the pages until `token` is cancelled.
///
/// # Errors
/// [`Error`]: the address cannot be bound, its file not written.
pub async fn serve(
    config: &config::Health,
    readiness: Readiness,
    token: CancellationToken,
) -> Result<Server, Error> {
    let (listener, address) = bind(config.listen).await.map_err(|source| Error::Listen {
        address: config.listen,
        source,
    })?;
    if let Some(path) = &config.address_file {
        write_address(path, address).map_err(|source| Error::AddressFile {
            path: path.clone(),
            source,
        })?;
    }
    tracing::info!(%address, "health is served");
    let stop = token.clone();
    let task = tokio::spawn(async move {
        let served = axum::serve(listener, router(readiness))
            .with_graceful_shutdown(stop.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "health is no longer served");
        }
    });
    Ok(Server {
        address,
        token,
        task,
    })
}

async fn bind(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

/// Whoever waits for the file never sees half an address.
fn write_address(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, address.to_string())?;
    std::fs::rename(&partial, path)
}

async fn readyz(State(readiness): State<Readiness>) -> impl IntoResponse {
    let reasons = readiness.reasons();
    let ready = reasons.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({ "ready": ready, "reasons": reasons })))
}

async fn metrics() -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, telemetry::exposition())
}

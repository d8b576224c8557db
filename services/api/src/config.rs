//! What this service can be told.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use bus::Connect;
use chassis::config::{Health, Liveness, Secret, Telemetry};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Shortest token that is accepted, in bytes: shorter ones can be guessed.
const TOKEN_BYTES: usize = 16;

/// The configuration of `fedpipe api`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one. Other than loopback only with a token.
    pub listen: SocketAddr,
    /// What every request below `/v1` must show as `Authorization: Bearer …`.
    pub token: Option<Secret>,
    /// A file that receives the bound address as text, for whoever started this process.
    pub address_file: Option<PathBuf>,
    /// How to reach NATS.
    pub nats: Connect,
    /// Where models, reports and adapters lie.
    pub storage: artifacts::Config,
    /// Where health is served beside the service's own address.
    pub health: Health,
    /// Logs.
    pub telemetry: Telemetry,
    /// The idle knob.
    pub liveness: Liveness,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            token: None,
            address_file: None,
            nats: Connect::default(),
            storage: artifacts::Config::default(),
            health: Health::default(),
            telemetry: Telemetry::default(),
            liveness: Liveness::default(),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Refuses an address that strangers can reach without showing a token.
    ///
    /// # Errors
    /// [`Error::NoToken`], [`Error::ShortToken`].
    pub fn check(&self) -> Result<(), Error> {
        match &self.token {
            None if !self.listen.ip().is_loopback() => Err(Error::NoToken {
                address: self.listen,
            }),
            Some(token) if token.expose().len() < TOKEN_BYTES => {
                Err(Error::ShortToken { least: TOKEN_BYTES })
            }
            _ => Ok(()),
        }
    }
}

/// Bounds of queues, payloads and times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest body of a request, in bytes.
    pub body_bytes: usize,
    /// Jobs that have not ended, at most; more are refused.
    pub active_jobs: usize,
    /// Jobs that are kept, ended ones included; more are refused until some are deleted.
    pub jobs: usize,
    /// Event streams that are open at the same time.
    pub event_streams: usize,
    /// Longest time until an answer begins, in milliseconds.
    pub request_timeout_ms: u64,
    /// Largest adapter that is handed out, in bytes.
    pub adapter_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            active_jobs: 1000,
            jobs: 10_000,
            event_streams: 256,
            request_timeout_ms: 60_000,
            adapter_bytes: 4 << 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen: &str, token: Option<&str>, accepted: bool) {
        let config = Config {
            listen: listen.parse().expect("an address"),
            token: token.map(Secret::from),
            ..Config::default()
        };
        assert_eq!(config.check().is_ok(), accepted, "{listen} {token:?}");
    }

    #[test]
    fn only_loopback_is_served_without_a_token() {
        check("127.0.0.1:0", None, true);
        check("[::1]:0", None, true);
        check("0.0.0.0:0", None, false);
        check("[::]:0", None, false);
        check("10.0.0.1:80", None, false);
        check("0.0.0.0:0", Some("0123456789abcdef"), true);
        check("127.0.0.1:0", Some("short"), false);
        check("0.0.0.0:0", Some(""), false);
    }
}

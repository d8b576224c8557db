//! What this service can be told.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use bus::Connect;
use chassis::config::{Health, Liveness, Secret, Telemetry};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::tokens::{Token, Tokens};

/// The configuration of `fedpipe api`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one. Other than loopback only with a token.
    pub listen: SocketAddr,
    /// An administrator's token, which requests below `/v1` show as `Authorization: Bearer …`.
    pub token: Option<Secret>,
    /// Tokens with names and roles, beside it or instead.
    pub tokens: Vec<Token>,
    /// A file that receives the bound address as text, for whoever started this process.
    pub address_file: Option<PathBuf>,
    /// How to reach NATS.
    pub nats: Connect,
    /// Where models, reports and adapters lie.
    pub storage: artifacts::Config,
    /// How to ask the Hugging Face Hub which commit a model named `hf://org/name@revision` is.
    pub hub: artifacts::hub::Config,
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
            tokens: Vec::new(),
            address_file: None,
            nats: Connect::default(),
            storage: artifacts::Config::default(),
            hub: artifacts::hub::Config::default(),
            health: Health::default(),
            telemetry: Telemetry::default(),
            liveness: Liveness::default(),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Reads the tokens, and refuses an address that strangers can reach without showing one.
    ///
    /// # Errors
    /// [`Error::NoToken`], [`Error::ShortToken`], [`Error::Token`].
    pub fn check(&self) -> Result<Tokens, Error> {
        let tokens = Tokens::read(self.token.as_ref(), &self.tokens)?;
        if tokens.is_empty() && !self.listen.ip().is_loopback() {
            return Err(Error::NoToken {
                address: self.listen,
            });
        }
        Ok(tokens)
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
        let named = r#"{"listen": "0.0.0.0:0", "tokens": [{"name": "a", "role": "viewer", "sha256": "HEX"}]}"#;
        let named = named.replace("HEX", &"ab".repeat(32));
        let config: Config = serde_json::from_str(&named).expect("legal");
        assert!(config.check().is_ok());
    }
}

//! Why the service does not start. What goes wrong with a request is a [`crate::problem::Problem`].

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the service does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Strangers could reach it.
    #[error(
        "{address} is not loopback: set a token (FEDPIPE_TOKEN, or `token` or `[[tokens]]` in the configuration), or listen on 127.0.0.1"
    )]
    NoToken {
        /// The configured address.
        address: SocketAddr,
    },
    /// The token can be guessed.
    #[error("the token is shorter than {least} bytes")]
    ShortToken {
        /// The least length.
        least: usize,
    },
    /// A token with a name cannot be used.
    #[error("token {name}: {why}")]
    Token {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Telemetry, signals or health.
    #[error("the process cannot start")]
    Frame(#[from] chassis::service::Error),
    /// NATS cannot be used as configured.
    #[error("the bus cannot be used")]
    Bus(#[from] bus::Error),
    /// Storage cannot be used as configured.
    #[error("the storage cannot be used")]
    Storage(#[from] artifacts::Error),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The bound address cannot be written to its file.
    #[error("cannot write the bound address to {path}")]
    AddressFile {
        /// The configured file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server broke down.
    #[error("the server broke down")]
    Serve(#[source] std::io::Error),
}

//! `fedpipe admin nats-config`: a NATS server's whole configuration.

use std::path::PathBuf;

use clap::Args as Arguments;
use contract::server::{Listen, Tls, configuration};

use super::users;
use crate::output;

/// Flags of `fedpipe admin nats-config`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe admin nats-config --users users.toml > nats.conf
  fedpipe admin nats-config --users users.toml --listen 0.0.0.0:4222 --certificate-file tls.crt --key-file tls.key > nats.conf
  nats-server -t -c nats.conf && nats-server --signal reload

The users file has a line for each user, NAME = \"PUBLIC KEY\"; `fedpipe admin add-worker … --users FILE` writes it. Whoever is not
in it is not let in: take a line out, render again and reload to revoke.")]
pub struct Args {
    /// The users file
    #[arg(long, value_name = "FILE")]
    users: PathBuf,
    /// Where the server listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4222")]
    listen: String,
    /// Where JetStream keeps its files
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nats")]
    store_dir: String,
    /// How much JetStream may keep, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 30)]
    store_bytes: u64,
    /// The server's certificate in PEM; with it the server speaks TLS only
    #[arg(long, value_name = "FILE", requires = "key_file")]
    certificate_file: Option<String>,
    /// The key of the certificate
    #[arg(long, value_name = "FILE", requires = "certificate_file")]
    key_file: Option<String>,
    /// Authorities of clients' certificates; with it, each client must show one
    #[arg(long, value_name = "FILE", requires = "certificate_file")]
    client_ca_file: Option<String>,
}

impl Args {
    /// Prints it.
    pub fn run(self) -> anyhow::Result<()> {
        let users = users::read(&self.users)?;
        let tls = self
            .certificate_file
            .zip(self.key_file)
            .map(|(certificate_file, key_file)| Tls {
                certificate_file,
                key_file,
                client_ca_file: self.client_ca_file,
            });
        if tls.is_none() {
            output::note(
                "fedpipe: without --certificate-file the server speaks in the clear: for this machine alone",
            );
        }
        let listen = Listen {
            address: self.listen,
            store_dir: self.store_dir,
            ports_file_dir: String::new(),
            disk_bytes: self.store_bytes,
            tls,
        };
        output::line(configuration(&listen, &users).trim_end())
    }
}

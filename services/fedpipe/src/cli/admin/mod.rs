//! `fedpipe admin …`: identities. Makes keys, and the words by which servers know their holders.
//!
//! It promises: a secret is shown or written once, to a file of its owner's alone, and never over another.
//! It does not: reach a server. Who runs one puts into its configuration what is printed here.

mod file;
mod nats_config;
mod token;
mod user;
mod users;

use clap::Subcommand;

/// A command about identities.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a site's credentials, and the permissions that the NATS server gives it
    AddWorker(user::Worker),
    /// Make a control service's credentials, and the permissions that the NATS server gives it
    AddService(user::Service),
    /// Make a token of the API, with a role
    AddToken(token::Args),
    /// Print the configuration of a NATS server that lets these users in, each with its permissions
    NatsConfig(nats_config::Args),
}

impl Command {
    /// Does what was asked.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::AddWorker(args) => args.run(),
            Self::AddService(args) => args.run(),
            Self::AddToken(args) => args.run(),
            Self::NatsConfig(args) => args.run(),
        }
    }
}

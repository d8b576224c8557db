//! `fedpipe fleet`: the workers as the API knows them.

use clap::Args as Arguments;
use serde_json::Value;

use super::job::show;
use crate::client::Connection;
use crate::{cli, output};

/// Flags of `fedpipe fleet`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe fleet
  fedpipe fleet --json --api http://10.0.0.5:8080")]
pub struct Args {
    /// Where the API is
    #[command(flatten)]
    connection: Connection,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Prints the workers.
    pub fn run(self) -> anyhow::Result<()> {
        cli::block_on(async {
            let workers = Value::Array(self.connection.client()?.items("/v1/workers").await?);
            if self.json {
                output::json(&workers)
            } else {
                output::line(show::fleet(&workers)?)
            }
        })
    }
}

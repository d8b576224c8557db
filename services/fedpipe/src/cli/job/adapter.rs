//! `fedpipe job adapter`: fetches what a job has trained.

use std::io::{Seek, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args as Arguments;
use domain::artifact::Digest;
use domain::id::JobId;
use futures::StreamExt;
use reqwest::Method;

use crate::client::{Connection, archive};
use crate::output;

/// Header with the digest of the weights.
const SHA256: &str = "Fedpipe-Adapter-Sha256";

/// Flags of `fedpipe job adapter`.
#[derive(Debug, Arguments)]
#[command(after_help = "Example:
  fedpipe job adapter job_0123456789abcdef -o adapter
  python3 -c \"import peft; …; peft.PeftModel.from_pretrained(model, 'adapter')\"")]
pub struct Args {
    /// The job
    #[arg(value_name = "ID")]
    job: JobId,
    /// Folder for adapter_config.json and adapter_model.safetensors
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Where the API is
    #[command(flatten)]
    connection: Connection,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Fetches, verifies, unpacks.
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.connection.client()?;
        let answer = client
            .send(client.request(Method::GET, &format!("/v1/jobs/{}/adapter", self.job))?)
            .await?;
        let announced = answer
            .headers()
            .get(SHA256)
            .and_then(|value| value.to_str().ok());
        let expected: Digest = announced.context("the answer names no digest")?.parse()?;
        std::fs::create_dir_all(&self.output)
            .with_context(|| format!("cannot make {}", self.output.display()))?;
        // Beside its destination, which has the room; without a name, so that nothing is left behind.
        let mut file = tempfile::tempfile_in(&self.output)?;
        let mut body = answer.bytes_stream();
        while let Some(bytes) = body.next().await {
            file.write_all(&bytes.context("the adapter did not arrive whole. Next: ask again")?)?;
        }
        file.rewind()?;
        archive::unpack(&file, &self.output, &expected)?;
        if self.json {
            return output::json(
                &serde_json::json!({ "job": self.job, "folder": self.output, "sha256": expected }),
            );
        }
        output::line(format!("{}: adapter {expected}", self.output.display()))
    }
}

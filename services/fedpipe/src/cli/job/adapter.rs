//! `fedpipe job adapter`: fetches what a job has trained.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args as Arguments, ValueEnum};
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
  fedpipe job adapter job_0123456789abcdef -o adapter --format gguf-lora      adapter/adapter.gguf, for llama.cpp's --lora
  python3 -c \"import peft; …; peft.PeftModel.from_pretrained(model, 'adapter')\"")]
pub struct Args {
    /// The job
    #[arg(value_name = "ID")]
    job: JobId,
    /// Folder for adapter_config.json and adapter_model.safetensors, or for adapter.gguf
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The format; those that hold the model's weights are made by `fedpipe export`
    #[arg(long, value_enum, default_value = "peft")]
    format: Format,
    /// Where the API is
    #[command(flatten)]
    connection: Connection,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Formats that need no model here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For Hugging Face PEFT
    Peft,
    /// For llama.cpp
    GgufLora,
}

impl Format {
    const fn query(self) -> &'static str {
        match self {
            Self::Peft => "",
            Self::GgufLora => "?format=gguf-lora",
        }
    }
}

impl Args {
    /// Fetches, verifies, unpacks.
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.connection.client()?;
        let answer = client
            .send(client.request(
                Method::GET,
                &format!("/v1/jobs/{}/adapter{}", self.job, self.format.query()),
            )?)
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
        match self.format {
            Format::Peft => archive::unpack(&file, &self.output, &expected)?,
            Format::GgufLora => self.keep(&file, &expected)?,
        }
        if self.json {
            return output::json(
                &serde_json::json!({ "job": self.job, "folder": self.output, "sha256": expected }),
            );
        }
        output::line(format!("{}: adapter {expected}", self.output.display()))
    }
    /// The one file, verified before it has its name.
    fn keep(&self, file: &File, expected: &Digest) -> anyhow::Result<()> {
        let mut named = tempfile::NamedTempFile::new_in(&self.output)?;
        std::io::copy(&mut &*file, &mut named)?;
        let found = archive::digest(named.path())?;
        anyhow::ensure!(
            found == *expected,
            "the adapter is {found} but {expected} was announced"
        );
        named.as_file().sync_all()?;
        named.persist(self.output.join("adapter.gguf"))?;
        Ok(())
    }
}

//! `fedpipe job adapter`: fetches what a job has trained, alone or in the weights of its model.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args as Arguments, ValueEnum};
use domain::artifact::Digest;
use domain::id::JobId;
use futures::StreamExt;
use reqwest::Method;
use serde_json::Value;

use crate::cli::offline::labels;
use crate::client::{Client, Connection, archive};
use crate::output;

/// Header with the digest of the weights.
const SHA256: &str = "Fedpipe-Adapter-Sha256";

/// Flags of `fedpipe job adapter`.
#[derive(Debug, Arguments)]
#[command(after_help = "Example:
  fedpipe job adapter job_0123456789abcdef -o adapter
  fedpipe job adapter job_0123456789abcdef -o adapter --format gguf-lora      adapter/adapter.gguf, for llama.cpp's --lora
  fedpipe job adapter job_0123456789abcdef -o model --format merged           the model with the adapter in its weights
  python3 -c \"import peft; …; peft.PeftModel.from_pretrained(model, 'adapter')\"")]
pub struct Args {
    /// The job
    #[arg(value_name = "ID")]
    job: JobId,
    /// Folder for adapter_config.json and adapter_model.safetensors (and labels.json of a classification head), for
    /// adapter.gguf or model.gguf, or for the model's files
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The format; `merged` and `gguf` of models that fit the API's memory, others are made by `fedpipe export`
    #[arg(long, value_enum, default_value = "peft")]
    format: Format,
    /// Where the API is
    #[command(flatten)]
    connection: Connection,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For Hugging Face PEFT
    Peft,
    /// For llama.cpp, beside the model
    GgufLora,
    /// The changed model for Hugging Face transformers
    Merged,
    /// The changed model for llama.cpp
    Gguf,
}

impl Format {
    const fn query(self) -> &'static str {
        match self {
            Self::Peft => "",
            Self::GgufLora => "?format=gguf-lora",
            Self::Merged => "?format=merged",
            Self::Gguf => "?format=gguf",
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
            Format::Peft => {
                let adapter = (&file, archive::Content::Adapter);
                archive::unpack(adapter, &self.output, &expected)?;
                labels::keep(&self.output, &self.labels(&client).await?)?;
            }
            Format::Merged => {
                let model = (&file, archive::Content::Model);
                archive::unpack(model, &self.output, &expected)?;
            }
            Format::GgufLora => self.keep(&file, &expected, "adapter.gguf")?,
            Format::Gguf => self.keep(&file, &expected, "model.gguf")?,
        }
        if self.json {
            return output::json(
                &serde_json::json!({ "job": self.job, "folder": self.output, "sha256": expected }),
            );
        }
        let what = match self.format {
            Format::Peft | Format::GgufLora => "adapter",
            Format::Merged | Format::Gguf => "model",
        };
        output::line(format!("{}: {what} {expected}", self.output.display()))
    }

    /// The job's classes, which PEFT's files do not name; none where it trained no classification head.
    async fn labels(&self, client: &Client) -> anyhow::Result<Vec<String>> {
        let job: Value = client.get(&format!("/v1/jobs/{}", self.job)).await?;
        let labels = job.pointer("/spec/training/labels").cloned();
        let labels = labels.map(serde_json::from_value).transpose();
        Ok(labels
            .context("the job's labels are no list of texts")?
            .unwrap_or_default())
    }

    /// The one file, verified before it has its name.
    fn keep(&self, file: &File, expected: &Digest, name: &str) -> anyhow::Result<()> {
        let mut named = tempfile::NamedTempFile::new_in(&self.output)?;
        std::io::copy(&mut &*file, &mut named)?;
        let found = archive::digest(named.path())?;
        anyhow::ensure!(
            found == *expected,
            "{name} is {found} but {expected} was announced"
        );
        named.as_file().sync_all()?;
        named.persist(self.output.join(name))?;
        Ok(())
    }
}

//! `fedpipe model …`: models in object storage. Goes straight to storage, not through the API.

mod download;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use artifacts::{ModelRef, Transfer};
use clap::{Args as Arguments, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::source::Source;
use super::storage;
use crate::units::bytes;
use crate::{cli, output};

/// Between two movements of the bar.
const TICK: Duration = Duration::from_millis(200);

/// A command on models.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Store a model: a GGUF file, a Hugging Face folder, one of the Hub (hf://…), or an http(s) address of a file
    Push(Push),
    /// List the models in storage
    List(List),
}

/// What to store.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe model push SmolLM2-135M-Instruct.Q4_1.gguf
  fedpipe model push models/llama --storage s3.toml
  fedpipe model push https://example.org/model.gguf
  fedpipe model push hf://org/name@revision           for sites that do not reach the Hub themselves

Pushing again sends only what is missing. A job names the digest that is printed: model: { digest: \"sha256:…\" }.")]
pub struct Push {
    /// File, folder, hf://org/name[@revision][/file.gguf], or http(s) address of a file
    #[arg(value_name = "DIR|FILE|URL")]
    source: String,
    /// Where to
    #[command(flatten)]
    storage: storage::Args,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where to look.
#[derive(Debug, Arguments)]
pub struct List {
    /// Where
    #[command(flatten)]
    storage: storage::Args,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    /// Does what was asked.
    pub fn run(self) -> anyhow::Result<()> {
        cli::block_on(async {
            match self {
                Self::Push(push) => push.run().await,
                Self::List(list) => list.run().await,
            }
        })
    }
}

impl Push {
    async fn run(self) -> anyhow::Result<()> {
        let store = self.storage.open()?;
        // Asked first: nobody downloads a model for a storage that refuses it.
        store.ready().await?;
        let fetched = download::fetch(&self.source).await?;
        let model: Source = self.source.parse()?;
        let path = match &fetched {
            Some(path) => path.clone(),
            None => model.path()?.to_owned(),
        };
        let total = size(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let counter = Arc::new(AtomicU64::new(0));
        let transfer = Transfer::new(CancellationToken::new()).with_progress(counter.clone());
        let bar = progress("storing", total);
        let push = store.push_model(&path, &transfer);
        tokio::pin!(push);
        let model: ModelRef = loop {
            tokio::select! {
                pushed = &mut push => break pushed?,
                () = tokio::time::sleep(TICK) => bar.set_position(counter.load(Ordering::Relaxed).min(total)),
            }
        };
        bar.finish_and_clear();
        if let Some(path) = fetched {
            // Only once it is stored: a push that failed goes on from the file.
            let _ = std::fs::remove_file(path);
        }
        if self.json {
            return output::json(&model);
        }
        output::line(format!(
            "{}  {}  {}",
            model.digest,
            bytes(model.bytes),
            model.files.join(", ")
        ))
    }
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let models = self.storage.open()?.list_models().await?;
        if self.json {
            return output::json(&models);
        }
        let mut rows = vec![["digest", "size", "files"].map(str::to_owned).to_vec()];
        rows.extend(models.iter().map(|model| {
            vec![
                model.digest.to_string(),
                bytes(model.bytes),
                model.files.join(", "),
            ]
        }));
        output::line(output::table(&rows))
    }
}

/// A bar of bytes; nothing without a terminal.
pub fn progress(what: &str, total: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    let bar = ProgressBar::new(total).with_message(what.to_owned());
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn size(path: &Path) -> std::io::Result<u64> {
    let found = std::fs::metadata(path)?;
    if !found.is_dir() {
        return Ok(found.len());
    }
    let mut total = 0;
    for entry in std::fs::read_dir(path)? {
        total += size(&entry?.path())?;
    }
    Ok(total)
}

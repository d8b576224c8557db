//! The adapter as a GGUF file for llama.cpp.
//!
//! Of the model only what describes it is read (`config.json`, or the beginning of its GGUF file): how many rows a
//! head has, for llama.cpp has those of queries and keys in another order.

use std::path::Path;

use artifacts::Transfer;
use artifacts::manifest::File;
use bytes::Bytes;
use domain::artifact::Digest;
use domain::job::spec::Model;
use engine::export::{Error, gguf_lora};
use engine::model::Config;

use crate::problem::{Kind, Problem};
use crate::state::App;

/// Largest adapter that is converted here, in bytes: it is held in memory, some times over.
pub const LIMIT_BYTES: u64 = 256 << 20;
/// How much of a model's file is fetched to find its description: vocabularies lie before what follows.
const STARTS: [u64; 2] = [1, 64 << 20];

/// Why the file cannot be made here.
fn elsewhere(why: &str) -> Problem {
    let detail = format!(
        "{why}; fetch `format=peft` and run `fedpipe export --to gguf-lora` where the model is"
    );
    Problem::new(Kind::Conflict, detail)
}

/// The sizes of the job's model.
pub async fn described(app: &App, model: &Model) -> Result<Config, Problem> {
    let Some(digest) = &model.digest else {
        return Err(elsewhere(
            "the job's model is a file that this service does not see",
        ));
    };
    let manifest = app.objects().model_manifest(digest).await;
    let manifest = manifest.map_err(|error| match error {
        artifacts::Error::NotFound { .. } => elsewhere("the job's model is no longer in storage"),
        other => other.into(),
    })?;
    let files = manifest.files();
    let named = files.iter().find(|file| file.path == "config.json");
    let gguf = || files.iter().find(|file| file.path.ends_with(".gguf"));
    let file = named.or_else(gguf);
    let file =
        file.ok_or_else(|| elsewhere("the job's model has neither config.json nor a gguf file"))?;
    described_by(app, digest, file).await
}

async fn described_by(app: &App, digest: &Digest, file: &File) -> Result<Config, Problem> {
    let mut last = None;
    for least in STARTS {
        let start = app
            .objects()
            .model_file_start(digest, file, least, &Transfer::default())
            .await?;
        match Config::of_start(&file.path, &start) {
            Ok(config) => return Ok(config),
            Err(error) => last = Some(error),
        }
    }
    if let Some(error) = last {
        tracing::warn!(
            error = bus::drive::error_chain(&error),
            "model's description cannot be read"
        );
    }
    Err(elsewhere("the job's model cannot be read here"))
}

/// Converts; blocks.
pub fn convert(
    adapter: &Path,
    peft: &Bytes,
    model: &Config,
    name: &str,
    to: &Path,
) -> Result<(), Problem> {
    let tensors = std::fs::read(adapter).map_err(|error| super::local(&error))?;
    gguf_lora::convert((&tensors, peft), model, name, to).map_err(|error| {
        if matches!(error, Error::Encoder) {
            return Problem::new(Kind::Conflict, format!("{error}: fetch `format=peft`"));
        }
        tracing::warn!(
            error = bus::drive::error_chain(&error),
            "adapter cannot be converted"
        );
        elsewhere("the job's adapter cannot be said as a gguf file here")
    })
}

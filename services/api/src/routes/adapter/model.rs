//! The job's model, as far as this service sees it: what lies in storage, and what that says of itself.

use artifacts::manifest::File;
use artifacts::{Manifest, Transfer};
use domain::artifact::Digest;
use domain::job::spec::Model;
use engine::model::Config;

use super::Format;
use crate::problem::{Kind, Problem};
use crate::state::App;

/// How much of a model's file is fetched to find its description: vocabularies lie before what follows.
const STARTS: [u64; 2] = [1, 64 << 20];

/// A model in storage.
pub struct Stored {
    /// Its name there.
    pub digest: Digest,
    /// Its files.
    pub manifest: Manifest,
    /// Its sizes.
    pub config: Config,
}

/// Why a format cannot be made here, and how it can be.
pub fn elsewhere(format: Format, why: &str) -> Problem {
    let to = format.name();
    let detail =
        format!("{why}; fetch `format=peft` and run `fedpipe export --to {to}` where the model is");
    Problem::new(Kind::Conflict, detail)
}

/// The job's model, described.
pub async fn stored(app: &App, model: &Model, format: Format) -> Result<Stored, Problem> {
    let not_here = |why| elsewhere(format, why);
    let Some(digest) = &model.digest else {
        return Err(not_here(
            "the job's model is a file that this service does not see",
        ));
    };
    let manifest = app.objects().model_manifest(digest).await;
    let manifest = manifest.map_err(|error| match error {
        artifacts::Error::NotFound { .. } => not_here("the job's model is no longer in storage"),
        other => other.into(),
    })?;
    let files = manifest.files();
    let named = files.iter().find(|file| file.path == "config.json");
    let gguf = || files.iter().find(|file| file.path.ends_with(".gguf"));
    let file = named.or_else(gguf);
    let file =
        file.ok_or_else(|| not_here("the job's model has neither config.json nor a gguf file"))?;
    let config = described(app, digest, file).await?;
    let config = config.ok_or_else(|| not_here("the job's model cannot be read here"))?;
    Ok(Stored {
        digest: digest.clone(),
        manifest,
        config,
    })
}

/// What a model's file says of its sizes; none where it says nothing that is understood.
async fn described(app: &App, digest: &Digest, file: &File) -> Result<Option<Config>, Problem> {
    let mut last = None;
    for least in STARTS {
        let start = app
            .objects()
            .model_file_start(digest, file, least, &Transfer::default())
            .await?;
        match Config::of_start(&file.path, &start) {
            Ok(config) => return Ok(Some(config)),
            Err(error) => last = Some(error),
        }
    }
    if let Some(error) = last {
        tracing::warn!(
            error = bus::drive::error_chain(&error),
            "model's description cannot be read"
        );
    }
    Ok(None)
}

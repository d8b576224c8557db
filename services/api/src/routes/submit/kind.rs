//! Whether a job's training goes with the kind of its model: an encoder classifies, a decoder writes.
//!
//! Promises: what the model's own description says is refused here, before any site loads it. A model that only sites see
//! (`file://`), or the Hub's at a commit, of which nothing is asked, or one whose description cannot be had in a moment,
//! is let pass: the first site that loads it says the same.

use std::time::Duration;

use artifacts::hub::Hub;
use artifacts::{Manifest, Transfer};
use bus::drive::error_chain;
use domain::artifact::Digest;
use domain::hub::Model;
use domain::job::spec::Training;
use engine::model::Config;

use crate::problem::FieldError;
use crate::state::App;

/// How long a description may take: a person waits, and a site would find out too.
const WAIT: Duration = Duration::from_secs(5);
/// Largest `config.json` that is fetched.
const DESCRIPTION_BYTES: u64 = 1 << 20;

/// What of the job does not go with a model in storage.
pub async fn misfit_in_storage(
    app: &App,
    (digest, manifest): (&Digest, &Manifest),
    training: &Training,
) -> Option<FieldError> {
    let files = manifest.files();
    let file = files.iter().find(|file| file.path == "config.json");
    // A file of GGUF is no encoder; most say what they are within their first part.
    let gguf = || files.iter().find(|file| file.path.ends_with(".gguf"));
    let gguf = || gguf().filter(|_| training.classifies());
    let file = file
        .filter(|file| file.bytes <= DESCRIPTION_BYTES)
        .or_else(gguf)?;
    let transfer = Transfer::default();
    let asked = app.objects().model_file_start(digest, file, 1, &transfer);
    let start = in_time(asked).await?;
    misfit(&Config::of_start(&file.path, &start).ok()?, training)
}

/// What of the job does not go with a model of the Hub at its commit.
pub async fn misfit_in_hub(hub: &Hub, model: &Model, training: &Training) -> Option<FieldError> {
    let description = in_time(hub.description(model)).await??;
    misfit(
        &Config::of_start("config.json", &description).ok()?,
        training,
    )
}

async fn in_time<T, E>(asked: impl Future<Output = Result<T, E>>) -> Option<T>
where
    E: std::error::Error + 'static,
{
    match tokio::time::timeout(WAIT, asked).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::warn!(
                error = error_chain(&error),
                "a model's description is not read"
            );
            None
        }
        Err(_) => {
            tracing::warn!("a model's description does not come in time");
            None
        }
    }
}

fn misfit(model: &Config, training: &Training) -> Option<FieldError> {
    let encodes = model.architecture.is_encoder();
    let problem = match (encodes, training.classifies()) {
        (true, true) | (false, false) => return None,
        (true, false) => {
            "the model is an encoder, which classifies and writes nothing: give the classes, or a decoder such as a Llama"
        }
        (false, true) => {
            "the model is a decoder, which has no classification head: leave labels out and have its words counted with \
             evaluation.choices, or give an encoder such as BERT"
        }
    };
    Some(FieldError {
        field: "training.labels".to_owned(),
        problem: problem.to_owned(),
    })
}

//! What a model's files say of it, without reading its weights.

use std::fs;
use std::path::Path;

use domain::artifact::Digest;

use super::{Config, Error, Model, cache};
use crate::source::Source;
use crate::text::Tokenizer;

/// A model that is not loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspected {
    /// Its sizes.
    pub config: Config,
    /// Bytes of the files that hold its weights.
    pub bytes: u64,
}

impl Model {
    /// Reads the sizes of a model that [`Model::load`] would load.
    ///
    /// # Errors
    /// As [`Model::load`], as far as the weights are not looked at.
    pub fn inspect(path: &Path) -> Result<Inspected, Error> {
        let config = Source::open(path)?.config()?;
        let bytes = weight_bytes(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(Inspected { config, bytes })
    }

    /// The SHA-256 of those of all files that what the model there says depends on: weights and configuration, tokenizer
    /// and chat template. Reads every byte of them.
    ///
    /// # Errors
    /// There is no model, or a file cannot be read.
    pub fn digest_of(path: &Path) -> Result<Digest, Error> {
        let source = Source::open(path)?;
        let mut files = source.files();
        // A GGUF file has its tokenizer in it.
        files.extend(source.folder().map(Tokenizer::files_of).unwrap_or_default());
        let identity = cache::identity_of(&files).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(Digest::from_bytes(&identity))
    }
}

impl Config {
    /// The sizes of a model from the beginning of one of its files: the whole `config.json`, or a GGUF file as
    /// far as the data of its tensors.
    ///
    /// # Errors
    /// It is cut short or damaged, or a model that [`Model::load`] would refuse.
    pub fn of_start(file_name: &str, start: &[u8]) -> Result<Self, Error> {
        Source::config_of_start(file_name, start)
    }
}

fn weight_bytes(path: &Path) -> std::io::Result<u64> {
    if path.is_file() {
        return Ok(fs::metadata(path)?.len());
    }
    // As a source is opened: with a configuration it is a folder of safetensors, else of one GGUF.
    let wanted = if path.join("config.json").is_file() {
        "safetensors"
    } else {
        "gguf"
    };
    let mut total = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let is_wanted = entry.path().extension().is_some_and(|own| own == wanted);
        if is_wanted {
            // Follows links: caches of models are full of them.
            total += fs::metadata(entry.path())?.len();
        }
    }
    Ok(total)
}

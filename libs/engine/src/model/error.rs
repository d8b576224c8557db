//! Why a model cannot be loaded.

use std::io;
use std::path::PathBuf;

use super::Architecture;
use crate::{text, threads};

/// Why a model cannot be loaded. None of these is worth a retry with the same file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder holds neither `config.json` nor exactly one GGUF file.
    #[error("{} holds no config.json and {gguf_files} gguf files, where exactly one is needed", path.display())]
    NoModel {
        /// The folder.
        path: PathBuf,
        /// How many GGUF files it holds.
        gguf_files: usize,
    },
    /// The file does not begin as a model file does.
    #[error("{} is not a model file: it begins with the wrong bytes", path.display())]
    Magic {
        /// The file.
        path: PathBuf,
    },
    /// The description at the file's beginning is damaged or cut short.
    #[error("the header of {} is damaged or cut short", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file ends inside a tensor.
    #[error("{} is cut short at byte {bytes}: {missing_bytes} bytes of tensor {name} are missing", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Where the file ends.
        bytes: u64,
        /// How many bytes are missing.
        missing_bytes: u64,
    },
    /// A tensor that the architecture needs is not there.
    #[error("tensor {name} is missing")]
    Missing {
        /// The tensor, as the file's format calls it.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor, as the file's format calls it.
        name: String,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// Another family of models.
    #[error(
        "unsupported architecture {found:?}; supported: {}",
        Architecture::supported()
    )]
    Architecture {
        /// What the file says.
        found: String,
    },
    /// A model with something this engine does not compute.
    #[error("unsupported: {what}")]
    Feature {
        /// What it is.
        what: String,
    },
    /// A setting is missing, has the wrong type or an impossible value.
    #[error("the model's setting {key} is missing or impossible")]
    Setting {
        /// Its key.
        key: String,
    },
    /// A weight that is to be held in fewer bits is no number, or far too large to be a weight.
    #[error("tensor {name} holds a value that is infinite, not a number, or too large for bf16")]
    Value {
        /// The tensor, as the file's format calls it.
        name: String,
    },
    /// A tensor's bytes cannot be decoded.
    #[error("cannot decode a tensor")]
    Decode(#[source] candle_core::Error),
    /// The tokenizer cannot be read.
    #[error("cannot read the model's tokenizer")]
    Tokenizer(#[source] text::Error),
    /// The compute threads cannot be started.
    #[error(transparent)]
    Threads(#[from] threads::Error),
}

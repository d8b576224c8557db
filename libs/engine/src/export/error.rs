//! Why an export did not happen.

use std::io;
use std::path::PathBuf;

use crate::{adapter, compute, model, text, threads};

/// Why an export did not happen. Whatever it is, nothing is left in the folder that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something is there already and was not to be replaced.
    #[error("{} is there already", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The model cannot be read.
    #[error("cannot use the model")]
    Model(#[from] model::Error),
    /// The adapter cannot be read.
    #[error("cannot use the adapter")]
    Adapter(#[from] adapter::Error),
    /// An encoder in a format that has none.
    #[error(
        "an encoder's adapter is exported as peft or merged: gguf has neither encoders nor their heads here"
    )]
    Encoder,
    /// Names of classes that are not those of the head.
    #[error(
        "there are {labels} labels, and the classification head tells {classes} classes apart: give one for each, in its \
         order"
    )]
    Labels {
        /// How many were given.
        labels: usize,
        /// Classes of the head.
        classes: usize,
    },
    /// Names of classes for a model that tells none apart.
    #[error("labels name the classes of an encoder's head, and this model is a decoder")]
    NoClasses,
    /// The tokenizer cannot be said in the format.
    #[error("cannot export the tokenizer")]
    Tokenizer(#[from] text::Error),
    /// The format does not have this precision.
    #[error("{format} has no precision {precision}")]
    Precision {
        /// The format.
        format: &'static str,
        /// The precision.
        precision: &'static str,
    },
    /// A value is too large for the precision that it is to be written in.
    #[error(
        "tensor {name} holds a value that is too large for {precision}; a wider precision holds it"
    )]
    TooLarge {
        /// The tensor, as the format calls it.
        name: String,
        /// The precision.
        precision: &'static str,
    },
    /// A tensor cannot be decoded or rounded.
    #[error("cannot round a tensor")]
    Round(#[source] candle_core::Error),
    /// The compute threads cannot be started.
    #[error(transparent)]
    Threads(#[from] threads::Error),
    /// A pass through the model did not finish.
    #[error(transparent)]
    Compute(#[from] compute::Error),
    /// What was written is damaged, or is not what is to be read back.
    #[error("what was written cannot be read back: {what}")]
    Damaged {
        /// What is wrong with it.
        what: String,
    },
    /// What was written and read back holds other weights than the engine computes with.
    #[error("tensor {name} is off by {off} when read back, at most {bound} is rounding")]
    Weight {
        /// The tensor, as the format calls it.
        name: String,
        /// The difference of the worst value.
        off: f32,
        /// What rounding explains.
        bound: f32,
    },
    /// What was written and read back gives other logits than the engine.
    #[error("logits differ by {off:.2e} of their norm when read back, the bound is {bound:.0e}")]
    Logits {
        /// The norm of the difference, relative to that of the engine's logits.
        off: f64,
        /// What is accepted.
        bound: f64,
    },
}

/// [`Error::Write`] of a path.
pub(super) fn unwritable(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    |source| Error::Write { path, source }
}

/// [`Error::Read`] of a path.
pub(super) fn unreadable(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    |source| Error::Read { path, source }
}

/// [`Error::Damaged`], said by somebody else.
pub(super) fn damaged(what: impl std::fmt::Display) -> Error {
    Error::Damaged {
        what: what.to_string(),
    }
}

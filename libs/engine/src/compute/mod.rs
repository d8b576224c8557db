//! Forward and backward through the whole model, block by block.
//!
//! Promises: the activations of a batch are flat `[tokens, width]`, rows one after another, so
//! that rows of different lengths cost what they hold; the control is consulted before every
//! block; the last normalization and the output layer are computed at labelled positions only.

mod activations;
mod backward;
mod change;
mod encoder;
mod forward;
mod gate;
mod head;
mod learn;
mod moved;
mod norm;
mod packed;
mod workspace;

pub(crate) use activations::Keep;
pub(crate) use backward::{Learn, Observe};
pub(crate) use change::Changes;
pub(crate) use encoder::{log_softmax, scores as class_scores};
pub(crate) use forward::{Cache, forward, forward_cached, forward_each};
pub(crate) use head::{log_probabilities, logits, scores_among, target_scores};
pub(crate) use learn::learn;
pub(crate) use moved::{Room, scores_along};
pub(crate) use packed::Packed;
pub(crate) use workspace::{Choice, Workspace, choose};

use backward::backward;
use head::loss_and_gradient;

use crate::control::Cancelled;

/// Why a computation did not finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The control was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A row has no tokens, or as many labels as it must not have.
    #[error("row {row} holds {tokens} tokens and {labels} labels")]
    Row {
        /// Index of the row in the batch.
        row: usize,
        /// Its tokens.
        tokens: usize,
        /// Its labels.
        labels: usize,
    },
    /// A row is longer than the model's context.
    #[error("row {row} has {tokens} tokens, the model's context is {context}")]
    TooLong {
        /// Index of the row in the batch.
        row: usize,
        /// Its tokens.
        tokens: usize,
        /// The longest sequence.
        context: usize,
    },
    /// A token id that the model does not have.
    #[error(
        "row {row} holds token {token}, and the model's vocabulary ends at {vocabulary}: its tokenizer is that of another model; give its folder \
         the tokenizer that came with it"
    )]
    Token {
        /// Index of the row in the batch.
        row: usize,
        /// The id.
        token: u32,
        /// Rows of the embedding table.
        vocabulary: usize,
    },
    /// The adapter changes a weight that the model does not have, or has in another shape.
    #[error("the adapter does not fit the model at {weight}")]
    Adapter {
        /// The weight.
        weight: domain::adapter::WeightName,
    },
    /// An encoder was asked for what decoders do.
    #[error("an encoder classifies, it does not {what}: give a decoder, such as a Llama")]
    Encoder {
        /// What it was asked for.
        what: &'static str,
    },
    /// A classification head that does not fit the model.
    #[error(
        "a classification head of width {width} does not fit the model: heads are for encoders of their own width"
    )]
    Head {
        /// Width of what the head reads.
        width: usize,
    },
    /// A classification head of another family of encoders.
    #[error(
        "a classification head of {head:?}'s kind does not fit the model, whose kind is {model:?}'s: give the adapter its own model"
    )]
    HeadFamily {
        /// Whose head it is.
        head: domain::adapter::Encoder,
        /// What the model is.
        model: domain::adapter::Encoder,
    },
    /// An encoder without a head.
    #[error(
        "the encoder has no classification head: give an adapter that has one, or train one for labels"
    )]
    NoHead,
    /// A row whose class the head does not have.
    #[error("row {row} is of class {class}, the head tells {classes} apart")]
    Class {
        /// Index of the row in the batch.
        row: usize,
        /// Its class.
        class: u32,
        /// Classes of the head.
        classes: usize,
    },
    /// A frozen tensor cannot be decoded.
    #[error("cannot decode a frozen tensor")]
    Decode(#[from] candle_core::Error),
}

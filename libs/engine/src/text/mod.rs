//! Words to token ids and back, and conversations to the text a model was taught to read.
//!
//! Promises: a tokenizer that comes with a model (a Hugging Face folder or GGUF metadata) gives the
//! ids that `transformers` gives; a pre-tokenizer this module does not know is an error, never a
//! guess; an id outside the vocabulary is an error, never silently dropped.
//!
//! Does not: train tokenizers, download anything, or read a clock (`strftime_now` in a chat
//! template stays undefined).

mod tokenizer;

mod folder;
mod gguf;
mod sentencepiece;

mod likeness;
mod to_folder;
mod to_gguf;
mod to_sentencepiece;

mod stream;

mod message;
mod tools;

mod chat;
mod left_out;
mod python_json;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use chat::ChatTemplate;
#[cfg(test)]
pub(crate) use chat::texts_made;
pub use left_out::LeftOut;
pub use message::{BadTurn, Message};
pub use stream::TextStream;
pub use tokenizer::Tokenizer;
pub use tools::{BadTools, Tools};

/// The error a third-party parser hands out.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why text could not become tokens, or tokens text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the model's folder is missing or unreadable.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A tokenizer that GGUF metadata cannot describe, or not in a way that is known here.
    #[error("the tokenizer cannot be written as gguf metadata: {what}")]
    NotInGguf {
        /// What stands in the way.
        what: &'static str,
    },
    /// A file was read and is not what its name promises.
    #[error("{what} is malformed")]
    Malformed {
        /// The file's name or the metadata key.
        what: String,
        /// What the parser said.
        source: Cause,
    },
    /// GGUF metadata lacks a key, or holds another type under it.
    #[error("gguf metadata has no usable {key}")]
    Metadata {
        /// The key, such as `tokenizer.ggml.tokens`.
        key: &'static str,
    },
    /// A kind of tokenizer whose ids this module cannot promise.
    #[error("gguf metadata names an unsupported {key}: {value}")]
    Unsupported {
        /// The key, such as `tokenizer.ggml.pre`.
        key: &'static str,
        /// What the file says.
        value: String,
    },
    /// Nothing says which token ends a sequence.
    #[error("the model names no end-of-sequence token")]
    NoEndToken,
    /// An id the vocabulary does not hold.
    #[error("token id {id} is outside the vocabulary of {vocabulary}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// How many ids there are.
        vocabulary: usize,
    },
    /// The tokenizer refused a text.
    #[error("cannot encode the text")]
    Encode(#[source] Cause),
    /// The tokenizer refused ids.
    #[error("cannot decode the tokens")]
    Decode(#[source] Cause),
    /// A conversation was given to a model that has no chat template.
    #[error("the model has no chat template")]
    NoChatTemplate,
    /// The chat template does not compile.
    #[error("the chat template is malformed")]
    Template(#[source] minijinja::Error),
    /// The chat template refuses a turn, or what came before it together with it.
    #[error("the chat template refuses turn {turn} of {turns}")]
    Turn {
        /// Its number, from 1.
        turn: usize,
        /// Turns of the conversation, as far as it is learned.
        turns: usize,
        /// What the template said.
        source: minijinja::Error,
    },
    /// The chat template has no words for what a conversation holds of tools.
    #[error(
        "the model's chat template leaves out {0}: give the model's folder a chat_template.jinja that renders tools, or write tools and calls as text into the contents"
    )]
    LeftOut(LeftOut),
    /// The chat template refuses these messages.
    #[error("the chat template refuses the messages")]
    Render(#[source] minijinja::Error),
}

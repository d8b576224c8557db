//! A site's records: found in a file, drawn in a stated order, and turned into rows of tokens.
//!
//! Promises: a file is never held in memory (of a record are 4 bytes, 5 where there are classes, and 4 more where records are
//! shuffled, as many where a part of them is drawn from or classes are balanced, and 8 in a [`Split`]); an unreadable record is
//! skipped, counted by reason and never shown; the answer a record teaches is never truncated; the
//! order of records is a pure function of seed, round, worker and step.
//!
//! Does not: pad, pack or make tensors (the trainer does), or let any text reach an error or a log.

mod blocks;
mod offsets;
mod record;
mod skipped;

mod dataset;
mod split;

mod sampler;

mod encode;
mod refusal;

mod classify;
mod conversation;
mod spans;
mod truncate;

mod choices;
mod preview;

mod question;

mod filler;
mod loader;
mod refusals;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use choices::Choices;
pub use dataset::{CLASS_BYTES, Dataset, OpenOptions};
pub use encode::{EncodeOptions, Encoder, LossOn, Verbalizer};
pub use filler::Filler;
pub use loader::{Loaded, Loader, Refused};
pub use preview::{Piece, Preview};
pub use question::Question;
pub use record::{Format, Record, Shape};
pub use refusal::Refusal;
pub use refusals::Refusals;
pub use sampler::{Balance, Draw, Order, Sampler, SamplerOptions, Seed};
pub use skipped::{Reason, Skipped};
pub use split::{Split, is_held_out};
pub use truncate::Truncate;

/// Rows for one optimizer step, of different lengths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The rows.
    pub rows: Vec<Row>,
}

/// One record as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Token ids `[tokens]`.
    pub tokens: Vec<u32>,
    /// `[tokens]`: whether this token is to be predicted from its predecessors. The first never is.
    pub labelled: Vec<bool>,
    /// The class of the whole row, where it is classified; no token carries loss then.
    pub class: Option<Class>,
    /// Which record of the data set this is.
    pub record: usize,
}

/// What a whole row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Which of the classes, counted from 0.
    pub number: u32,
    /// The token that says each class, where a decoder's next word is the answer; empty where an encoder's head knows them.
    pub words: Arc<[u32]>,
}

impl From<u32> for Class {
    /// A class of an encoder's head.
    fn from(number: u32) -> Self {
        let words = Arc::default();
        Self { number, words }
    }
}

impl Row {
    /// How many tokens carry loss.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.labelled.iter().filter(|labelled| **labelled).count()
    }
}

/// Why data could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing or unreadable.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something other than lines of text.
    #[error("{} is {found}; JSON lines or plain text in UTF-8 are read", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        found: &'static str,
    },
    /// Nothing in the file can be read as a record.
    #[error(
        "{} has no readable record ({skipped}): write plain text, or on each line JSON of text, prompt and completion, \
         messages, or text and label",
        path.display()
    )]
    NoRecords {
        /// The file.
        path: PathBuf,
        /// What was skipped, and why.
        skipped: Skipped,
    },
    /// A written limit: record numbers are 32 bits wide.
    #[error("{} has more than {} records", path.display(), u32::MAX)]
    TooManyRecords {
        /// The file.
        path: PathBuf,
    },
    /// A record number beyond the end.
    #[error("record {record} was asked of a data set of {records}")]
    NoSuchRecord {
        /// The number asked for.
        record: usize,
        /// How many there are.
        records: usize,
    },
    /// A record that was readable when the file was opened no longer is.
    #[error("record {record} changed since the data set was opened")]
    Changed {
        /// The record.
        record: usize,
    },
    /// There is nothing to draw from, or the batch is empty.
    #[error("a batch of {batch} cannot be drawn from {records} records")]
    NothingToDraw {
        /// Rows in a batch.
        batch: usize,
        /// Records to draw from.
        records: usize,
    },
    /// Balance was asked for and the records have no small set of labels or completions.
    #[error(
        "records cannot be balanced: that takes at most {} distinct labels, or at most {} distinct completions",
        domain::job::labels::LABEL_LIMIT,
        dataset::COMPLETION_LIMIT
    )]
    NoClasses,
    /// No record could be encoded, or the options suit none.
    #[error("records cannot be encoded")]
    Encode(#[from] Refusal),
}

//! What can go wrong on the bus, and whether trying again helps.

use std::error::Error as StdError;

use crate::advice::advice;

/// Any error of a library underneath.
pub(crate) type Source = Box<dyn StdError + Send + Sync>;

/// Whether the caller should try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The server may come back.
    Later,
    /// Read again, then decide anew: somebody else was faster.
    Reread,
    /// The same call fails for ever.
    Never,
}

/// What can go wrong on the bus.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot be reached, or did not answer in time.
    #[error("nats did not answer while it should {doing}")]
    Unavailable {
        /// What was attempted.
        doing: &'static str,
        /// What the library says.
        #[source]
        source: Source,
    },
    /// The configuration of the connection, or a file that it names, cannot be used.
    #[error("{why}")]
    Config {
        /// Which key, what is wrong with it, and what to do.
        why: String,
    },
    /// The server is away, or does not let this process in.
    #[error("cannot connect to nats at {url}")]
    Connect {
        /// Where.
        url: String,
        /// What the library says.
        #[source]
        source: Source,
    },
    /// Another process changed the value first.
    #[error("{key} was changed by somebody else")]
    Conflict {
        /// Which value.
        key: String,
    },
    /// A message cannot be read.
    #[error("cannot read what lies on {subject}")]
    Decode {
        /// Where it came from.
        subject: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// A value cannot be written.
    #[error("cannot write {what}")]
    Encode {
        /// Which kind of value.
        what: &'static str,
        /// Why.
        #[source]
        source: Source,
    },
    /// Larger than a message or value may be.
    #[error("{what} has {bytes} bytes, at most {limit} are sent")]
    TooLarge {
        /// Which kind of value.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// What is sent at most.
        limit: usize,
    },
}

impl Error {
    /// Whether the caller should try again.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } | Self::Connect { .. } => Retry::Later,
            Self::Conflict { .. } => Retry::Reread,
            Self::Decode { .. }
            | Self::Encode { .. }
            | Self::TooLarge { .. }
            | Self::Config { .. } => Retry::Never,
        }
    }

    /// What a person can do about it, where that is known.
    #[must_use]
    pub fn next(&self) -> Option<&'static str> {
        match self {
            Self::Connect { source, .. } => advice(&source.to_string()),
            _ => None,
        }
    }

    pub(crate) fn unavailable(doing: &'static str) -> impl FnOnce(Source) -> Self {
        move |source| Self::Unavailable { doing, source }
    }
}

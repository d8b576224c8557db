//! What can go wrong with the Hub, and whether trying again can help.

use domain::hub::Model;

use crate::Retry;

/// Why a model of the Hub is not here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error("the Hub is not configured: {why}")]
    Config {
        /// What to change.
        why: String,
    },
    /// The network or the server is away, or an answer broke off; our own attempts are used up.
    #[error("{endpoint} cannot be reached, or broke off")]
    Unreachable {
        /// Where the Hub is.
        endpoint: String,
        /// The transport's own error, without the address, which may carry a right.
        source: reqwest::Error,
    },
    /// The server has trouble of its own (5xx, 408, 429).
    #[error("{what}: the server answers {status}")]
    Failed {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
    },
    /// 401: so the Hub answers for what is not there as well.
    #[error(
        "{what} is shown to nobody without a right to it (401){said}: check the name, and {}",
        if *with_token { "whether HF_TOKEN is still good" } else { "set HF_TOKEN to a token that may read it" }
    )]
    Unauthorized {
        /// What was asked for.
        what: String,
        /// The server's own words.
        said: String,
        /// Whether a token was shown.
        with_token: bool,
    },
    /// 403: gated, or a token without the right.
    #[error(
        "{what} may not be read with {} (403){said}: ask for access, or accept its terms, on the model's page",
        if *with_token { "this token" } else { "no token" }
    )]
    Forbidden {
        /// What was asked for.
        what: String,
        /// The server's own words.
        said: String,
        /// Whether a token was shown.
        with_token: bool,
    },
    /// 404.
    #[error("{what} is not there (404){said}: check owner, name and revision")]
    NotFound {
        /// What was asked for.
        what: String,
        /// The server's own words.
        said: String,
    },
    /// Any other refusal.
    #[error("{what}: the server refuses it ({status}){said}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        said: String,
    },
    /// An answer that the Hub does not give.
    #[error("{what}: the server does not answer as the Hub does: {why}")]
    Protocol {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The answer ended early, again and again.
    #[error("{what} ended after {found} of {expected} bytes: call again, what came is kept")]
    Short {
        /// Which file.
        what: String,
        /// Bytes promised.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// The server does not have the rest of what it began (416).
    #[error("{what}: the server does not give what follows byte {from} (416)")]
    Range {
        /// Which file.
        what: String,
        /// Where it should have gone on.
        from: u64,
    },
    /// Content is not what the Hub said it would be; nothing of it was kept.
    #[error(
        "{what} is corrupt: it has the digest {found} instead of {expected}; nothing of it was kept"
    )]
    Digest {
        /// Which file.
        what: String,
        /// As the Hub said.
        expected: String,
        /// As it came.
        found: String,
    },
    /// There is nothing there that can be loaded, or too much.
    #[error("{model} cannot be used: {why}")]
    NoModel {
        /// Which.
        model: Model,
        /// What is missing, or what to choose from.
        why: String,
    },
    /// A model that is to be fetched has no commit.
    #[error("{model} names no commit, and may be another model tomorrow")]
    Unpinned {
        /// Which.
        model: Model,
    },
    /// It took too long; what came is kept.
    #[error("{model} was not here after {seconds} s: call again, what came is kept")]
    TimedOut {
        /// Which.
        model: Model,
        /// The limit.
        seconds: u64,
    },
}

impl Error {
    /// Whether the same call can succeed later.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. }
            | Self::Failed { .. }
            | Self::Short { .. }
            | Self::Range { .. }
            | Self::TimedOut { .. } => Retry::Later,
            Self::Config { .. }
            | Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::Protocol { .. }
            | Self::Digest { .. }
            | Self::NoModel { .. }
            | Self::Unpinned { .. } => Retry::Never,
        }
    }
}

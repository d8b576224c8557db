//! What can go wrong with storage, and whether trying again can help.
//!
//! Every cause that somebody would treat differently has its own variant; texts say what to do.
//! Sources are kept in the chain and never repeated in the text.

use std::io;
use std::path::{Path, PathBuf};

use domain::artifact::Digest;

use crate::classify::is_full;
use crate::manifest;

/// What lies below an error of storage.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Whether the same call can succeed later without anybody changing the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The cause passes (network, a full disk): call again, what was transferred is kept.
    Later,
    /// The request or what is stored is wrong: calling again gives the same answer.
    Never,
}

/// Why a call to storage failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The network or the server is away; our own attempts, up to 20 s of them, are used up.
    #[error("storage at {place} cannot be reached or does not answer")]
    Unreachable {
        /// The configured url.
        place: String,
        /// The transport's own error.
        source: Source,
    },
    /// The server's certificate is not one that we trust for this host.
    #[error(
        "storage at {place} shows a certificate that is not trusted: check ca_file and endpoint"
    )]
    Untrusted {
        /// The configured url.
        place: String,
        /// What is wrong with the certificate.
        source: Source,
    },
    /// The server answered that it has trouble of its own (5xx, 408, 429).
    #[error("storage failed on `{key}`")]
    Failed {
        /// What was asked for.
        key: String,
        /// The server's own words.
        source: Source,
    },
    /// No space on the disk that was written to, or a quota is used up.
    #[error("no space left to write {place}: free some and call again, what is there is kept")]
    Full {
        /// A key in storage, or a local path.
        place: String,
        /// The system's own error.
        source: Source,
    },
    /// A folder that we bound ourselves (cache, spool) cannot take it now.
    #[error("{place} is limited to {limit} bytes, {used} are in use and {needed} more are needed")]
    NoRoom {
        /// The folder.
        place: String,
        /// Bytes that would have to fit.
        needed: u64,
        /// Bytes that cannot be given up.
        used: u64,
        /// The configured limit, in bytes.
        limit: u64,
    },
    /// Wrong keys, or keys that may not touch this key.
    #[error("storage denies access to `{key}`: check access_key, secret_key and what they may do")]
    Denied {
        /// What was asked for.
        key: String,
        /// The server's own words.
        source: Source,
    },
    /// The control plane does not let this worker do it.
    #[error("the control plane does not grant `{key}`: {}", refusal.reason)]
    NotGranted {
        /// What was asked for.
        key: String,
        /// What was refused, and why.
        refusal: domain::grant::Refusal,
    },
    /// Storage does not take a URL that was signed a moment ago.
    #[error(
        "storage does not take the URL signed for `{key}`: check the api's clock, its keys and storage.urls.endpoint"
    )]
    UrlRefused {
        /// What was asked for.
        key: String,
        /// The server's own words.
        source: Source,
    },
    /// No URL can be signed for what lies here.
    #[error(
        "objects do not lie in S3, so no URLs can be signed: give each worker its own [storage]"
    )]
    NoUrls,
    /// The bucket of the url is not there.
    #[error("bucket `{bucket}` does not exist: create it, or correct the url of the storage")]
    BucketMissing {
        /// Its name.
        bucket: String,
    },
    /// The server refuses the request as such (4xx, a redirect, a local file system's refusal).
    #[error("storage refuses `{key}`: check url, endpoint, region and permissions")]
    Refused {
        /// What was asked for.
        key: String,
        /// The server's own words.
        source: Source,
    },
    /// There is no such object.
    #[error("`{key}` is not in storage")]
    NotFound {
        /// What was asked for.
        key: String,
    },
    /// Content is not what its name says.
    #[error("`{key}` is corrupt: it contains {found} instead of {expected}")]
    Corrupt {
        /// The part, artifact or local file.
        key: String,
        /// The digest it should have.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// Content is longer or shorter than promised.
    #[error("`{key}` has {found} bytes instead of {expected}")]
    WrongLength {
        /// The object.
        key: String,
        /// Bytes promised.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// More than the caller allows; nothing of it was fetched.
    #[error("`{key}` has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// The artifact.
        key: String,
        /// Its length.
        bytes: u64,
        /// What the caller allows.
        limit: u64,
    },
    /// A manifest that cannot be true.
    #[error("the manifest `{key}` is not valid")]
    Manifest {
        /// Its key.
        key: String,
        /// What is wrong with it.
        source: manifest::Error,
    },
    /// A key that could leave its prefix, or that storage would spell differently.
    #[error("`{key}` is not a key: use letters, digits, `.`, `_`, `-` and single slashes, no `..`")]
    InvalidKey {
        /// The text.
        key: String,
    },
    /// The settings cannot be used.
    #[error("storage is not configured: {why}")]
    Config {
        /// What to change.
        why: String,
    },
    /// A local file changed while it was uploaded.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A local file or folder cannot be used, or the file system that objects lie on.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file, or the object's key.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// The Hub refuses, or does not answer.
    #[error(transparent)]
    Hub(#[from] crate::hub::Error),
    /// The transfer's token was cancelled; what was transferred is kept.
    #[error("the transfer was cancelled")]
    Cancelled,
}

impl Error {
    /// Whether the same call can succeed later.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Hub(error) => error.retry(),
            Self::Unreachable { .. }
            | Self::Failed { .. }
            | Self::Full { .. }
            | Self::NoRoom { .. }
            | Self::Changed { .. } => Retry::Later,
            Self::Untrusted { .. }
            | Self::Denied { .. }
            | Self::NotGranted { .. }
            | Self::UrlRefused { .. }
            | Self::NoUrls
            | Self::BucketMissing { .. }
            | Self::Refused { .. }
            | Self::NotFound { .. }
            | Self::Corrupt { .. }
            | Self::WrongLength { .. }
            | Self::TooLarge { .. }
            | Self::Manifest { .. }
            | Self::InvalidKey { .. }
            | Self::Config { .. }
            | Self::Io { .. }
            | Self::Cancelled => Retry::Never,
        }
    }

    /// An error of the local file system at `path`.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        if is_full(&source) {
            Self::Full {
                place: path.display().to_string(),
                source: source.into(),
            }
        } else {
            Self::Io {
                path: path.to_owned(),
                source,
            }
        }
    }
}

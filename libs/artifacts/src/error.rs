//! What can go wrong with storage, and whether trying again can help.
//!
//! Every cause that somebody would treat differently has its own variant; texts say what to do.
//! Sources are kept in the chain and never repeated in the text.

use std::io;
use std::path::{Path, PathBuf};

use domain::artifact::Digest;
use object_store::client::{HttpError, HttpErrorKind};

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
    /// A local file or folder cannot be used.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// The transfer's token was cancelled; what was transferred is kept.
    #[error("the transfer was cancelled")]
    Cancelled,
}

impl Error {
    /// Whether the same call can succeed later.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. }
            | Self::Failed { .. }
            | Self::Full { .. }
            | Self::NoRoom { .. }
            | Self::Changed { .. } => Retry::Later,
            Self::Untrusted { .. }
            | Self::Denied { .. }
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

    /// An error of `object_store`, asked about `key` in the storage at `place`.
    pub(crate) fn storage(place: &Place, key: &str, error: object_store::Error) -> Self {
        let key = key.to_owned();
        // object_store keeps a server's answer in private types; its text is all that is public.
        let answer = error.to_string();
        if chain(&error).any(|e| e.downcast_ref().is_some_and(is_full)) || says_full(&answer) {
            return Self::Full {
                place: format!("`{key}`"),
                source: error.into(),
            };
        }
        if answer.contains("NoSuchBucket") {
            return Self::BucketMissing {
                bucket: place.bucket.clone(),
            };
        }
        match &error {
            object_store::Error::NotFound { .. } => return Self::NotFound { key },
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => {
                return Self::Denied {
                    key,
                    source: error.into(),
                };
            }
            _ => {}
        }
        match status(&answer) {
            Some(401 | 403) => {
                return Self::Denied {
                    key,
                    source: error.into(),
                };
            }
            Some(408 | 429 | 500..) => {
                return Self::Failed {
                    key,
                    source: error.into(),
                };
            }
            Some(_) => {
                return Self::Refused {
                    key,
                    source: error.into(),
                };
            }
            None => {}
        }
        if chain(&error).any(|e| e.downcast_ref().is_some_and(is_untrusted)) {
            return Self::Untrusted {
                place: place.url.clone(),
                source: error.into(),
            };
        }
        let transport = chain(&error).find_map(|e| e.downcast_ref::<HttpError>());
        match transport.map(HttpError::kind) {
            Some(HttpErrorKind::Decode) => Self::Failed {
                key,
                source: error.into(),
            },
            Some(_) => Self::Unreachable {
                place: place.url.clone(),
                source: error.into(),
            },
            None => Self::Refused {
                key,
                source: error.into(),
            },
        }
    }
}

/// What errors say about where they happened.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub url: String,
    pub bucket: String,
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |e| e.source())
}

fn is_full(error: &io::Error) -> bool {
    let full = |kind| {
        matches!(
            kind,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    };
    full(error.kind()) || within::<io::Error>(error).is_some_and(is_full)
}

fn is_untrusted(error: &io::Error) -> bool {
    let tls = within::<rustls::Error>(error);
    tls.is_some_and(|tls| matches!(tls, rustls::Error::InvalidCertificate(_)))
        || within::<io::Error>(error).is_some_and(is_untrusted)
}

/// What an io error was made around; the chain leaves it out, as it goes on with its source.
fn within<T: std::error::Error + 'static>(error: &io::Error) -> Option<&T> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn says_full(answer: &str) -> bool {
    [
        "InsufficientStorage",
        "XMinioStorageFull",
        "QuotaExceeded",
        "no space left on device",
    ]
    .iter()
    .any(|code| answer.contains(code))
        || status(answer) == Some(507)
}

/// The HTTP status that object_store's text names.
fn status(answer: &str) -> Option<u16> {
    if answer.contains("Received redirect without LOCATION") {
        return Some(301);
    }
    let (_, rest) = answer.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            url: "s3://bucket".into(),
            bucket: "bucket".into(),
        }
    }

    fn generic(source: impl Into<Source>) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: source.into(),
        }
    }

    #[test]
    fn a_full_disk_is_typed_and_resumable_wherever_it_is_in_the_chain() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let deep = generic(io::Error::other(io::Error::from(kind)));
            for error in [
                Error::storage(&place(), "k", generic(io::Error::from(kind))),
                Error::storage(&place(), "k", deep),
                Error::io(Path::new("/x"), io::Error::from(kind)),
            ] {
                assert!(matches!(error, Error::Full { .. }), "{error:?}");
                assert_eq!(error.retry(), Retry::Later);
            }
        }
        let error = Error::io(Path::new("/x"), io::Error::from_raw_os_error(28));
        assert!(matches!(error, Error::Full { .. }), "ENOSPC: {error:?}");
    }

    #[test]
    fn answers_of_a_server_are_sorted_by_what_helps() {
        let check = |text: &str, later: bool, name: &str| {
            let error = Error::storage(&place(), "k", generic(text));
            assert_eq!(error.retry() == Retry::Later, later, "{error:?}");
            assert!(format!("{error:?}").starts_with(name), "{error:?}");
        };
        let status = |s: &str| format!("Server returned non-2xx status code: {s}");
        check(
            &status("403 Forbidden: <Code>SignatureDoesNotMatch</Code>"),
            false,
            "Denied",
        );
        check(&status("500 Internal Server Error: "), true, "Failed");
        check(&status("503 Service Unavailable: "), true, "Failed");
        check(&status("507 Insufficient Storage: "), true, "Full");
        check(
            &status("400 Bad Request: <Code>QuotaExceeded</Code>"),
            true,
            "Full",
        );
        check(&status("400 Bad Request: "), false, "Refused");
        check(
            &status("404 Not Found: <Code>NoSuchBucket</Code>"),
            false,
            "BucketMissing",
        );
        check(
            "Received redirect without LOCATION, wrong region",
            false,
            "Refused",
        );
        check("anything else", false, "Refused");
    }

    #[test]
    fn a_broken_transport_is_worth_another_call() {
        let http = HttpError::new(HttpErrorKind::Connect, io::Error::other("refused"));
        let error = Error::storage(&place(), "k", generic(http));
        assert!(matches!(error, Error::Unreachable { .. }));
        assert_eq!(error.retry(), Retry::Later);
    }

    #[test]
    fn a_certificate_that_is_not_trusted_stays_so() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let deep = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls));
        let http = HttpError::new(HttpErrorKind::Connect, deep);
        let error = Error::storage(&place(), "k", generic(http));
        assert!(matches!(error, Error::Untrusted { .. }), "{error:?}");
        assert_eq!(error.retry(), Retry::Never);
        assert!(error.to_string().contains("ca_file"));
    }
}

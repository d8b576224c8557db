//! Sorts what `object_store` reports into [`Error`]s.
//!
//! object_store keeps a server's answer in private types, so an HTTP status and an S3 error code are
//! read from its text, and everything else from the types in its chain.

use std::io;

use object_store::client::{HttpError, HttpErrorKind};

use crate::Error;
use crate::granted::Fault;

/// What errors say about where they happened.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub url: String,
    pub bucket: String,
}

impl Error {
    /// What only storage behind signed URLs reports; anything else is given back.
    fn through_url(
        place: &Place,
        key: &str,
        error: object_store::Error,
    ) -> Result<Self, object_store::Error> {
        let fault = chain(&error).find_map(|e| e.downcast_ref::<Fault>());
        match fault {
            Some(Fault::Refused(refusal)) => Ok(Self::NotGranted {
                key: key.to_owned(),
                refusal: refusal.clone(),
            }),
            Some(Fault::InTheClear) => {
                let why = "the api signs URLs that are http://, which sends data in the clear: set storage.allow_http";
                Ok(Self::Config { why: why.into() })
            }
            Some(Fault::Away(_)) => Ok(Self::Unreachable {
                place: "the api, which signs URLs,".into(),
                source: error.into(),
            }),
            Some(Fault::Broken) => Ok(Self::Unreachable {
                place: place.url.clone(),
                source: error.into(),
            }),
            Some(Fault::Answer {
                status: 401 | 403, ..
            }) => Ok(Self::UrlRefused {
                key: key.to_owned(),
                source: error.into(),
            }),
            _ => Err(error),
        }
    }

    /// An error of `object_store`, asked about `key` in the storage at `place`.
    pub(crate) fn storage(place: &Place, key: &str, error: object_store::Error) -> Self {
        let key = key.to_owned();
        let error = match Self::through_url(place, &key, error) {
            Ok(known) => return known,
            Err(error) => error,
        };
        // Whoever names an object may not choose what storage seems to say of it.
        let answer = error.to_string().replace(&key, "");
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
            None => Self::below(key, error),
        }
    }

    /// An error from below that is no server's: that of a file system has nothing to do with the object, unless it
    /// speaks of the object's own file.
    fn below(key: String, error: object_store::Error) -> Self {
        let system = chain(&error).find_map(|e| e.downcast_ref::<io::Error>());
        match system.map(io::Error::kind) {
            Some(kind) if !speaks_of_the_file(kind) => Self::Io {
                path: key.into(),
                source: io::Error::new(kind, error),
            },
            _ => Self::Refused {
                key,
                source: error.into(),
            },
        }
    }
}

const fn speaks_of_the_file(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
    )
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |e| e.source())
}

pub(crate) fn is_full(error: &io::Error) -> bool {
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
    use std::path::Path;

    use super::*;
    use crate::Retry;
    use crate::error::Source;

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

    /// The key is the site's to choose, and stands in what is said of it.
    #[test]
    fn the_name_of_an_object_says_nothing_of_the_storage() {
        for key in ["u/NoSuchBucket", "u/QuotaExceeded", "u/status 503"] {
            let error = object_store::Error::NotFound {
                path: key.to_owned(),
                source: format!("no such object: {key}").into(),
            };
            let error = Error::storage(&place(), key, error);
            assert!(matches!(error, Error::NotFound { .. }), "{key}: {error:?}");
        }
    }

    #[test]
    fn answers_of_a_server_are_sorted_by_what_helps() {
        let check = |text: &str, later: bool, name: &str| {
            let error = Error::storage(&place(), "jobs/k", generic(text));
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
    fn a_file_system_in_trouble_does_not_refuse_the_object_that_was_asked_for() {
        let check = |number: i32, name: &str| {
            let system = io::Error::from_raw_os_error(number);
            let error = Error::storage(&place(), "k", generic(system));
            assert!(format!("{error:?}").starts_with(name), "{error:?}");
        };
        let (eio, emfile, eacces, enotdir) = (5, 24, 13, 20);
        check(eio, "Io");
        check(emfile, "Io");
        check(eacces, "Refused");
        check(enotdir, "Refused");
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

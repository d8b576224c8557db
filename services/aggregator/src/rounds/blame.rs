//! Whose fault it is that an update cannot be fetched: its site's only where its own object shows it.

use std::mem::discriminant;
use std::path::PathBuf;

use artifacts::Error as Storage;
use bus::Retry;
use bus::drive::error_chain;
use domain::artifact::ArtifactRef;

use crate::Error;

/// The update's file after all, or why it is refused. `ours` looks up `start`, what its site started from, which we
/// stored ourselves; `again` fetches the update once more.
///
/// # Errors
/// If `error` says nothing of the update: our disk, our keys, our settings, or storage at large. None of it ends the job.
pub async fn fetched_or_blamed(
    error: Storage,
    (start, ours): (&ArtifactRef, impl Future<Output = Result<(), Error>>),
    again: impl Future<Output = Result<PathBuf, Error>>,
) -> Result<Result<PathBuf, String>, Error> {
    if shows_the_object(&error) {
        return Ok(Err(error_chain(&error)));
    }
    if !may_show_the_object(&error) {
        return Err(waits(error.into(), ""));
    }
    if let Err(also) = ours.await {
        let nor = format!("nor can what it started from, `{}`: ", start.key);
        return Err(waits(also, &nor));
    }
    // What kept both from us may have passed in between.
    match again.await {
        Ok(path) => Ok(Ok(path)),
        Err(Error::Storage(found)) if shows_the_object(&found) || is_alike(&found, &error) => {
            Ok(Err(error_chain(&found)))
        }
        Err(other) => Err(waits(other, "")),
    }
}

/// What is wrong lies in the object itself.
const fn shows_the_object(error: &Storage) -> bool {
    matches!(
        error,
        Storage::Corrupt { .. }
            | Storage::WrongLength { .. }
            | Storage::TooLarge { .. }
            | Storage::Manifest { .. }
            | Storage::InvalidKey { .. }
    )
}

/// So storage answers for one object that is not right, and for all of them once our keys have run out or its disk is
/// not mounted. If what we stored is given, it is the one. A file system below it names the object's key, which is no
/// absolute path, as all files of our own are.
fn may_show_the_object(error: &Storage) -> bool {
    match error {
        Storage::NotFound { .. } | Storage::Denied { .. } | Storage::Refused { .. } => true,
        Storage::Io { path, .. } => path.is_relative(),
        _ => false,
    }
}

fn is_alike(one: &Storage, other: &Storage) -> bool {
    discriminant(one) == discriminant(other)
}

/// Whoever runs storage can mend what it says of us, and a job of days is not given up for it.
fn waits(error: Error, before: &str) -> Error {
    match error.retry() {
        Retry::Later | Retry::Reread => error,
        Retry::Never => Error::Unfetched {
            why: format!("{before}{}", error_chain(&error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use artifacts::manifest;
    use domain::artifact::Digest;

    use super::*;

    /// What tells of the object alone.
    fn of_the_object() -> [Storage; 5] {
        let key = String::new;
        let digest = |byte| Digest::from_bytes(&[byte; 32]);
        [
            Storage::Corrupt {
                key: key(),
                expected: digest(1),
                found: digest(2),
            },
            Storage::WrongLength {
                key: key(),
                expected: 1,
                found: 2,
            },
            Storage::TooLarge {
                key: key(),
                bytes: 2,
                limit: 1,
            },
            Storage::Manifest {
                key: key(),
                source: manifest::Error::NotCanonical,
            },
            Storage::InvalidKey { key: key() },
        ]
    }

    /// What tells of one object, or of all.
    fn of_one_or_all() -> [Storage; 4] {
        let key = String::new;
        [
            Storage::NotFound { key: key() },
            Storage::Denied {
                key: key(),
                source: "403".into(),
            },
            Storage::Refused {
                key: key(),
                source: "400".into(),
            },
            Storage::Io {
                path: "jobs/j/updates/a/1/x".into(),
                source: std::io::Error::from_raw_os_error(5),
            },
        ]
    }

    /// What tells of us.
    fn of_ours() -> [Storage; 5] {
        let place = String::new;
        [
            Storage::Io {
                path: "/spool".into(),
                source: std::io::Error::from_raw_os_error(5),
            },
            Storage::Untrusted {
                place: place(),
                source: "expired".into(),
            },
            Storage::BucketMissing { bucket: place() },
            Storage::Full {
                place: place(),
                source: "no space left".into(),
            },
            Storage::Cancelled,
        ]
    }

    fn start() -> ArtifactRef {
        ArtifactRef {
            key: "jobs/j/global/x.manifest".to_owned(),
            sha256: Digest::from_bytes(&[1; 32]),
            bytes: 1,
        }
    }

    async fn judged(
        error: Storage,
        ours: Result<(), Error>,
        again: Result<PathBuf, Error>,
    ) -> Result<Result<PathBuf, String>, Error> {
        let ours = std::future::ready(ours);
        fetched_or_blamed(error, (&start(), ours), std::future::ready(again)).await
    }

    fn file() -> Result<PathBuf, Error> {
        Ok("/spool/update".into())
    }

    /// It costs neither the site nor the job anything.
    #[track_caller]
    fn check_waits(judged: Result<Result<PathBuf, String>, Error>) -> String {
        let error = judged.expect_err("nobody is to blame");
        assert_eq!(error.retry(), Retry::Later, "{error:?}");
        error_chain(&error)
    }

    #[tokio::test]
    async fn a_site_is_blamed_for_what_its_own_object_shows() {
        for error in of_the_object() {
            let ours = Err(Storage::Cancelled.into());
            let judged = judged(error, ours, file()).await;
            assert!(matches!(judged, Ok(Err(_))), "{judged:?}");
        }
        for (error, found) in of_one_or_all().into_iter().zip(of_one_or_all()) {
            let judged = judged(error, Ok(()), Err(found.into())).await;
            assert!(matches!(judged, Ok(Err(_))), "{judged:?}");
        }
        for (error, found) in of_one_or_all().into_iter().zip(of_the_object()) {
            let judged = judged(error, Ok(()), Err(found.into())).await;
            assert!(matches!(judged, Ok(Err(_))), "{judged:?}");
        }
    }

    #[tokio::test]
    async fn a_site_is_not_blamed_for_what_has_passed_when_it_is_asked_for_again() {
        for error in of_one_or_all() {
            let judged = judged(error, Ok(()), file()).await;
            assert_eq!(judged.expect("it is fetched"), Ok("/spool/update".into()));
        }
        let [gone, denied, refused, _] = of_one_or_all();
        check_waits(judged(gone, Ok(()), Err(denied.into())).await);
        check_waits(judged(refused, Ok(()), Err(Storage::Cancelled.into())).await);
    }

    #[tokio::test]
    async fn neither_site_nor_job_ends_with_what_storage_says_of_us() {
        let [gone, denied, refused, _] = of_one_or_all();
        for (error, also) in of_one_or_all().into_iter().zip([gone, denied, refused]) {
            let said = check_waits(judged(error, Err(also.into()), file()).await);
            assert!(said.contains(&start().key), "{said}");
        }
        for error in of_ours() {
            check_waits(judged(error, Ok(()), file()).await);
        }
        for (error, also) in of_one_or_all().into_iter().zip(of_ours()) {
            check_waits(judged(error, Err(also.into()), file()).await);
        }
    }
}

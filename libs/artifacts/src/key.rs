//! Keys in storage: a small alphabet, so that a key is spelled alike on disk, in S3 and in a URL.

use object_store::path::Path;

use crate::Error;

/// Longest key, in bytes; S3 allows 1024.
const KEY_BYTES: usize = 1000;

/// A key as storage spells it.
///
/// # Errors
/// [`Error::InvalidKey`] for whatever could leave its prefix, is empty, or would be escaped.
pub(crate) fn parse(text: &str) -> Result<Path, Error> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let segment = |s: &str| !matches!(s, "" | "." | "..") && s.chars().all(legal);
    if text.len() <= KEY_BYTES && text.split('/').all(segment) {
        Ok(Path::from(text))
    } else {
        Err(Error::InvalidKey {
            key: text.chars().take(200).collect(),
        })
    }
}

/// The key of the object with this name under `prefix`.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    format!("{prefix}/{name}")
}

/// The prefix that `key` lies under.
///
/// # Errors
/// [`Error::InvalidKey`] if it lies under none.
pub(crate) fn parent(key: &str) -> Result<&str, Error> {
    match key.rsplit_once('/') {
        Some((prefix, _)) => Ok(prefix),
        None => Err(Error::InvalidKey {
            key: key.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legal_key_is_spelled_as_given() {
        let key = "jobs/job_01/updates/site-a/ab12.manifest";
        assert_eq!(parse(key).unwrap().as_ref(), key);
    }

    #[test]
    fn what_could_leave_its_prefix_is_refused() {
        let long = "a".repeat(1001);
        for key in [
            "", "/a", "a/", "a//b", "..", "a/../b", "a/./b", "a b", "a#1", "ä", "a\\b", &long,
        ] {
            assert!(parse(key).is_err(), "{key}");
        }
    }
}

//! The two digests by which the Hub names what a file contains: SHA-256 for large files, and for small ones git's
//! own name of a blob, the SHA-1 of its length and its content.

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// What a file must turn out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// Large files.
    Sha256(String),
    /// Small files.
    GitBlob(String),
}

impl Expected {
    /// Reads an entity tag; which of the two it is shows in its length.
    pub(super) fn of_tag(tag: &str) -> Option<Self> {
        let hex = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
        let digits = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match (hex.len(), digits) {
            (64, true) => Some(Self::Sha256(hex.to_owned())),
            (40, true) => Some(Self::GitBlob(hex.to_owned())),
            _ => None,
        }
    }

    /// The digest in hexadecimal.
    pub(super) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }

    /// What computes it of a file of so many bytes.
    pub(super) fn hasher(&self, bytes: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::GitBlob(_) => Hasher::Git(Sha1::new_with_prefix(format!("blob {bytes}\0"))),
        }
    }
}

/// Computes one of the two.
#[derive(Clone)]
pub(super) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => hex::encode(hasher.finalize()),
            Self::Git(hasher) => hex::encode(hasher.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_has_the_name_that_git_gives_it() {
        // printf 'hello\n' | git hash-object --stdin
        let tag = "\"ce013625030ba8dba906f756967f9e9ca394464a\"";
        let expected = Expected::of_tag(tag).unwrap();
        let mut hasher = expected.hasher(6);
        hasher.update(b"hel");
        hasher.update(b"lo\n");
        assert_eq!(hasher.finish(), expected.hex());
    }

    #[test]
    fn a_large_file_is_named_by_its_content_alone() {
        // printf 'hello\n' | sha256sum
        let tag = "W/\"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\"";
        let expected = Expected::of_tag(tag).unwrap();
        let mut hasher = expected.hasher(6);
        hasher.update(b"hello\n");
        assert_eq!(hasher.finish(), expected.hex());
    }

    #[test]
    fn a_tag_that_is_no_digest_is_none() {
        for tag in [
            "",
            "\"\"",
            "\"abc\"",
            "\"2c-5f\"",
            &"g".repeat(40),
            &"A".repeat(64),
        ] {
            assert_eq!(Expected::of_tag(tag), None, "{tag}");
        }
    }
}

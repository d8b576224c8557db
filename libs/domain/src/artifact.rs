//! A reference to bytes in object storage, named by what they contain.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 lower-case hexadecimal digits, not {0:?}")]
pub struct InvalidDigest(String);

/// The SHA-256 of some content, printed as `sha256:<64 hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of 32 bytes that a hasher returned.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in bytes {
            // Invariant: writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// The 32 bytes that it says.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        let (pairs, _) = self.hex().as_bytes().as_chunks::<2>();
        // Invariant: lower-case digits.
        let digit = |text: u8| match text {
            b'a'..=b'f' => text - b'a' + 10,
            _ => text.wrapping_sub(b'0'),
        };
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = (digit(*high) << 4) | digit(*low);
        }
        bytes
    }

    /// The 64 hexadecimal digits alone, for paths and keys.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.get(7..).unwrap_or_default()
    }

    /// The whole text, `sha256:` included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let legal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if hex.len() == 64 && hex.chars().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidDigest(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an artifact lies and what it must contain. Messages carry this instead of tensors.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ArtifactRef {
    /// Key of the manifest in object storage.
    pub key: String,
    /// Digest of the whole content.
    pub sha256: Digest,
    /// Length of the whole content.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_prints_what_it_was_parsed_from() {
        let digest = Digest::from_bytes(&[0xab; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn a_digest_is_the_bytes_it_was_made_of() {
        let mut bytes = [0; 32];
        for (number, byte) in (0u8..).zip(&mut bytes) {
            *byte = number.wrapping_mul(41).wrapping_add(7);
        }
        assert_eq!(Digest::from_bytes(&bytes).to_bytes(), bytes);
    }

    #[test]
    fn upper_case_short_and_unprefixed_digests_are_refused() {
        for text in [
            "",
            "sha256:",
            "abc",
            &format!("sha256:{}", "AB".repeat(32)),
            &"a".repeat(64),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}

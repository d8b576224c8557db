//! Digests as their 32 bytes, in messages that are to be short. As text they take more than twice as many; so they stand
//! in JSON, and in what earlier versions of such a message wrote, which is read too.

use std::fmt;

use domain::artifact::Digest;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One that is written.
struct Written<'a>(&'a Digest);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return self.0.serialize(serializer);
        }
        serializer.serialize_bytes(&self.0.to_bytes())
    }
}

/// One that was read.
struct Read(Digest);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Formats say themselves whether it is text or bytes.
        deserializer.deserialize_any(Either).map(Self)
    }
}

struct Either;

impl Visitor<'_> for Either {
    type Value = Digest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest of 32 bytes, or its text")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Digest, E> {
        let bytes: &[u8; 32] = bytes
            .try_into()
            .map_err(|_| E::invalid_length(bytes.len(), &self))?;
        Ok(Digest::from_bytes(bytes))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Digest, E> {
        text.parse().map_err(E::custom)
    }
}

/// A field that is a digest.
pub(super) mod digest {
    use super::{Deserialize, Deserializer, Digest, Read, Serialize, Serializer, Written};

    pub(in super::super) fn serialize<S: Serializer>(
        digest: &Digest,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Written(digest).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Digest, D::Error> {
        Read::deserialize(deserializer).map(|read| read.0)
    }
}

/// A field that may be a digest.
pub(super) mod optional {
    use super::{Deserialize, Deserializer, Digest, Read, Serialize, Serializer, Written};

    pub(in super::super) fn serialize<S: Serializer>(
        digest: &Option<Digest>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        digest.as_ref().map(Written).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Digest>, D::Error> {
        let read = Option::<Read>::deserialize(deserializer)?;
        Ok(read.map(|read| read.0))
    }
}

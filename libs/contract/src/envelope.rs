//! How a message is written: MessagePack with named fields, kind and version in the headers.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Header with the message's kind.
pub const KIND_HEADER: &str = "Fedpipe-Kind";
/// Header with the version of the message's layout.
pub const VERSION_HEADER: &str = "Fedpipe-Version";
/// Header with the W3C trace context.
pub const TRACE_HEADER: &str = "traceparent";
/// Largest message that is sent or read, in bytes; tensors travel through object storage.
pub const SIZE_LIMIT: usize = 1 << 20;

/// Something that travels on the bus.
pub trait Message: Serialize + DeserializeOwned {
    /// Name of the kind, as in the header.
    const KIND: &'static str;
    /// Version of the layout, from 1.
    const VERSION: u16;
    /// The oldest version that is still read. What a newer one added has a default that says what its
    /// absence meant; a change that no default can express gets its own arm in [`decode`].
    const OLDEST: u16 = Self::VERSION;

    /// Where it is published; its identity, epoch included, is in the subject.
    fn subject(&self) -> String;

    /// The round in whose trace it is; `None`: it is in the job's own.
    fn round(&self) -> Option<u32> {
        None
    }
}

/// Why bytes are not the expected message. None of these can be cured by trying again.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Another kind of message, or none of ours.
    #[error("expected a message of kind {expected}, found {found:?}")]
    Kind {
        /// The kind this place reads.
        expected: &'static str,
        /// What the header says.
        found: Option<String>,
    },
    /// A version this program does not know.
    #[error("{kind} version {found:?} is unknown, this program reads version {known}; upgrade it")]
    Version {
        /// The kind.
        kind: &'static str,
        /// What the header says.
        found: Option<String>,
        /// The newest version known here.
        known: u16,
    },
    /// Larger than [`SIZE_LIMIT`].
    #[error("message of {0} bytes, at most {SIZE_LIMIT} are read")]
    TooLarge(usize),
    /// Not the layout that kind and version promise.
    #[error("{kind} cannot be decoded")]
    Layout {
        /// The kind.
        kind: &'static str,
        /// What the decoder says.
        #[source]
        source: rmp_serde::decode::Error,
    },
}

/// Writes a message's payload.
///
/// # Errors
/// Only if a value has no MessagePack form, which no message of this crate has.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec_named(message)
}

/// Reads a message; the headers decide which layout is expected.
///
/// # Errors
/// If kind, version, size or layout is not what this program reads.
pub fn decode<M: Message>(
    kind: Option<&str>,
    version: Option<&str>,
    payload: &[u8],
) -> Result<M, DecodeError> {
    if kind != Some(M::KIND) {
        return Err(DecodeError::Kind {
            expected: M::KIND,
            found: kind.map(str::to_owned),
        });
    }
    let found = version.and_then(|text| text.parse::<u16>().ok());
    if !found.is_some_and(|found| (M::OLDEST..=M::VERSION).contains(&found)) {
        return Err(DecodeError::Version {
            kind: M::KIND,
            found: version.map(str::to_owned),
            known: M::VERSION,
        });
    }
    if payload.len() > SIZE_LIMIT {
        return Err(DecodeError::TooLarge(payload.len()));
    }
    rmp_serde::from_slice(payload).map_err(|source| DecodeError::Layout {
        kind: M::KIND,
        source,
    })
}

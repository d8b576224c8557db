//! safetensors files, tensor by tensor: each byte is read or written once, and memory holds one
//! tensor at a time, however long the file is.
//!
//! Reading believes nothing: the header is bounded, its offsets must cover the file exactly, and only
//! floating point types that adapters have (F32, BF16, F16) are accepted. Writing is deterministic:
//! F32, in the order of the names, byte for byte what the `safetensors` crate itself writes.

use std::io;

mod read;
mod rewrite;
mod write;

pub use read::{Layout, TensorFile};
pub use rewrite::{digest, rewrite};
pub use write::TensorWriter;

use crate::Retry;

/// Longest header, in bytes.
pub const HEADER_BYTES: u64 = 16 * 1024 * 1024;

/// Why a safetensors file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refuses.
    #[error("cannot read or write {path}")]
    Io {
        /// The file.
        path: String,
        /// The system's own error.
        source: io::Error,
    },
    /// The header is too long or ends after the file does.
    #[error(
        "the header has {bytes} bytes, which the file or the limit of {HEADER_BYTES} does not allow"
    )]
    HeaderLength {
        /// What the file says.
        bytes: u64,
    },
    /// The header is not a description of tensors that lie side by side.
    #[error("the header is not valid")]
    Header(#[source] safetensors::SafeTensorError),
    /// The tensors end before or after the file does.
    #[error("the file has {found} bytes, its header describes {expected}")]
    Length {
        /// What the header says.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// A type that cannot become F32 here.
    #[error("tensor `{tensor}` is of type {dtype}, only F32, BF16 and F16 are accepted")]
    Type {
        /// Its name.
        tensor: String,
        /// Its type.
        dtype: String,
    },
    /// No tensor has this name.
    #[error("there is no tensor `{tensor}`")]
    Missing {
        /// The name asked for.
        tensor: String,
    },
    /// NaN or infinity.
    #[error("tensor `{tensor}` is not finite at index {index}")]
    NotFinite {
        /// Its name.
        tensor: String,
        /// Where, in row-major order.
        index: usize,
    },
    /// A tensor was declared twice, or its shape overflows.
    #[error("tensor `{tensor}` cannot be declared like this")]
    Declaration {
        /// Its name.
        tensor: String,
    },
    /// A tensor was written out of turn or with another number of values than declared.
    #[error(
        "tensor `{tensor}` was written out of turn, or not with the {expected} values declared"
    )]
    Turn {
        /// The name given to the writer, or the one still missing.
        tensor: String,
        /// Values declared, if it was declared.
        expected: usize,
    },
}

impl Error {
    /// Whether the same call can succeed later.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Retry::Later,
                _ => Retry::Never,
            },
            _ => Retry::Never,
        }
    }

    pub(crate) fn io(path: &std::path::Path, source: io::Error) -> Self {
        Self::Io {
            path: path.display().to_string(),
            source,
        }
    }
}

/// Checks values that were read, so that each byte is read once.
///
/// # Errors
/// [`Error::NotFinite`] with the first index that is NaN or infinite.
pub fn check_finite(tensor: &str, values: &[f32]) -> Result<(), Error> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::NotFinite {
            tensor: tensor.to_owned(),
            index,
        }),
    }
}

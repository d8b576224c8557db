//! What an upload reads: a local file, or bytes in memory, part by part.
//!
//! Reading and hashing run on tokio's blocking threads, one part at a time.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;
use domain::artifact::Digest;
use sha2::{Digest as _, Sha256};

use crate::manifest::{self, Part};
use crate::{Error, PART_BYTES, Transfer};

/// The digest of these bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    finish(Sha256::new_with_prefix(bytes))
}

/// The digest of what the hasher was given.
pub(crate) fn finish(hasher: Sha256) -> Digest {
    Digest::from_bytes(&hasher.finalize().into())
}

/// Runs what blocks on a thread where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
        Err(_runtime_is_ending) => Err(Error::Cancelled),
    }
}

/// Content to be stored.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// A regular file, which must not change meanwhile. It is opened for each part, so that a model
    /// of thousands of files does not hold thousands of handles.
    File(PathBuf),
    /// Bytes in memory.
    Bytes(Bytes),
}

impl Content {
    /// How long it is now.
    async fn len(&self) -> Result<u64, Error> {
        match self.clone() {
            Self::File(path) => {
                blocking(move || Ok(path.metadata().map_err(|e| Error::io(&path, e))?.len())).await
            }
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Reads `bytes` bytes from `offset`.
    fn read(&self, offset: u64, bytes: u64) -> Result<Bytes, Error> {
        match self {
            Self::File(path) => {
                let mut part = vec![0; bytes as usize];
                let file = fs::File::open(path).map_err(|e| Error::io(path, e))?;
                match file.read_exact_at(&mut part, offset) {
                    Ok(()) => Ok(part.into()),
                    Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                        Err(Error::Changed { path: path.clone() })
                    }
                    Err(e) => Err(Error::io(path, e)),
                }
            }
            // Invariant: callers cut parts out of what `len` says.
            Self::Bytes(all) => Ok(all.slice(offset as usize..(offset + bytes) as usize)),
        }
    }

    /// Reads it once and says what it consists of, under the name `path` of a manifest.
    pub async fn describe(
        &self,
        path: String,
        transfer: &Transfer,
    ) -> Result<manifest::File, Error> {
        let bytes = self.len().await?;
        let mut whole = Sha256::new();
        let mut parts = Vec::new();
        let mut offset = 0;
        while offset < bytes {
            let length = (bytes - offset).min(PART_BYTES);
            let this = self.clone();
            let hash = blocking(move || {
                let part = this.read(offset, length)?;
                whole.update(&part);
                Ok((whole, digest_of(&part)))
            });
            let (hasher, sha256) = transfer.guard(hash).await?;
            whole = hasher;
            parts.push(Part {
                sha256,
                bytes: length,
            });
            offset += length;
        }
        Ok(manifest::File {
            path,
            sha256: finish(whole),
            bytes,
            parts,
        })
    }

    /// Reads a part that was described before, and makes sure that it is still the same.
    pub async fn read_described(&self, offset: u64, part: &Part) -> Result<Bytes, Error> {
        let (this, part) = (self.clone(), part.clone());
        blocking(move || {
            let bytes = this.read(offset, part.bytes)?;
            match (&this, digest_of(&bytes) == part.sha256) {
                (Self::File(path), false) => Err(Error::Changed { path: path.clone() }),
                _ => Ok(bytes),
            }
        })
        .await
    }
}

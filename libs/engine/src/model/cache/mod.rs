//! Quantized models on disk, so that a model is quantized once.
//!
//! Promises: what is read is what would have been made, bit for bit, or it is made again: an entry
//! is named by the content of the model's files, the base and the format's version, and its own
//! content is verified whenever it is read. Entries appear whole (renamed into place), so any number
//! of processes may share a folder; the bytes are the same whoever writes them. The folder never
//! exceeds its limit by what this module writes: the oldest entries are deleted first. A folder that
//! cannot be read or written, or a full disk, is no error; the model is then made each time.
//!
//! Does not: defend against somebody who may write to the folder; he may as well replace the model.

mod format;
mod identity;
mod room;

use std::fs;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use self::identity::{Identity, Stamp};
use super::load::{Parts, Piece};
use super::{Base, Config};
use crate::source::Source;

/// A folder of quantized models. Delete it whenever you like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Made where it is missing; it holds nothing but entries.
    pub folder: PathBuf,
    /// Bytes of all entries; the oldest are deleted to make room for a new one.
    pub limit_bytes: u64,
}

/// The place of one quantized model.
pub(super) struct Entry<'a> {
    cache: &'a Cache,
    identity: Identity,
    base: Base,
    stamp: Stamp,
    path: PathBuf,
}

impl<'a> Entry<'a> {
    /// The entry of this model in this base; none if its files cannot be read.
    pub(super) fn of(cache: &'a Cache, source: &Source, base: Base) -> Option<Self> {
        let files = source.files();
        let stamp = Stamp::of(&files).ok()?;
        let identity = identity::known(&cache.folder, &stamp).or_else(|| {
            let identity = Identity::of(&files).ok()?;
            identity::remember(&cache.folder, &stamp, &identity);
            Some(identity)
        })?;
        let name = format!(
            "{}.{}.v{}.{}",
            identity.hex(),
            format::name(base),
            format::VERSION,
            room::EXTENSION
        );
        Some(Self {
            path: cache.folder.join(name),
            cache,
            identity,
            base,
            stamp,
        })
    }

    /// The weights, if they are here and whole.
    pub(super) fn read(&self, config: &Config) -> Option<Parts> {
        let file = fs::File::open(&self.path).ok()?;
        let read = || {
            let mut reader = format::Reader::new(file, &self.identity, self.base)?;
            let parts = Parts::gather(&mut reader, config, self.base)?;
            reader.finish().map(|()| parts)
        };
        read()
            .inspect_err(|error| {
                let path = self.path.display();
                tracing::warn!(%path, %error, "quantized model is damaged; it is made again");
            })
            .ok()
    }

    /// Keeps the weights, if they fit and the model's files are still the ones that were read.
    pub(super) fn write(&self, parts: &Parts, source: &Source) {
        if let Err(error) = self.try_write(parts, source) {
            let path = self.path.display();
            tracing::info!(%path, %error, "quantized model is not kept");
        }
    }

    fn try_write(&self, parts: &Parts, source: &Source) -> io::Result<()> {
        let Cache {
            folder,
            limit_bytes,
        } = self.cache;
        fs::create_dir_all(folder)?;
        let mut file = room::temporary(folder)?;
        self.write_pieces(parts, &mut file)?;
        let bytes = file.as_file().metadata()?.len();
        if bytes > *limit_bytes {
            return Err(io::Error::other(format!(
                "{bytes} bytes are more than the limit of {limit_bytes}"
            )));
        }
        if Stamp::of(&source.files())? != self.stamp {
            return Err(io::Error::other("the model's files changed meanwhile"));
        }
        room::make(folder, limit_bytes - bytes, &self.path)?;
        file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }

    fn write_pieces(&self, parts: &Parts, file: &mut NamedTempFile) -> io::Result<()> {
        let buffered = BufWriter::new(file);
        let mut writer = format::Writer::new(buffered, &self.identity, self.base)?;
        for piece in parts.pieces() {
            match piece {
                Piece::Vector(values) => writer.vector(values)?,
                Piece::Matrix(matrix) => writer.matrix(matrix)?,
            }
        }
        writer.finish()
    }
}

/// What tells the content of these files from any other: their cached models are named by it. Reads all of them.
pub(super) fn identity_of(files: &[PathBuf]) -> io::Result<[u8; 32]> {
    Identity::of(files).map(|identity| *identity.bytes())
}

/// Reads a small file of at most `limit` bytes.
fn small(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut content = Vec::new();
    fs::File::open(path)?
        .take(limit)
        .read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests;

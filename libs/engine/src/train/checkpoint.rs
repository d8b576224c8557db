//! Where a training run stands: the adapter, the optimizer's moments and how many steps were made. Whoever goes on from
//! it ends with the bytes of a run that was never interrupted.
//!
//! The file: magic and version, the length of a JSON header and the header, the tensors of the adapter and of each
//! moment as safetensors, and the SHA-256 of all of it. It appears whole, renamed into place.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use domain::adapter::{RankTable, WeightShape};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::adapter::{self, Adapter, Factors};

const MAGIC: &[u8; 8] = b"fedpipeC";
const VERSION: u32 = 1;
const DIGEST_BYTES: usize = 32;
/// A written limit: rank 256 on every weight of a model of 70 billion parameters has 13 GB.
const FILE_LIMIT_BYTES: u64 = 64 << 30;

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read or written.
    #[error("cannot access the checkpoint {}", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no checkpoint, or not whole.
    #[error("the checkpoint {} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Its tensors do not fit the model.
    #[error("the checkpoint's adapter cannot be used")]
    Adapter(#[from] adapter::Error),
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Steps that were made.
    pub steps: u64,
    /// The adapter after them.
    pub adapter: Adapter,
    /// The optimizer's moments, of the adapter's shape.
    pub moments: Vec<Adapter>,
    /// What the run was asked for, in the caller's words: a run that was asked for something else must not go on.
    pub asked: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    steps: u64,
    /// The scale's bits, so that none is lost in a decimal.
    scale: u32,
    ranks: RankTable,
    /// Bytes of each part.
    parts: Vec<usize>,
    asked: serde_json::Value,
}

impl Checkpoint {
    /// Writes the file, in the place of an older one.
    ///
    /// # Errors
    /// The disk refuses; the older one is then still there.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let access = |source| Error::Access {
            path: path.to_owned(),
            source,
        };
        let adapters = std::iter::once(&self.adapter).chain(&self.moments);
        let parts = adapters.map(Adapter::to_safetensors);
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let rank = |factors: &Factors| (factors.shape().name, factors.rank());
        let header = Header {
            steps: self.steps,
            scale: self.adapter.scale().to_bits(),
            ranks: self.adapter.factors().map(rank).collect(),
            parts: parts.iter().map(Vec::len).collect(),
            asked: self.asked.clone(),
        };
        let header = serde_json::to_vec(&header).map_err(|error| access(error.into()))?;
        let length = (header.len() as u64).to_le_bytes();
        let version = VERSION.to_le_bytes();
        let mut pieces: Vec<&[u8]> = vec![MAGIC, &version, &length, &header];
        pieces.extend(parts.iter().map(Vec::as_slice));
        write(path, &pieces).map_err(access)
    }

    /// Reads a file; `shapes` are the model's weights.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or of another model.
    pub fn read(path: &Path, shapes: &[WeightShape]) -> Result<Self, Error> {
        let damaged = |what| Error::Damaged {
            path: path.to_owned(),
            what,
        };
        let bytes = read(path).map_err(|source| Error::Access {
            path: path.to_owned(),
            source,
        })?;
        let content = bytes.len().saturating_sub(DIGEST_BYTES);
        let (content, digest) = bytes.split_at(content);
        if Sha256::digest(content).as_slice() != digest {
            return Err(damaged("its digest is not that of its content"));
        }
        let mut rest = content;
        if taken(&mut rest, MAGIC.len()) != Some(MAGIC.as_slice()) {
            return Err(damaged("it begins with the wrong bytes"));
        }
        if taken(&mut rest, 4) != Some(VERSION.to_le_bytes().as_slice()) {
            return Err(damaged("it is of another version"));
        }
        let length = taken(&mut rest, 8).and_then(|bytes| bytes.try_into().ok());
        let length = length.map(u64::from_le_bytes);
        let length = length.and_then(|length| usize::try_from(length).ok());
        let header = length.and_then(|length| taken(&mut rest, length));
        let header = header.and_then(|bytes| serde_json::from_slice::<Header>(bytes).ok());
        let header = header.ok_or_else(|| damaged("its header cannot be read"))?;
        let scale = f32::from_bits(header.scale);
        let mut adapters = Vec::new();
        for length in header.parts {
            let part = taken(&mut rest, length).ok_or_else(|| damaged("it ends too soon"))?;
            adapters.push(Adapter::from_safetensors(
                part,
                shapes,
                &header.ranks,
                scale,
            )?);
        }
        let mut adapters = adapters.into_iter();
        let adapter = adapters
            .next()
            .ok_or_else(|| damaged("it has no adapter"))?;
        Ok(Self {
            steps: header.steps,
            adapter,
            moments: adapters.collect(),
            asked: header.asked,
        })
    }
}

/// The next bytes.
fn taken<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn write(path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let mut hasher = Sha256::new();
    for piece in pieces {
        hasher.update(piece);
        file.write_all(piece)?;
    }
    file.write_all(&hasher.finalize())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|failed| failed.error)?;
    // The name itself must outlive a loss of power.
    File::open(folder)?.sync_all()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > FILE_LIMIT_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read(path)
}

#[cfg(test)]
mod tests {
    use domain::adapter::{Encoder, HeadShape, Projection, WeightName};

    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_damage_is_named() {
        let shapes = [0u16, 1].map(|layer| WeightShape {
            name: WeightName::new(layer, Projection::Q),
            out: 3,
            inp: 4,
        });
        let ranks = [(shapes[0].name, 2), (shapes[1].name, 1)]
            .into_iter()
            .collect();
        let head = HeadShape {
            encoder: Encoder::Roberta,
            classes: 2,
            width: 4,
        };
        let make = |seed| {
            let head = adapter::Head::fresh(head, seed).unwrap();
            let made = Adapter::initialize(&shapes, &ranks, 0.1, seed).unwrap();
            made.with_head(Some(head))
        };
        let checkpoint = Checkpoint {
            steps: 7,
            adapter: make(1),
            moments: vec![make(2), make(3)],
            asked: serde_json::json!({ "rank": 2 }),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("checkpoint");
        checkpoint.write(&path).unwrap();
        assert_eq!(Checkpoint::read(&path, &shapes).unwrap(), checkpoint);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 1;
        for bytes in [&changed[..], &whole[..whole.len() - 1], b""] {
            fs::write(&path, bytes).unwrap();
            let refused = Checkpoint::read(&path, &shapes);
            assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
        }
        checkpoint.write(&path).unwrap();
        let other = Checkpoint::read(&path, &shapes[..1]);
        assert!(matches!(other, Err(Error::Adapter(_))), "{other:?}");
    }
}

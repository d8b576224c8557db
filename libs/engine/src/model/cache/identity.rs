//! Which model a cached one was made of: the SHA-256 of its files.
//!
//! Reading gigabytes only to name them would cost as much as quantizing, so a digest is remembered
//! beside the entries under the files' stamp: path, device, inode, size, and the times of the last
//! change to the nanosecond. The change time is the kernel's own and no program can set it back.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{room, small};

/// Bytes read at once while hashing.
const CHUNK: usize = 1 << 20;

/// A file that changed less than this long before its digest was remembered may change again
/// within the same tick of its clock, so that the stamp would not tell. Two seconds is the coarsest
/// tick of a file system in use.
const SETTLED_SECONDS: i64 = 2;

/// The SHA-256 of everything the weights depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity([u8; 32]);

impl Identity {
    /// Reads all of `files`.
    pub(super) fn of(files: &[PathBuf]) -> io::Result<Self> {
        let digests: Vec<[u8; 32]> = files
            .par_iter()
            .map(|path| hash(path))
            .collect::<io::Result<_>>()?;
        let mut whole = Sha256::new();
        digests.iter().for_each(|digest| whole.update(digest));
        Ok(Self(whole.finalize().into()))
    }

    pub(super) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

fn hash(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = fs::File::open(path)?;
    let (mut hasher, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(chunk.get(..count).unwrap_or_default());
    }
}

/// What a file system says of files; equal for as long as nobody changes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    digest: [u8; 32],
    /// Seconds of the last change.
    changed: i64,
}

impl Stamp {
    pub(super) fn of(files: &[PathBuf]) -> io::Result<Self> {
        let (mut hasher, mut changed) = (Sha256::new(), i64::MIN);
        for path in files {
            let path = path.canonicalize()?;
            let about = fs::metadata(&path)?;
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update([0]);
            for number in [about.dev(), about.ino(), about.size()] {
                hasher.update(number.to_le_bytes());
            }
            for time in [
                about.mtime(),
                about.mtime_nsec(),
                about.ctime(),
                about.ctime_nsec(),
            ] {
                hasher.update(time.to_le_bytes());
            }
            changed = changed.max(about.ctime()).max(about.mtime());
        }
        Ok(Self {
            digest: hasher.finalize().into(),
            changed,
        })
    }

    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.{}", hex::encode(self.digest), room::MEMO))
    }

    /// The identity followed by what proves that both belong together and are whole.
    fn memo(&self, identity: &Identity) -> Vec<u8> {
        let proof = Sha256::new()
            .chain_update(self.digest)
            .chain_update(identity.0)
            .finalize();
        [identity.0.as_slice(), proof.as_slice()].concat()
    }
}

/// The identity that was remembered of these files, if it can be relied on.
pub(super) fn known(folder: &Path, stamp: &Stamp) -> Option<Identity> {
    let path = stamp.path(folder);
    let written = fs::metadata(&path).ok()?.mtime();
    if written < stamp.changed.saturating_add(SETTLED_SECONDS) {
        return None;
    }
    let memo = small(&path, 65).ok()?;
    let identity = Identity(memo.first_chunk().copied()?);
    (memo == stamp.memo(&identity)).then_some(identity)
}

/// Remembers it, if the folder can be written.
pub(super) fn remember(folder: &Path, stamp: &Stamp, identity: &Identity) {
    let write = || {
        fs::create_dir_all(folder)?;
        let mut file = room::temporary(folder)?;
        file.write_all(&stamp.memo(identity))?;
        file.persist(stamp.path(folder))
            .map_err(|error| error.error)
    };
    if let Err(error) = write() {
        tracing::debug!(folder = %folder.display(), %error, "a model's digest is not remembered");
    }
}

//! A folder of verified artifacts by digest, bounded in bytes, that survives a restart.
//!
//! A file that has its digest as its name was verified before it got that name, so each artifact is
//! fetched once in the life of the folder; one under way is called `<digest>.partial` and resumes.
//! A spool belongs to one process. It does not choose what to drop: [`Spool::remove`] does that.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use domain::artifact::{ArtifactRef, Digest};

use crate::download::partial_path;
use crate::source::blocking;
use crate::{Error, Store, Transfer};

/// Most files in a spool.
const ENTRIES: usize = 100_000;

/// A bounded folder of artifacts; clones share it.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: PathBuf,
    limit_bytes: u64,
    entries: Arc<Mutex<HashMap<Digest, Entry>>>,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    /// Bytes on disk, or the bytes that a download under way will have.
    bytes: u64,
    /// Held by whoever fetches, so that others wait and then find it.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

impl Spool {
    /// Opens or makes the folder and counts what an earlier process left in it.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be used.
    pub fn open(dir: &Path, limit_bytes: u64) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        let mut entries = HashMap::new();
        for entry in dir
            .read_dir()
            .map_err(|e| Error::io(dir, e))?
            .take(2 * ENTRIES)
        {
            let entry = entry.map_err(|e| Error::io(dir, e))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let hex = name.strip_suffix(".partial").unwrap_or(&name);
            let Ok(digest) = format!("sha256:{hex}").parse::<Digest>() else {
                continue;
            };
            let bytes = entry
                .metadata()
                .map_err(|e| Error::io(&entry.path(), e))?
                .len();
            entries.entry(digest).or_insert_with(Entry::default).bytes += bytes;
        }
        let entries = Arc::new(Mutex::new(entries));
        Ok(Self {
            dir: dir.to_owned(),
            limit_bytes,
            entries,
        })
    }

    /// The artifact as a local file, fetched unless it is there.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if it can never fit; [`Error::NoRoom`] until something is removed; and
    /// whatever [`Store::get_file`] refuses.
    pub async fn ensure(
        &self,
        store: &Store,
        artifact: &ArtifactRef,
        transfer: &Transfer,
    ) -> Result<PathBuf, Error> {
        let fetching = self.reserve(artifact)?;
        let _alone = fetching.lock().await;
        // Whoever was before us may have failed and given the room back.
        self.reserve(artifact)?;
        let path = self.path(&artifact.sha256);
        if self.is_sealed(&path, artifact).await? {
            transfer.count(artifact.bytes);
            return Ok(path);
        }
        let fetched = store
            .get_file(artifact, &path, self.limit_bytes, transfer)
            .await;
        if fetched.is_err() {
            self.recount(&artifact.sha256).await?;
        }
        fetched.map(|()| path)
    }

    /// Drops an artifact, complete or not; one that is not there is a success. Nobody may be
    /// fetching it.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be deleted.
    pub async fn remove(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.path(digest);
        blocking(move || {
            for path in [partial_path(&path), path] {
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io(&path, e));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await?;
        self.lock().remove(digest);
        Ok(())
    }

    /// Bytes in use, those that downloads under way will need included.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lock().values().map(|entry| entry.bytes).sum()
    }

    /// Takes the artifact's room before a byte of it is fetched.
    fn reserve(&self, artifact: &ArtifactRef) -> Result<Arc<tokio::sync::Mutex<()>>, Error> {
        let needed = artifact.bytes;
        if needed > self.limit_bytes {
            let (key, limit) = (artifact.key.clone(), self.limit_bytes);
            return Err(Error::TooLarge {
                key,
                bytes: needed,
                limit,
            });
        }
        let mut entries = self.lock();
        let others = entries
            .iter()
            .filter(|(digest, _)| **digest != artifact.sha256);
        let used: u64 = others.map(|(_, entry)| entry.bytes).sum();
        if used.saturating_add(needed) > self.limit_bytes || entries.len() >= ENTRIES {
            let place = format!("the spool {}", self.dir.display());
            return Err(Error::NoRoom {
                place,
                needed,
                used,
                limit: self.limit_bytes,
            });
        }
        let entry = entries.entry(artifact.sha256.clone()).or_default();
        entry.bytes = entry.bytes.max(needed);
        Ok(entry.fetching.clone())
    }

    /// Counts what a failed download left, so that its reservation does not outlive it.
    async fn recount(&self, digest: &Digest) -> Result<(), Error> {
        let partial = partial_path(&self.path(digest));
        let left = blocking(move || Ok(partial.metadata().map_or(0, |meta| meta.len()))).await?;
        // The entry stays: others may wait for its lock.
        if let Some(entry) = self.lock().get_mut(digest) {
            entry.bytes = left;
        }
        Ok(())
    }

    async fn is_sealed(&self, path: &Path, artifact: &ArtifactRef) -> Result<bool, Error> {
        let (path, bytes) = (path.to_owned(), artifact.bytes);
        blocking(move || {
            Ok(path
                .metadata()
                .is_ok_and(|meta| meta.is_file() && meta.len() == bytes))
        })
        .await
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Models on a worker's disk, fetched by digest or from the Hub, bounded in bytes, the least recently
//! used dropped first.
//!
//! `<dir>/<digest>/` is a complete, verified model (one of the Hub under the digest of its name); `<digest>.partial/` is one under way and resumes.
//! `<digest>.lock` is locked shared by whoever uses a model and alone by whoever fetches or drops it,
//! so processes may share a folder and nobody loses a model under its hands; the file's content is
//! the number of its last use (no clock is asked).

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::artifact::Digest;
use domain::hub::Model;
use domain::object::model_prefix;

use crate::download::{reads, rename_durably};
use crate::hub::{self, Hub};
use crate::manifest::Manifest;
use crate::source::{blocking, digest_of};
use crate::{Error, Store, Transfer};

/// Time between two looks at a model that somebody else is fetching.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);
/// Most entries of the folder that are looked at.
const ENTRIES: usize = 100_000;

/// A bounded folder of models; clones share it.
#[derive(Debug, Clone)]
pub struct ModelCache {
    dir: PathBuf,
    limit_bytes: u64,
}

/// A model that stays on disk for as long as this value, or a clone of it, lives.
#[derive(Debug, Clone)]
pub struct CachedModel {
    path: PathBuf,
    _in_use: Arc<fs::File>,
}

impl CachedModel {
    /// The file, if the model is a single one, else the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl ModelCache {
    /// Opens or makes the folder.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be used.
    pub fn open(dir: &Path, limit_bytes: u64) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        Ok(Self {
            dir: dir.to_owned(),
            limit_bytes,
        })
    }

    /// The model as local files, fetched unless it is there; others are dropped to make room.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if it can never fit; [`Error::NoRoom`] while what is in use leaves no
    /// room; [`Error::NotFound`] if it was never pushed; and whatever a download refuses.
    pub async fn fetch(
        &self,
        store: &Store,
        digest: &Digest,
        transfer: &Transfer,
    ) -> Result<CachedModel, Error> {
        let lock = self.lock_alone_or_ready(digest, transfer).await?;
        let folder = self.dir.join(digest.hex());
        if !folder.is_dir() {
            let manifest = transfer.guard(store.model_manifest(digest)).await?;
            self.download(store, digest, &manifest, transfer).await?;
        }
        self.keep(lock, folder).await
    }

    /// A model of the Hub at its commit, fetched unless it is here: then nobody is asked anything.
    ///
    /// # Errors
    /// As [`ModelCache::fetch`], and [`Error::Hub`] for whatever the Hub refuses.
    pub async fn fetch_hub(
        &self,
        hub: &Hub,
        model: &Model,
        transfer: &Transfer,
    ) -> Result<CachedModel, Error> {
        let place = digest_of(model.to_string().as_bytes());
        let lock = self.lock_alone_or_ready(&place, transfer).await?;
        let folder = self.dir.join(place.hex());
        if !folder.is_dir() {
            let whole = hub.limits().whole;
            let downloaded = self.download_hub(hub, model, &place, transfer);
            let in_time = tokio::time::timeout(whole, downloaded).await;
            in_time.map_err(|_| hub::Error::TimedOut {
                model: model.clone(),
                seconds: whole.as_secs(),
            })??;
        }
        self.keep(lock, folder).await
    }

    async fn download_hub(
        &self,
        hub: &Hub,
        model: &Model,
        place: &Digest,
        transfer: &Transfer,
    ) -> Result<(), Error> {
        let files = transfer
            .guard(async { Ok(hub.files(model).await?) })
            .await?;
        let needed = files.iter().map(|file| file.bytes).sum();
        let (cache, keep) = (self.clone(), place.hex().to_owned());
        blocking(move || cache.make_room(&keep, needed)).await?;
        transfer.expect(needed);
        let partial = self.dir.join(format!("{}.partial", place.hex()));
        let folder = partial.clone();
        blocking(move || fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))).await?;
        for file in &files {
            let dest = partial.join(&file.name);
            hub.fetch(file, &dest, transfer).await?;
        }
        let folder = self.dir.join(place.hex());
        blocking(move || rename_durably(&partial, &folder)).await
    }

    /// Notes the use of a model that is there, and keeps it there for as long as it lasts.
    async fn keep(&self, lock: fs::File, folder: PathBuf) -> Result<CachedModel, Error> {
        let cache = self.clone();
        blocking(move || {
            lock.lock_shared().map_err(|e| Error::io(&folder, e))?;
            let last = cache
                .uses()?
                .into_iter()
                .map(|(number, _)| number)
                .max()
                .unwrap_or(0);
            let number = last.saturating_add(1).to_string();
            lock.write_all_at(number.as_bytes(), 0)
                .map_err(|e| Error::io(&folder, e))?;
            Ok(CachedModel {
                path: only_file(&folder)?.unwrap_or(folder),
                _in_use: Arc::new(lock),
            })
        })
        .await
    }

    /// Bytes on disk, models under way included.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub async fn used_bytes(&self) -> Result<u64, Error> {
        let dir = self.dir.clone();
        blocking(move || size_of(&dir)).await
    }

    /// Waits until the model is there (lock shared) or nobody else fetches it (locked alone).
    async fn lock_alone_or_ready(
        &self,
        digest: &Digest,
        transfer: &Transfer,
    ) -> Result<fs::File, Error> {
        let path = self.lock_path(digest.hex());
        let folder = self.dir.join(digest.hex());
        loop {
            let (path, folder) = (path.clone(), folder.clone());
            let locked = blocking(move || {
                let file = open_lock(&path)?;
                let shared = folder.is_dir();
                let tried = if shared {
                    file.try_lock_shared()
                } else {
                    file.try_lock()
                };
                match tried {
                    // It may have been dropped before we had the lock.
                    Ok(()) if shared && !folder.is_dir() => Ok(None),
                    Ok(()) => Ok(Some(file)),
                    Err(fs::TryLockError::WouldBlock) => Ok(None),
                    Err(fs::TryLockError::Error(e)) => Err(Error::io(&path, e)),
                }
            });
            if let Some(file) = transfer.guard(locked).await? {
                return Ok(file);
            }
            transfer
                .guard(async {
                    tokio::time::sleep(LOCK_INTERVAL).await;
                    Ok(())
                })
                .await?;
        }
    }

    async fn download(
        &self,
        store: &Store,
        digest: &Digest,
        manifest: &Manifest,
        transfer: &Transfer,
    ) -> Result<(), Error> {
        let partial = self.dir.join(format!("{}.partial", digest.hex()));
        let (cache, keep, needed) = (self.clone(), digest.hex().to_owned(), manifest.bytes());
        blocking(move || cache.make_room(&keep, needed)).await?;
        let prefix = model_prefix(digest);
        store.expect(|| {
            manifest
                .files()
                .iter()
                .flat_map(|file| reads(&prefix, file))
                .collect()
        });
        for file in manifest.files() {
            let dest = partial.join(&file.path);
            let folder = dest.parent().unwrap_or(&partial).to_owned();
            blocking(move || fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e)))
                .await?;
            store.fetch(&prefix, file, &dest, transfer).await?;
        }
        let folder = self.dir.join(digest.hex());
        blocking(move || rename_durably(&partial, &folder)).await
    }

    /// Drops models, least recently used first, until `needed` bytes fit; what `keep` has on disk
    /// already counts as part of them.
    fn make_room(&self, keep: &str, needed: u64) -> Result<(), Error> {
        let limit = self.limit_bytes;
        let place = format!("the model cache {}", self.dir.display());
        if needed > limit {
            return Err(Error::TooLarge {
                key: place,
                bytes: needed,
                limit,
            });
        }
        let mut others = self.uses()?;
        others.retain(|(_, hex)| hex != keep);
        others.sort();
        let mut used = 0;
        for (_, hex) in &others {
            used += self.size(hex)?;
        }
        for (_, hex) in &others {
            if used + needed <= limit {
                break;
            }
            let size = self.size(hex)?;
            if self.drop_unused(hex)? {
                tracing::info!(model = %hex, bytes = size, "model dropped from the cache");
                used -= size;
            }
        }
        if used + needed <= limit {
            Ok(())
        } else {
            Err(Error::NoRoom {
                place,
                needed,
                used,
                limit,
            })
        }
    }

    /// Deletes a model unless somebody uses or fetches it.
    fn drop_unused(&self, hex: &str) -> Result<bool, Error> {
        let path = self.lock_path(hex);
        let lock = open_lock(&path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(false),
            Err(fs::TryLockError::Error(e)) => return Err(Error::io(&path, e)),
        }
        // The lock file stays: deleting it would let two hold "the" lock. It has a few bytes.
        for name in [hex.to_owned(), format!("{hex}.partial")] {
            let folder = self.dir.join(name);
            match fs::remove_dir_all(&folder) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(&folder, e));
                }
                _ => {}
            }
        }
        Ok(true)
    }

    /// Every model that was ever here, with the number of its last use.
    fn uses(&self) -> Result<Vec<(u64, String)>, Error> {
        let mut uses = Vec::new();
        let dir = self.dir.read_dir().map_err(|e| Error::io(&self.dir, e))?;
        for entry in dir.take(ENTRIES) {
            let path = entry.map_err(|e| Error::io(&self.dir, e))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if let Some(hex) = name.strip_suffix(".lock") {
                let number = fs::read_to_string(&path).unwrap_or_default();
                uses.push((number.trim().parse().unwrap_or(0), hex.to_owned()));
            }
        }
        Ok(uses)
    }

    fn size(&self, hex: &str) -> Result<u64, Error> {
        let partial = size_of(&self.dir.join(format!("{hex}.partial")))?;
        Ok(partial + size_of(&self.dir.join(hex))?)
    }

    fn lock_path(&self, hex: &str) -> PathBuf {
        self.dir.join(format!("{hex}.lock"))
    }
}

fn open_lock(path: &Path) -> Result<fs::File, Error> {
    let mut options = OpenOptions::new();
    let opened = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    opened.map_err(|e| Error::io(path, e))
}

/// The only file of a folder that has one entry, a file.
fn only_file(folder: &Path) -> Result<Option<PathBuf>, Error> {
    let mut entries = folder.read_dir().map_err(|e| Error::io(folder, e))?;
    match (entries.next(), entries.next()) {
        (Some(Ok(only)), None) => Ok(Some(only.path()).filter(|path| path.is_file())),
        _ => Ok(None),
    }
}

/// Bytes of all files below `folder`; 0 if it is not there.
fn size_of(folder: &Path) -> Result<u64, Error> {
    let mut sum = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match folder.read_dir() {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io(&folder, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| Error::io(&folder, e))?;
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) => sum += meta.len(),
                // Renamed or dropped by another process since it was listed.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io(&entry.path(), e)),
            }
        }
    }
    Ok(sum)
}

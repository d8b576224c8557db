//! Verified artifacts as local files, bounded in bytes, in one folder for each job that needs them.
//!
//! A file was verified before it got its name, so each artifact is fetched once as long as its job keeps it; one under
//! way is called `<name>.partial` and resumes. What one job drops no other loses: each has its own file, also of an
//! artifact that both have. A spool belongs to one process. It does not choose what to drop: [`Spool::remove`] and
//! [`Spool::forget`] do that.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use domain::artifact::{ArtifactRef, Digest};
use domain::id::JobId;

use crate::download::partial_path;
use crate::source::{blocking, digest_of};
use crate::{Error, Store, Transfer};

/// Most files in a spool.
const ENTRIES: usize = 100_000;

/// A bounded folder of artifacts; clones share it.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: PathBuf,
    limit_bytes: u64,
    entries: Arc<Mutex<HashMap<Slot, Entry>>>,
}

/// A file of the spool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Slot {
    job: JobId,
    name: String,
}

impl Slot {
    /// The name says where the file is fetched from, too: a site that names the digest of what is here has not stored
    /// it for that, and an owner on another disk would not find it.
    fn of(job: &JobId, artifact: &ArtifactRef) -> Self {
        let whole = format!("{} {}", artifact.sha256, artifact.key);
        Self {
            job: job.clone(),
            name: digest_of(whole.as_bytes()).hex().to_owned(),
        }
    }
}

#[derive(Debug, Default)]
struct Entry {
    /// Bytes on disk, or those that will be there while somebody uses it.
    bytes: u64,
    /// Calls of [`Spool::ensure`] under way.
    users: usize,
    /// Held by whoever fetches, so that others wait and then find it.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

impl Spool {
    /// Opens or makes the folder, and empties it.
    ///
    /// What an earlier process left could be kept, and only a restart would gain by it: the files of open rounds, at
    /// most `limit_bytes`, would not be fetched again. But which of them are still needed is known by jobs that other
    /// processes may have driven and ended meanwhile, and a file that is kept by mistake takes its room for ever.
    /// Everything here can be fetched again, as it is when a job comes to an owner on another disk.
    ///
    /// Unless it is not there any more: an update lies in storage where its site may write. What was verified when it
    /// came and is read again after a restart (or a pause, or a move) is then missing or other content, if the site has
    /// deleted or overwritten it meanwhile; and a round that is decided and not yet merged cannot do without, so that
    /// its job ends.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be used.
    pub fn open(dir: &Path, limit_bytes: u64) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        empty(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            limit_bytes,
            entries: Arc::default(),
        })
    }

    /// The artifact as a local file of this job, fetched unless it is there. The future may be dropped: what was fetched
    /// stays and is counted, and the next call resumes.
    ///
    /// # Errors
    /// [`Error::NoRoom`] until something is removed, or the limit is raised; and whatever [`Store::get_file`] refuses.
    pub async fn ensure(
        &self,
        job: &JobId,
        store: &Store,
        artifact: &ArtifactRef,
        transfer: &Transfer,
    ) -> Result<PathBuf, Error> {
        let room = self.reserve(Slot::of(job, artifact), artifact.bytes)?;
        let _alone = room.fetching.lock().await;
        let path = self.path(&room.slot);
        if begin(&path, artifact.bytes).await? {
            transfer.count(artifact.bytes);
            return Ok(path);
        }
        store
            .get_file(artifact, &path, self.limit_bytes, transfer)
            .await?;
        Ok(path)
    }

    /// Drops an artifact of a job, complete or not; one that is not there is a success. Nobody may be
    /// fetching it.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be deleted.
    pub async fn remove(&self, job: &JobId, artifact: &ArtifactRef) -> Result<(), Error> {
        let slot = Slot::of(job, artifact);
        let path = self.path(&slot);
        blocking(move || {
            for path in [partial_path(&path), path] {
                gone(fs::remove_file(&path), &path)?;
            }
            Ok(())
        })
        .await?;
        self.lock().remove(&slot);
        Ok(())
    }

    /// Drops all that a job has here. Nobody may be fetching any of it.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be deleted.
    pub async fn forget(&self, job: &JobId) -> Result<(), Error> {
        let folder = self.dir.join(job.as_str());
        blocking(move || gone(fs::remove_dir_all(&folder), &folder)).await?;
        self.lock().retain(|slot, _| slot.job != *job);
        Ok(())
    }

    /// Bytes in use, those that downloads under way will need included.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lock().values().map(|entry| entry.bytes).sum()
    }

    /// Takes the artifact's room before a byte of it is fetched.
    fn reserve(&self, slot: Slot, needed: u64) -> Result<Room<'_>, Error> {
        let mut entries = self.lock();
        let others = entries.iter().filter(|(other, _)| **other != slot);
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
        let entry = entries.entry(slot.clone()).or_default();
        entry.bytes = entry.bytes.max(needed);
        entry.users += 1;
        let fetching = Arc::clone(&entry.fetching);
        Ok(Room {
            spool: self,
            slot,
            fetching,
        })
    }

    fn path(&self, slot: &Slot) -> PathBuf {
        self.dir.join(slot.job.as_str()).join(&slot.name)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Slot, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room that a call of [`Spool::ensure`] has taken, however the call ends.
struct Room<'a> {
    spool: &'a Spool,
    slot: Slot,
    fetching: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Room<'_> {
    /// Once nobody uses it, what is on disk is what it takes.
    fn drop(&mut self) {
        let path = self.spool.path(&self.slot);
        let mut entries = self.spool.lock();
        let Some(entry) = entries.get_mut(&self.slot) else {
            return;
        };
        entry.users = entry.users.saturating_sub(1);
        if entry.users > 0 {
            return;
        }
        entry.bytes = length(&path).unwrap_or(0) + length(&partial_path(&path)).unwrap_or(0);
        if entry.bytes == 0 {
            entries.remove(&self.slot);
        }
    }
}

/// Makes the job's folder; returns whether the file is there, which it is only when it is whole.
async fn begin(path: &Path, bytes: u64) -> Result<bool, Error> {
    let path = path.to_owned();
    blocking(move || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        Ok(length(&path) == Some(bytes))
    })
    .await
}

/// The length of a regular file.
fn length(path: &Path) -> Option<u64> {
    let meta = path.metadata().ok();
    meta.filter(fs::Metadata::is_file).map(|meta| meta.len())
}

/// Removes what spools have made in a folder; anything else stays.
fn empty(dir: &Path) -> Result<(), Error> {
    for entry in dir.read_dir().map_err(|e| Error::io(dir, e))? {
        let path = entry.map_err(|e| Error::io(dir, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let hex = name.strip_suffix(".partial").unwrap_or(&name);
        if name.parse::<JobId>().is_ok() {
            gone(fs::remove_dir_all(&path), &path)?;
        } else if format!("sha256:{hex}").parse::<Digest>().is_ok() {
            // Of releases that kept the files of all jobs in one folder.
            gone(fs::remove_file(&path), &path)?;
        }
    }
    Ok(())
}

/// What is not there was removed before.
fn gone(removed: io::Result<()>, path: &Path) -> Result<(), Error> {
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::Config;

    /// Storage with one artifact, and a spool of 1000 bytes.
    struct Bench {
        dir: TempDir,
        store: Store,
        artifact: ArtifactRef,
        spool: Spool,
        transfer: Transfer,
    }

    impl Bench {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let config = Config {
                url: format!("file://{}", dir.path().join("objects").display()),
                ..Config::default()
            };
            let (store, transfer) = (Store::open(&config).unwrap(), Transfer::default());
            let stored = store.put_bytes("a", vec![7_u8; 300], &transfer).await;
            let artifact = stored.unwrap();
            let spool = Spool::open(&dir.path().join("spool"), 1000).unwrap();
            Self {
                dir,
                store,
                artifact,
                spool,
                transfer,
            }
        }

        async fn ensure(&self, job: &JobId, artifact: &ArtifactRef) -> Result<PathBuf, Error> {
            let Self {
                spool,
                store,
                transfer,
                ..
            } = self;
            spool.ensure(job, store, artifact, transfer).await
        }
    }

    fn job(bits: u64) -> JobId {
        JobId::from_bits(bits)
    }

    #[tokio::test]
    async fn a_job_that_is_forgotten_leaves_nothing_and_takes_nothing_from_another() {
        let bench = Bench::new().await;
        let one = bench.ensure(&job(1), &bench.artifact).await.unwrap();
        let other = bench.ensure(&job(2), &bench.artifact).await.unwrap();
        assert_eq!(bench.spool.used_bytes(), 600);
        bench.spool.forget(&job(1)).await.unwrap();
        bench.spool.forget(&job(3)).await.unwrap();
        assert_eq!(bench.spool.used_bytes(), 300);
        assert!(!one.exists() && !one.parent().unwrap().exists());
        assert!(other.exists());
        bench.spool.remove(&job(1), &bench.artifact).await.unwrap();
        assert!(other.exists());
        bench.ensure(&job(1), &bench.artifact).await.unwrap();
        assert_eq!(bench.spool.used_bytes(), 600);
    }

    #[tokio::test]
    async fn what_an_earlier_process_left_is_gone_and_what_is_no_spools_stays() {
        let bench = Bench::new().await;
        let file = bench.ensure(&job(1), &bench.artifact).await.unwrap();
        let dir = bench.dir.path().join("spool");
        let hex = bench.artifact.sha256.hex();
        let (flat, partial) = (dir.join(hex), dir.join(format!("{hex}.partial")));
        let (foreign, folder) = (dir.join("notes"), dir.join("jobs"));
        for path in [&flat, &partial, &foreign] {
            fs::write(path, [0_u8; 900]).unwrap();
        }
        fs::create_dir(&folder).unwrap();
        let again = Spool::open(&dir, 1000).unwrap();
        assert_eq!(again.used_bytes(), 0);
        for path in [&file, &flat, &partial] {
            assert!(!path.exists(), "{}", path.display());
        }
        assert!(foreign.exists() && folder.exists());
        let (one, store) = (job(1), &bench.store);
        let fetched = again.ensure(&one, store, &bench.artifact, &bench.transfer);
        assert_eq!(fetched.await.unwrap(), file);
    }

    #[tokio::test]
    async fn a_digest_that_is_here_is_no_file_of_whoever_has_not_stored_it() {
        let bench = Bench::new().await;
        bench.ensure(&job(1), &bench.artifact).await.unwrap();
        let claimed = ArtifactRef {
            key: bench.artifact.key.replace("a/", "b/"),
            ..bench.artifact.clone()
        };
        let error = bench.ensure(&job(1), &claimed).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
        bench.spool.remove(&job(1), &claimed).await.unwrap();
        assert_eq!(bench.spool.used_bytes(), 300);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_for_another_takes_no_room_from_it_and_leaves_none_taken() {
        let bench = Bench::new().await;
        let slot = Slot::of(&job(1), &bench.artifact);
        let first = bench.spool.reserve(slot.clone(), 300).unwrap();
        let second = bench.spool.reserve(slot, 300).unwrap();
        drop(second);
        assert_eq!(bench.spool.used_bytes(), 300);
        drop(first);
        assert_eq!(bench.spool.used_bytes(), 0);
        assert!(bench.spool.lock().is_empty());
    }
}

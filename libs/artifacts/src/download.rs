//! Fetching: the manifest first, every part verified on its way, the whole verified before it has
//! its name.
//!
//! An interrupted download leaves `<dest>.partial`; the next call keeps the parts at its beginning
//! that are still right. Two calls at the same time must not have the same `dest`
//! ([`crate::Spool`] and [`crate::ModelCache`] see to that).

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use domain::artifact::ArtifactRef;
use domain::grant::{Access, Wanted};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use sha2::{Digest as _, Sha256};

use crate::manifest::{self, MANIFEST_BYTES, Manifest, Part};
use crate::source::{blocking, digest_of, finish};
use crate::store::Store;
use crate::upload::{invalid, part_key};
use crate::{Error, PARTS_IN_FLIGHT, Transfer, key};

impl Store {
    /// Fetches an artifact of at most `limit` bytes to `dest`, which is complete and verified as
    /// soon as it exists. If it exists and is right, nothing is fetched.
    ///
    /// # Errors
    /// [`Error::TooLarge`] before a byte of it is fetched; [`Error::Corrupt`],
    /// [`Error::WrongLength`] and [`Error::Manifest`] if storage lies; [`Error::Full`] if the disk
    /// is full, what was fetched being kept.
    pub async fn get_file(
        &self,
        artifact: &ArtifactRef,
        dest: &Path,
        limit: u64,
        transfer: &Transfer,
    ) -> Result<(), Error> {
        let file = transfer.guard(self.manifest_of(artifact, limit)).await?;
        let prefix = key::parent(&artifact.key)?;
        self.expect(|| reads(prefix, &file).collect());
        self.fetch(prefix, &file, dest, transfer).await
    }

    /// Fetches an artifact of at most `limit` bytes into memory.
    ///
    /// # Errors
    /// As [`Store::get_file`].
    pub async fn get_bytes(
        &self,
        artifact: &ArtifactRef,
        limit: u64,
        transfer: &Transfer,
    ) -> Result<Bytes, Error> {
        let file = transfer.guard(self.manifest_of(artifact, limit)).await?;
        let prefix = key::parent(&artifact.key)?;
        self.expect(|| reads(prefix, &file).collect());
        // The manifest's sum is right, and below the limit that the caller can bear.
        let mut all = BytesMut::with_capacity(file.bytes as usize);
        let parts: Vec<_> = (file.parts.iter())
            .map(|part| self.fetch_part(prefix, part, transfer).boxed())
            .collect();
        let mut parts = stream::iter(parts).buffered(PARTS_IN_FLIGHT);
        while let Some(part) = transfer.guard(parts.try_next()).await? {
            all.extend_from_slice(&part);
        }
        let (all, expected) = (all.freeze(), file.sha256.clone());
        let content = all.clone();
        let found = blocking(move || Ok(digest_of(&content))).await?;
        if found == expected {
            Ok(all)
        } else {
            Err(Error::Corrupt {
                key: artifact.key.clone(),
                expected,
                found,
            })
        }
    }

    /// Reads an artifact's manifest and nothing of its content: whether storage gives us what lies there. That an object
    /// is there ([`Store::exists`]) says less, for a server may tell that of one which it does not give.
    ///
    /// # Errors
    /// As [`Store::get_file`].
    pub async fn look_up(&self, artifact: &ArtifactRef, transfer: &Transfer) -> Result<(), Error> {
        let looked = transfer.guard(self.manifest_of(artifact, artifact.bytes));
        looked.await.map(drop)
    }

    /// The only file that the artifact's manifest describes, once it agrees with the reference.
    async fn manifest_of(
        &self,
        artifact: &ArtifactRef,
        limit: u64,
    ) -> Result<manifest::File, Error> {
        let ArtifactRef { key, sha256, bytes } = artifact;
        if *bytes > limit {
            return Err(Error::TooLarge {
                key: key.clone(),
                bytes: *bytes,
                limit,
            });
        }
        let text = self.get_small(key, MANIFEST_BYTES).await?;
        let manifest = Manifest::parse(&text).map_err(|e| invalid(key, e))?;
        match manifest.single_file() {
            Some(file) if file.bytes > limit => Err(Error::TooLarge {
                key: key.clone(),
                bytes: file.bytes,
                limit,
            }),
            Some(file) if file.bytes != *bytes => Err(Error::WrongLength {
                key: key.clone(),
                expected: *bytes,
                found: file.bytes,
            }),
            Some(file) if file.sha256 == *sha256 => Ok(file.clone()),
            _ => Err(invalid(key, manifest::Error::Other)),
        }
    }

    /// Fetches what `file` describes to `dest`, from the parts under `prefix`.
    pub(crate) async fn fetch(
        &self,
        prefix: &str,
        file: &manifest::File,
        dest: &Path,
        transfer: &Transfer,
    ) -> Result<(), Error> {
        let mut partial = Partial::open(dest, file, transfer).await?;
        let missing = file.parts.iter().skip(partial.parts_kept);
        // Listed first: a lazy closure across an await hides from callers that this can change threads.
        let parts: Vec<_> = missing
            .map(|part| self.fetch_part(prefix, part, transfer).boxed())
            .collect();
        let mut parts = stream::iter(parts).buffered(PARTS_IN_FLIGHT);
        while let Some(part) = transfer.guard(parts.try_next()).await? {
            partial = blocking(move || partial.append(&part)).await?;
        }
        let file = file.clone();
        blocking(move || partial.seal(&file)).await
    }

    pub(crate) async fn fetch_part(
        &self,
        prefix: &str,
        part: &Part,
        transfer: &Transfer,
    ) -> Result<Bytes, Error> {
        let key = part_key(prefix, part);
        let bytes = self.get_exact(&key, part.bytes, transfer).await?;
        let expected = part.sha256.clone();
        blocking(move || {
            let found = digest_of(&bytes);
            if found == expected {
                Ok(bytes)
            } else {
                Err(Error::Corrupt {
                    key,
                    expected,
                    found,
                })
            }
        })
        .await
    }
}

/// What fetching a file asks for, in order.
pub(crate) fn reads(prefix: &str, file: &manifest::File) -> impl Iterator<Item = Wanted> {
    file.parts.iter().map(move |part| Wanted {
        access: Access::Get,
        key: part_key(prefix, part),
    })
}

/// What is there of a download; the hasher has seen exactly the bytes below `length`.
struct Partial {
    dest: PathBuf,
    path: PathBuf,
    file: Arc<fs::File>,
    hasher: Sha256,
    length: u64,
    parts_kept: usize,
}

impl Partial {
    /// Takes up what an earlier call left, or a complete `dest`, as far as it is right.
    async fn open(
        dest: &Path,
        expected: &manifest::File,
        transfer: &Transfer,
    ) -> Result<Self, Error> {
        let dest = dest.to_owned();
        let mut this = blocking(move || {
            let path = partial_path(&dest);
            if !path.exists() && dest.exists() {
                // Looked at again under the name that says "not verified".
                fs::rename(&dest, &path).map_err(|e| Error::io(&dest, e))?;
            }
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path);
            let file = Arc::new(file.map_err(|e| Error::io(&path, e))?);
            Ok(Self {
                dest,
                path,
                file,
                hasher: Sha256::new(),
                length: 0,
                parts_kept: 0,
            })
        })
        .await?;
        for part in &expected.parts {
            let part = part.clone();
            let (next, kept) = transfer.guard(blocking(move || this.keep(&part))).await?;
            this = next;
            if !kept {
                break;
            }
            transfer.count(
                expected
                    .parts
                    .get(this.parts_kept - 1)
                    .map_or(0, |p| p.bytes),
            );
        }
        blocking(move || {
            this.file
                .set_len(this.length)
                .map_err(|e| Error::io(&this.path, e))?;
            Ok(this)
        })
        .await
    }

    /// Whether the next part is already there; if so, steps over it.
    fn keep(mut self, part: &Part) -> Result<(Self, bool), Error> {
        let mut bytes = vec![0; part.bytes as usize];
        match self.file.read_exact_at(&mut bytes, self.length) {
            Ok(()) if digest_of(&bytes) == part.sha256 => {
                self.hasher.update(&bytes);
                self.length += part.bytes;
                self.parts_kept += 1;
                Ok((self, true))
            }
            Ok(()) => Ok((self, false)),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok((self, false)),
            Err(e) => Err(Error::io(&self.path, e)),
        }
    }

    fn append(mut self, part: &[u8]) -> Result<Self, Error> {
        self.file
            .write_all_at(part, self.length)
            .map_err(|e| Error::io(&self.path, e))?;
        self.hasher.update(part);
        self.length += part.len() as u64;
        Ok(self)
    }

    /// Verifies the whole, makes it durable and gives it its name.
    fn seal(self, expected: &manifest::File) -> Result<(), Error> {
        let found = finish(self.hasher);
        if found != expected.sha256 {
            // Parts that are what they say and a whole that is not: nothing here can be kept.
            fs::remove_file(&self.path).map_err(|e| Error::io(&self.path, e))?;
            let key = self.dest.display().to_string();
            return Err(Error::Corrupt {
                key,
                expected: expected.sha256.clone(),
                found,
            });
        }
        self.file.sync_all().map_err(|e| Error::io(&self.path, e))?;
        rename_durably(&self.path, &self.dest)
    }
}

/// Where a download to `dest` is kept until it is verified.
pub(crate) fn partial_path(dest: &Path) -> PathBuf {
    let mut name = dest.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Renames, and returns when the new name would survive a power loss.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|e| Error::io(to, e))?;
    let folder = to.parent().unwrap_or(Path::new("/"));
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|e| Error::io(folder, e))
}

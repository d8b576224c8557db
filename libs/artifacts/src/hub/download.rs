//! One file: from where it broke off, verified whole before it has its name.
//!
//! An interrupted download leaves `<dest>.partial`. Two at the same time must not have the same `dest`
//! ([`crate::ModelCache`] sees to that).

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode, Url};

use super::ask::protocol;
use super::digest::{Expected, Hasher};
use super::{Error, Hub};
use crate::download::{partial_path, rename_durably};
use crate::source::blocking;
use crate::{Retry, Transfer};

/// Bytes that are gathered before they are hashed and written.
const PIECE: usize = 1 << 20;

/// A file of the Hub.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// What it is called here.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    pub(super) url: Url,
    /// Model and file, for people.
    pub(super) what: String,
    pub(super) expected: Expected,
}

impl Hub {
    /// Brings a file to `dest`, which is complete and verified as soon as it exists.
    pub(crate) async fn fetch(
        &self,
        file: &Remote,
        dest: &Path,
        transfer: &Transfer,
    ) -> Result<(), crate::Error> {
        if dest.is_file() {
            transfer.count(file.bytes);
            return Ok(());
        }
        let mut partial = Partial::open(dest, file, transfer).await?;
        let mut resumed = partial.length > 0;
        loop {
            partial = self.complete(partial, file, transfer).await?;
            let (expected, found) = (file.expected.hex(), partial.hasher.clone().finish());
            if found == expected {
                return blocking(move || partial.seal()).await;
            }
            partial = blocking(move || partial.restart()).await?;
            // What an earlier call left may be the wrong part of it: once, all of it is asked for.
            if !std::mem::take(&mut resumed) {
                let (what, expected) = (file.what.clone(), expected.to_owned());
                return Err(Error::Digest {
                    what,
                    expected,
                    found,
                }
                .into());
            }
        }
    }

    /// All bytes, whatever breaks off between.
    async fn complete(
        &self,
        mut partial: Partial,
        file: &Remote,
        transfer: &Transfer,
    ) -> Result<Partial, crate::Error> {
        let mut failed = 0;
        while partial.length < file.bytes {
            let before = partial.length;
            let received = transfer
                .guard(self.receive(partial.clone(), file, transfer))
                .await;
            match received? {
                (now, None) => partial = now,
                (now, Some(error)) => {
                    if now.length > before {
                        failed = 0;
                    }
                    partial = now;
                    let wait = async { Ok(self.wait(error, &mut failed).await?) };
                    transfer.guard(wait).await?;
                }
            }
        }
        Ok(partial)
    }

    /// As far as one answer goes; what came before it broke off is kept.
    async fn receive(
        &self,
        partial: Partial,
        file: &Remote,
        transfer: &Transfer,
    ) -> Result<(Partial, Option<Error>), crate::Error> {
        let answer = match self
            .content(file.url.clone(), &file.what, partial.length)
            .await
        {
            Ok(answer) => answer,
            Err(error @ Error::Range { .. }) => {
                let partial = blocking(move || partial.restart()).await?;
                return Ok((partial, Some(error)));
            }
            Err(error) if error.retry() == Retry::Later => return Ok((partial, Some(error))),
            Err(error) => return Err(error.into()),
        };
        let mut partial = match begins_at(&answer, partial.length, file)? {
            0 if partial.length > 0 => blocking(move || partial.restart()).await?,
            _ => partial,
        };
        let (mut body, mut piece) = (answer.bytes_stream(), BytesMut::with_capacity(PIECE));
        let mut broken = None;
        while let Some(bytes) = body.next().await {
            match bytes {
                Ok(bytes) => {
                    let found = partial.length + (piece.len() + bytes.len()) as u64;
                    if found > file.bytes {
                        let why = format!("more than the {} bytes that were promised", file.bytes);
                        return Err(protocol(&file.what, why).into());
                    }
                    transfer.count_moved(bytes.len() as u64);
                    transfer.pace(bytes.len() as u64).await?;
                    piece.extend_from_slice(&bytes);
                }
                Err(error) => {
                    broken = Some(self.unreachable(error));
                    break;
                }
            }
            if piece.len() >= PIECE {
                let full = piece.split().freeze();
                partial = blocking(move || partial.append(full)).await?;
            }
        }
        let rest = piece.freeze();
        partial = blocking(move || partial.append(rest)).await?;
        if broken.is_none() && partial.length < file.bytes {
            broken = Some(Error::Short {
                what: file.what.clone(),
                expected: file.bytes,
                found: partial.length,
            });
        }
        Ok((partial, broken))
    }
}

/// Where the answer begins: at byte `from`, or anew if the server does not go on.
fn begins_at(answer: &Response, from: u64, file: &Remote) -> Result<u64, Error> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(0);
    }
    let range = answer
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    let range = range.unwrap_or_default();
    let (begins, total) = (format!("bytes {from}-"), format!("/{}", file.bytes));
    if range.starts_with(&begins) && (range.ends_with(&total) || range.ends_with("/*")) {
        Ok(from)
    } else {
        let why = format!(
            "it was asked for what follows byte {from} of {} and gives `{range}`",
            file.bytes
        );
        Err(protocol(&file.what, why))
    }
}

/// What is there of a file; the hasher has seen exactly the bytes below `length`.
#[derive(Clone)]
struct Partial {
    dest: PathBuf,
    path: PathBuf,
    file: Arc<fs::File>,
    fresh: Hasher,
    hasher: Hasher,
    length: u64,
}

impl Partial {
    /// Takes up what an earlier call left.
    async fn open(dest: &Path, remote: &Remote, transfer: &Transfer) -> Result<Self, crate::Error> {
        let dest = dest.to_owned();
        let (fresh, bytes) = (remote.expected.hasher(remote.bytes), remote.bytes);
        let opened = blocking(move || {
            let path = partial_path(&dest);
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false);
            let file = options
                .open(&path)
                .map_err(|e| crate::Error::io(&path, e))?;
            let left = file
                .metadata()
                .map_err(|e| crate::Error::io(&path, e))?
                .len();
            let (file, hasher) = (Arc::new(file), fresh.clone());
            let this = Self {
                dest,
                path,
                file,
                fresh,
                hasher,
                length: 0,
            };
            // Longer than the whole: nothing of it can be trusted.
            if left > bytes {
                Ok((this.restart()?, 0))
            } else {
                Ok((this, left))
            }
        });
        let (mut this, left) = opened.await?;
        while this.length < left {
            let seen = this.length;
            this = transfer.guard(blocking(move || this.see(left))).await?;
            transfer.count(this.length - seen);
        }
        Ok(this)
    }

    /// Hashes the next bytes that are there already.
    fn see(mut self, left: u64) -> Result<Self, crate::Error> {
        let mut bytes = vec![0; (left - self.length).min(8 * PIECE as u64) as usize];
        let read = self.file.read_exact_at(&mut bytes, self.length);
        read.map_err(|e| crate::Error::io(&self.path, e))?;
        self.hasher.update(&bytes);
        self.length += bytes.len() as u64;
        Ok(self)
    }

    fn append(mut self, bytes: Bytes) -> Result<Self, crate::Error> {
        let written = self.file.write_all_at(&bytes, self.length);
        written.map_err(|e| crate::Error::io(&self.path, e))?;
        self.hasher.update(&bytes);
        self.length += bytes.len() as u64;
        Ok(self)
    }

    /// Nothing of it is kept.
    fn restart(mut self) -> Result<Self, crate::Error> {
        self.file
            .set_len(0)
            .map_err(|e| crate::Error::io(&self.path, e))?;
        self.hasher = self.fresh.clone();
        self.length = 0;
        Ok(self)
    }

    fn seal(self) -> Result<(), crate::Error> {
        self.file
            .sync_all()
            .map_err(|e| crate::Error::io(&self.path, e))?;
        rename_durably(&self.path, &self.dest)
    }
}

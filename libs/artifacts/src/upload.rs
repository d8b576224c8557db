//! Sending: parts first, their manifest last, nothing twice.

use std::path::Path;

use bytes::Bytes;
use domain::artifact::ArtifactRef;
use domain::grant::{Access, Wanted};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use crate::manifest::{self, Manifest};
use crate::source::Content;
use crate::store::Store;
use crate::{Error, PARTS_IN_FLIGHT, Transfer, key};

/// The name of the content in the manifest of a single file: the same for everybody, so that two
/// writers of the same content write the same manifest.
pub(crate) const CONTENT: &str = "content";

impl Store {
    /// Stores a file under `prefix` (`jobs/<job>/updates/<worker>`): its parts at
    /// `<prefix>/parts/<sha256>`, then its manifest at `<prefix>/<sha256>.manifest`.
    ///
    /// Calling it again after an error or a crash sends only what is missing.
    ///
    /// # Errors
    /// Whatever storage or the local file refuses; [`Error::Changed`] if the file changed meanwhile.
    pub async fn put_file(
        &self,
        prefix: &str,
        path: &Path,
        transfer: &Transfer,
    ) -> Result<ArtifactRef, Error> {
        self.put_content(prefix, Content::File(path.to_owned()), transfer)
            .await
    }

    /// Stores bytes as [`Store::put_file`] stores a file.
    ///
    /// # Errors
    /// Whatever storage refuses.
    pub async fn put_bytes(
        &self,
        prefix: &str,
        bytes: impl Into<Bytes>,
        transfer: &Transfer,
    ) -> Result<ArtifactRef, Error> {
        self.put_content(prefix, Content::Bytes(bytes.into()), transfer)
            .await
    }

    async fn put_content(
        &self,
        prefix: &str,
        content: Content,
        transfer: &Transfer,
    ) -> Result<ArtifactRef, Error> {
        key::parse(prefix)?;
        let file = content.describe(CONTENT.to_owned(), transfer).await?;
        let key = key::join(prefix, &format!("{}.manifest", file.sha256.hex()));
        let artifact = ArtifactRef {
            key,
            sha256: file.sha256.clone(),
            bytes: file.bytes,
        };
        let manifest = Manifest::new(vec![file]).map_err(|e| invalid(&artifact.key, e))?;
        self.seal(&artifact.key, prefix, &manifest, &[content], transfer)
            .await?;
        Ok(artifact)
    }

    /// Sends the parts of every file, then the manifest at `key`. `contents` are in the order of
    /// the manifest's files.
    pub(crate) async fn seal(
        &self,
        key: &str,
        prefix: &str,
        manifest: &Manifest,
        contents: &[Content],
        transfer: &Transfer,
    ) -> Result<(), Error> {
        let sealed = Bytes::from(manifest.to_bytes().map_err(|e| invalid(key, e))?);
        self.expect(|| writes(key, prefix, manifest));
        if transfer
            .guard(self.is_placed(key, sealed.len() as u64))
            .await?
        {
            // Somebody was here before and finished.
            transfer.count(manifest.bytes());
            return Ok(());
        }
        for (file, content) in manifest.files().iter().zip(contents) {
            self.send_parts(prefix, file, content, transfer).await?;
        }
        // So that whoever polls this sees all parts counted before anything of the manifest is sent.
        tokio::task::yield_now().await;
        // The manifest is not content: it is neither counted nor held to the emulated link.
        let quiet = Transfer::default();
        transfer.guard(self.create(key, sealed, &quiet)).await
    }

    async fn send_parts(
        &self,
        prefix: &str,
        file: &manifest::File,
        content: &Content,
        transfer: &Transfer,
    ) -> Result<(), Error> {
        let mut offset = 0;
        let parts = file.parts.iter().map(|part| {
            let start = offset;
            offset += part.bytes;
            async move {
                let key = part_key(prefix, part);
                // A part that is there is not even read from disk again.
                if self.is_placed(&key, part.bytes).await? {
                    transfer.count(part.bytes);
                    return Ok(());
                }
                self.create(&key, content.read_described(start, part).await?, transfer)
                    .await
            }
            // Boxed and listed first: a lazy closure across an await hides that this can change threads.
            .boxed()
        });
        let parts: Vec<_> = parts.collect();
        let sent = stream::iter(parts)
            .buffer_unordered(PARTS_IN_FLIGHT)
            .try_collect::<()>();
        transfer.guard(sent).await
    }
}

/// What storing this asks for, in order.
fn writes(key: &str, prefix: &str, manifest: &Manifest) -> Vec<Wanted> {
    let wanted = |access, key: &str| Wanted {
        access,
        key: key.to_owned(),
    };
    let parts = manifest.files().iter().flat_map(|file| &file.parts);
    let parts = parts.flat_map(|part| {
        let key = part_key(prefix, part);
        [wanted(Access::Head, &key), wanted(Access::Put, &key)]
    });
    std::iter::once(wanted(Access::Head, key))
        .chain(parts)
        .chain(std::iter::once(wanted(Access::Put, key)))
        .collect()
}

/// Where a part of an artifact under `prefix` lies.
pub(crate) fn part_key(prefix: &str, part: &manifest::Part) -> String {
    format!("{prefix}/parts/{}", part.sha256.hex())
}

/// A manifest at `key` that cannot be true.
pub(crate) fn invalid(key: &str, source: manifest::Error) -> Error {
    Error::Manifest {
        key: key.to_owned(),
        source,
    }
}

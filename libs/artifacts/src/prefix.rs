//! What lies under a prefix: how much it is, and how it goes away.

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::source::blocking;
use crate::{Error, Store, key};

/// What lies under a prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many objects.
    pub objects: u64,
    /// Their length together.
    pub bytes: u64,
}

impl Store {
    /// Counts what lies under `prefix`.
    ///
    /// # Errors
    /// Whatever keeps the storage from answering.
    pub async fn usage(&self, prefix: &str) -> Result<Usage, Error> {
        self.each(prefix, Usage::default(), async |sum, meta| {
            Ok(Usage {
                objects: sum.objects + 1,
                bytes: sum.bytes + meta.size,
            })
        })
        .await
    }

    /// Deletes everything under `prefix`, manifests first, so that nobody finds a seal on parts
    /// that are gone. Calling it again, or where nothing is, is a success.
    ///
    /// # Errors
    /// Whatever keeps the storage from answering; what was deleted stays so.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<Usage, Error> {
        let mut gone = Usage::default();
        for manifests_only in [true, false] {
            gone = self
                .each(prefix, gone, async |sum, meta: ObjectMeta| {
                    if manifests_only && !is_manifest(&meta.location) {
                        return Ok(sum);
                    }
                    self.delete(&meta.location).await?;
                    Ok(Usage {
                        objects: sum.objects + 1,
                        bytes: sum.bytes + meta.size,
                    })
                })
                .await?;
        }
        if let Some(folder) = &self.folder {
            // A writer that was killed leaves its staging file, which is no object.
            let folder = folder.join(prefix);
            blocking(move || match std::fs::remove_dir_all(&folder) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&folder, e)),
                _ => Ok(()),
            })
            .await?;
        }
        Ok(gone)
    }

    pub(crate) async fn delete(&self, location: &Path) -> Result<(), Error> {
        use object_store::ObjectStoreExt as _;
        match self.reads.delete(location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(Error::storage(&self.place, location.as_ref(), e)),
        }
    }

    /// Folds over the objects under `prefix`, one listed page in memory at a time.
    async fn each<F>(&self, prefix: &str, start: Usage, mut step: F) -> Result<Usage, Error>
    where
        F: AsyncFnMut(Usage, ObjectMeta) -> Result<Usage, Error>,
    {
        let mut objects = self.reads.list(Some(&key::parse(prefix)?)).boxed();
        let mut sum = start;
        loop {
            match objects.try_next().await {
                Ok(Some(meta)) => sum = step(sum, meta).await?,
                Ok(None) => return Ok(sum),
                // A folder that goes away while it is listed has nothing more to list.
                Err(object_store::Error::NotFound { .. }) => return Ok(sum),
                Err(e) => return Err(Error::storage(&self.place, prefix, e)),
            }
        }
    }
}

fn is_manifest(location: &Path) -> bool {
    location
        .filename()
        .is_some_and(|name| name == "manifest" || name.ends_with(".manifest"))
}

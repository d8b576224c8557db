//! What lies under a prefix: how much it is, and how it goes away.

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::classify::Place;
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
        let mut listing = self.listing(prefix)?;
        let mut sum = Usage::default();
        while let Some(meta) = listing.next().await? {
            sum.add(&meta);
        }
        Ok(sum)
    }

    /// Deletes everything under `prefix`, manifests first, so that nobody finds a seal on parts
    /// that are gone. Calling it again, or where nothing is, is a success.
    ///
    /// # Errors
    /// Whatever keeps the storage from answering; what was deleted stays so.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<Usage, Error> {
        let gone = self.delete_chosen(prefix, |_| true).await?;
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

    /// Deletes the objects under `prefix` whose key is chosen, manifests first. However many are chosen,
    /// the prefix is listed twice, page by page.
    ///
    /// # Errors
    /// As [`Store::delete_prefix`].
    pub async fn delete_chosen(
        &self,
        prefix: &str,
        choose: impl Fn(&str) -> bool,
    ) -> Result<Usage, Error> {
        let mut gone = Usage::default();
        for manifests_only in [true, false] {
            let mut listing = self.listing(prefix)?;
            while let Some(meta) = listing.next().await? {
                let now = !manifests_only || is_manifest(&meta.location);
                if now && choose(meta.location.as_ref()) {
                    self.delete(&meta.location).await?;
                    gone.add(&meta);
                }
            }
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

    fn listing(&self, prefix: &str) -> Result<Listing<'_>, Error> {
        let objects = self.reads.list(Some(&key::parse(prefix)?)).boxed();
        Ok(Listing {
            objects,
            place: &self.place,
            prefix: prefix.to_owned(),
        })
    }
}

impl Usage {
    fn add(&mut self, meta: &ObjectMeta) {
        self.objects += 1;
        self.bytes += meta.size;
    }
}

/// The objects under a prefix, one listed page in memory at a time.
struct Listing<'a> {
    objects: BoxStream<'a, object_store::Result<ObjectMeta>>,
    place: &'a Place,
    prefix: String,
}

impl Listing<'_> {
    async fn next(&mut self) -> Result<Option<ObjectMeta>, Error> {
        match self.objects.try_next().await {
            Ok(meta) => Ok(meta),
            // A folder that goes away while it is listed has nothing more to list.
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::storage(self.place, &self.prefix, e)),
        }
    }
}

fn is_manifest(location: &Path) -> bool {
    location
        .filename()
        .is_some_and(|name| name == "manifest" || name.ends_with(".manifest"))
}

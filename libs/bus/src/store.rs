//! The key-value store: the truth. Compare-and-set lives here and nowhere else. Values are JSON, so
//! that a person can read them with any NATS tool.

use std::marker::PhantomData;

use async_nats::jetstream::kv;
use async_nats::jetstream::kv::{CreateErrorKind, UpdateErrorKind};
use contract::topology::Bucket;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::topology::VALUE_LIMIT;
use crate::unread::Unread;
use crate::{Bus, Error};

/// Which version of a value was read; a write with it succeeds only if nobody wrote since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision(pub(crate) u64);

/// The values of one type in one bucket.
#[derive(Clone, Debug)]
pub struct Store<T> {
    store: kv::Store,
    bucket: Bucket,
    unread: Unread,
    kind: PhantomData<fn() -> T>,
}

impl Bus {
    /// Opens a bucket.
    ///
    /// # Errors
    /// If the server does not answer or the bucket does not exist yet.
    pub async fn store<T: Serialize + DeserializeOwned>(
        &self,
        bucket: Bucket,
    ) -> Result<Store<T>, Error> {
        let store = self.jetstream.get_key_value(bucket.name()).await;
        let store = store.map_err(|error| Error::unavailable("open a bucket")(Box::new(error)))?;
        Ok(Store {
            store,
            bucket,
            unread: self.unread.clone(),
            kind: PhantomData,
        })
    }
}

impl<T: Serialize + DeserializeOwned> Store<T> {
    /// Reads a value and its revision.
    ///
    /// # Errors
    /// If the server does not answer or the value cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<(T, Revision)>, Error> {
        let entry = self.store.entry(key).await;
        let entry = entry.map_err(|error| Error::unavailable("read a value")(Box::new(error)))?;
        let Some(entry) = entry.filter(|entry| entry.operation == kv::Operation::Put) else {
            return Ok(None);
        };
        decode(key, &entry.value).map(|value| Some((value, Revision(entry.revision))))
    }

    /// Reads a value of somebody else's, for whoever can do without it: one that this program cannot read is told once
    /// in the log and counts as absent. Whoever writes or deletes by what it reads uses [`Store::get`], which refuses.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn look(&self, key: &str) -> Result<Option<T>, Error> {
        Ok(self.readable(key).await?.map(|(value, _)| value))
    }

    /// As [`Store::look`], with the revision.
    pub(crate) async fn readable(&self, key: &str) -> Result<Option<(T, Revision)>, Error> {
        match self.get(key).await {
            Err(unread @ Error::Decode { .. }) => {
                self.unread.tell(self.bucket, key, &unread);
                Ok(None)
            }
            found => found,
        }
    }

    /// Writes a value that must not exist yet.
    ///
    /// # Errors
    /// `Conflict` if it exists; others as [`Store::get`].
    pub async fn create(&self, key: &str, value: &T) -> Result<Revision, Error> {
        match self.store.create(key, encode(value)?.into()).await {
            Ok(revision) => Ok(Revision(revision)),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Err(Error::Conflict {
                key: key.to_owned(),
            }),
            Err(error) => Err(Error::unavailable("create a value")(Box::new(error))),
        }
    }

    /// Writes a value if nobody wrote it since it was read.
    ///
    /// # Errors
    /// `Conflict` if somebody did; others as [`Store::get`].
    pub async fn update(&self, key: &str, value: &T, read: Revision) -> Result<Revision, Error> {
        match self.store.update(key, encode(value)?.into(), read.0).await {
            Ok(revision) => Ok(Revision(revision)),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                Err(Error::Conflict {
                    key: key.to_owned(),
                })
            }
            Err(error) => Err(Error::unavailable("update a value")(Box::new(error))),
        }
    }

    /// Writes a value whatever stands there: only for values with one writer.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn put(&self, key: &str, value: &T) -> Result<(), Error> {
        let put = self.store.put(key, encode(value)?.into()).await;
        put.map(drop)
            .map_err(|error| Error::unavailable("write a value")(Box::new(error)))
    }

    /// Removes a value and its history.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        let purged = self.store.purge(key).await;
        purged.map_err(|error| Error::unavailable("remove a value")(Box::new(error)))
    }

    /// All keys, in no particular order.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn keys(&self) -> Result<Vec<String>, Error> {
        let keys = self.store.keys().await;
        let keys = keys.map_err(|error| Error::unavailable("list keys")(Box::new(error)))?;
        let keys = keys.boxed().try_collect().await;
        keys.map_err(|error| Error::unavailable("list keys")(Box::new(error)))
    }
}

pub(crate) fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|error| Error::Decode {
        subject: key.to_owned(),
        source: Box::new(error),
    })
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    let written = serde_json::to_vec(value);
    let written = written.map_err(|error| Error::Encode {
        what: "value",
        source: Box::new(error),
    })?;
    let limit = usize::try_from(VALUE_LIMIT).unwrap_or(usize::MAX);
    if written.len() > limit {
        return Err(Error::TooLarge {
            what: "value",
            bytes: written.len(),
            limit,
        });
    }
    Ok(written)
}

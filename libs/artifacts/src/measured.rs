//! Storage that tells a listener how long each of its answers took, and whether it was one.
//!
//! The listener is the process's, set once, before or after storage is opened; without one nothing is
//! measured. An operation counts as failed if it was not answered or was refused: what is not there, or
//! is there already, is an answer.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::transfer::tick;

/// What was asked of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// To keep an object.
    Put,
    /// For an object; measured until its first bytes.
    Get,
    /// Whether there is one, and how long it is.
    Head,
    /// To remove one.
    Delete,
    /// Which there are; measured until the first is named.
    List,
}

impl Operation {
    /// In one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

/// An operation and how it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// What was asked.
    pub operation: Operation,
    /// How long the answer took.
    pub took: Duration,
    /// Whether there was none, or a refusal.
    pub failed: bool,
}

static LISTENER: OnceLock<fn(Answered)> = OnceLock::new();

/// Has every operation of this process told to `listener`; only the first call has an effect. It is called
/// between a transfer's parts, so it must not wait.
pub fn listen(listener: fn(Answered)) {
    // A second listener would see the same.
    let _ = LISTENER.set(listener);
}

/// A storage under observation.
#[derive(Debug)]
pub(crate) struct Measured<S>(Arc<S>);

impl<S: ObjectStore> Measured<S> {
    pub(crate) fn over(store: Arc<S>) -> Arc<dyn ObjectStore> {
        Arc::new(Self(store))
    }
}

fn tell<T>(operation: Operation, began: tokio::time::Instant, answer: &Result<T>) {
    if let Some(listener) = LISTENER.get() {
        let failed = answer.as_ref().err().is_some_and(is_failure);
        let took = tick() - began;
        listener(Answered {
            operation,
            took,
            failed,
        });
    }
}

const fn is_failure(error: &Error) -> bool {
    !matches!(
        error,
        Error::NotFound { .. }
            | Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. }
    )
}

impl<S: ObjectStore> fmt::Display for Measured<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Measured<S> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let began = tick();
        let answer = self.0.put_opts(location, payload, options).await;
        tell(Operation::Put, began, &answer);
        answer
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head {
            Operation::Head
        } else {
            Operation::Get
        };
        let began = tick();
        let answer = self.0.get_opts(location, options).await;
        tell(operation, began, &answer);
        answer
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let mut began = tick();
        let deleted = self.0.delete_stream(locations);
        deleted
            .inspect(move |answer| {
                tell(Operation::Delete, began, answer);
                began = tick();
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let began = tick();
        let mut first = true;
        let listed = self.0.list(prefix);
        listed
            .inspect(move |answer| {
                if std::mem::take(&mut first) || answer.is_err() {
                    tell(Operation::List, began, answer);
                }
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let began = tick();
        let answer = self.0.list_with_delimiter(prefix).await;
        tell(Operation::List, began, &answer);
        answer
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use object_store::ObjectStoreExt;
    use object_store::local::LocalFileSystem;

    use super::*;

    static HEARD: Mutex<Vec<(&str, bool)>> = Mutex::new(Vec::new());

    fn hear(answered: Answered) {
        let mut heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push((answered.operation.name(), answered.failed));
    }

    #[tokio::test]
    async fn every_operation_is_told_and_only_what_was_not_answered_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let files = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        let store = Measured::over(Arc::new(files));
        // Before anybody listens nothing is told, and nothing breaks.
        store.put(&Path::from("before"), "x".into()).await.unwrap();
        listen(hear);

        store.put(&Path::from("file"), "x".into()).await.unwrap();
        store.head(&Path::from("file")).await.unwrap();
        store.get(&Path::from("missing")).await.unwrap_err();
        store.list(None).next().await.unwrap().unwrap();
        // A file is no folder: that is no answer to the question.
        store.get(&Path::from("file/below")).await.unwrap_err();
        store.delete(&Path::from("file")).await.unwrap();

        let heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = [
            ("put", false),
            ("head", false),
            ("get", false),
            ("list", false),
            ("get", true),
            ("delete", false),
        ];
        // Other tests of this process may use storage too: none of them fails in these ways.
        let mut heard = heard.iter();
        for one in expected {
            assert!(
                heard.any(|other| *other == one),
                "{one:?} is not told in order"
            );
        }
    }
}

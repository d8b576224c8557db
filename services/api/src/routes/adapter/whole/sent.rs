//! What was made, on its way out.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::job::Job;
use futures::{Stream, StreamExt, stream};
use tokio::fs::File;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::io::ReaderStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::{BLOCK, CHUNK_BYTES, Format, SHA256, header_of, local, padding, zeros};
use super::Made;
use crate::problem::{Kind, Problem};

/// How long others are refused at most while a model is sent. A body that nobody reads is neither looked at nor dropped, so that
/// it would have the permit for good; what it has on the disk is counted when room is looked for.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The permit of a model on its way out: it comes free with this, or when the time is over.
struct Sending {
    making: Mutex<Option<OwnedSemaphorePermit>>,
    /// Ends the timer.
    _sent: DropGuard,
}

impl Sending {
    fn begin(making: OwnedSemaphorePermit, longest: Duration) -> Arc<Self> {
        let sent = CancellationToken::new();
        let sending = Arc::new(Self {
            making: Mutex::new(Some(making)),
            _sent: sent.clone().drop_guard(),
        });
        let timed = Arc::downgrade(&sending);
        tokio::spawn(async move {
            let in_time = tokio::time::timeout(longest, sent.cancelled()).await;
            if in_time.is_err()
                && let Some(sending) = timed.upgrade()
            {
                sending.free();
            }
        });
        sending
    }

    fn free(&self) {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        drop(making.take());
    }
}

/// One file, or the archive of a folder; the next is made when it is sent.
pub fn answer(
    job: &Job,
    format: Format,
    (made, making): (Made, OwnedSemaphorePermit),
) -> Result<Response, Problem> {
    let digest = [(SHA256, made.sha256.to_string())];
    let sending = Sending::begin(making, LONGEST);
    let (kind, name, length, body) = match format {
        Format::Gguf => {
            let only = made.files.into_iter().next();
            let (_, file, length) =
                only.ok_or_else(|| Problem::new(Kind::Internal, "the export left no file"))?;
            let content = ReaderStream::with_capacity(File::from_std(file), CHUNK_BYTES);
            let body = Body::from_stream(held(content, length, sending));
            ("application/octet-stream", "model.gguf", length, body)
        }
        _ => {
            let (length, archive) = archive(made.files).map_err(|error| local(&error))?;
            let body = Body::from_stream(held(archive, length, sending));
            ("application/x-tar", "model.tar", length, body)
        }
    };
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{}-{name}\"", job.id),
        ),
    ];
    Ok((headers, digest, body).into_response())
}

/// A body that has the permit until its last part is handed out, or it is given up: then its files are gone.
fn held<S: Stream<Item = std::io::Result<Bytes>>>(
    body: S,
    length: u64,
    sending: Arc<Sending>,
) -> impl Stream<Item = std::io::Result<Bytes>> {
    let (mut left, mut sending) = (length, Some(sending));
    body.map(move |part| {
        let bytes = part.as_ref().map_or(0, Bytes::len);
        left = left.saturating_sub(bytes as u64);
        if left == 0 {
            // Before the client has it all, and may ask for the next.
            drop(sending.take());
        }
        part
    })
}

/// The archive of some files, and its length.
fn archive(
    files: Vec<(String, fs::File, u64)>,
) -> std::io::Result<(u64, impl Stream<Item = std::io::Result<Bytes>> + use<>)> {
    let (mut length, mut parts) = (2 * BLOCK, Vec::new());
    for (name, file, bytes) in files {
        length += BLOCK + bytes.next_multiple_of(BLOCK);
        parts.push((
            header_of(&name, bytes)?,
            File::from_std(file),
            zeros(padding(bytes)),
        ));
    }
    let content = stream::iter(parts).flat_map(|(before, file, after)| {
        let file = ReaderStream::with_capacity(file, CHUNK_BYTES);
        stream::iter([Ok(before)])
            .chain(file)
            .chain(stream::iter([Ok(after)]))
    });
    Ok((length, content.chain(stream::iter([Ok(zeros(2 * BLOCK))]))))
}

#[cfg(test)]
mod tests {
    use testkit::wait;
    use tokio::sync::Semaphore;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_next_model_is_made_when_the_last_is_sent_or_given_up() {
        let merging = Arc::new(Semaphore::new(1));
        let body = || {
            let making = Arc::clone(&merging).try_acquire_owned().expect("free");
            let parts = ["ab", "c"].map(|part| Ok(Bytes::from_static(part.as_bytes())));
            let sending = Sending::begin(making, LONGEST);
            Box::pin(held(stream::iter(parts), 3, sending))
        };
        let mut sent = body();
        assert!(matches!(sent.next().await, Some(Ok(_))));
        assert_eq!(merging.available_permits(), 0);
        assert!(matches!(sent.next().await, Some(Ok(_))));
        assert_eq!(merging.available_permits(), 1);
        let mut given_up = body();
        assert!(matches!(given_up.next().await, Some(Ok(_))));
        assert_eq!(merging.available_permits(), 0);
        drop(given_up);
        assert_eq!(merging.available_permits(), 1);
        let tasks = tokio::runtime::Handle::current().metrics();
        let ended = async || tasks.num_alive_tasks() == 0;
        wait::until("no timer is left", PATIENCE, ended).await;
    }

    #[tokio::test]
    async fn whoever_does_not_read_refuses_others_only_for_some_time() {
        let merging = Arc::new(Semaphore::new(1));
        let making = Arc::clone(&merging).try_acquire_owned().expect("free");
        let sending = Sending::begin(making, Duration::from_millis(10));
        let parts = [Ok(Bytes::from_static(b"abc"))];
        let mut unread = Box::pin(held(stream::iter(parts), 3, sending));
        let next = wait::in_time("the time is over", PATIENCE, merging.acquire()).await;
        let next = next.expect("still one");
        // It may be read yet, and frees nothing that another has by now.
        let part = unread.next().await.expect("a part");
        assert_eq!(part.expect("readable"), "abc");
        drop(unread);
        assert_eq!(merging.available_permits(), 0);
        drop(next);
        assert_eq!(merging.available_permits(), 1);
    }
}

//! The job's model with its adapter in its weights, made here where this process has the memory for it.
//!
//! Promises: it is the engine's own export, which reads back what it wrote and compares its logits before the first byte
//! leaves; one is made at a time, by one thread; what does not fit is refused with the command that makes it where the model is.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artifacts::{CachedModel, ModelCache, Transfer};
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::artifact::{ArtifactRef, Digest};
use domain::job::Job;
use engine::control::Control;
use engine::export::{self, Error, Precision, Request};
use engine::memory;
use engine::model::{Base, Model};
use futures::{Stream, StreamExt, stream};
use tempfile::TempDir;
use tokio::fs::File;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::io::ReaderStream;

use super::model::{self, Stored, elsewhere};
use super::{
    BLOCK, CHUNK_BYTES, Format, SHA256, digest_of, fetch, header_of, local, padding, turn, zeros,
};
use crate::problem::{Kind, Problem};
use crate::state::App;

/// How often the largest table is held at once: as it came, in 32 bits, rounded, and read back.
const TABLES: u64 = 4;

/// What is to be made, and of what; its files are gone with it.
struct Asked {
    place: TempDir,
    model: CachedModel,
    format: Format,
    name: String,
    labels: Vec<String>,
    alone: Alone,
}

/// What others have not meanwhile.
struct Alone {
    /// To make a model and have it on the disk, until it is sent or given up: others are refused.
    making: OwnedSemaphorePermit,
    /// To compute, until it is made: others wait.
    _turn: OwnedSemaphorePermit,
}

/// What was made; its files stay readable without their names.
struct Made {
    /// Of the file that holds the weights.
    sha256: Digest,
    files: Vec<(String, fs::File, u64)>,
}

/// Has a model be given up when nobody waits for it any more.
struct GiveUp(Control);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Makes the model and hands it out: a tar archive of a folder, or one file.
pub async fn answer(
    app: &App,
    job: &Job,
    format: Format,
    adapter: (&ArtifactRef, Bytes),
) -> Result<Response, Problem> {
    let limit = Duration::from_millis(app.limits().request_timeout_ms);
    // The answer to what takes too long elsewhere says to try again, which would take as long.
    let limit = limit - limit / 10;
    in_time(format, limit, made_here(app, job, format, adapter)).await
}

/// Gives up what is not made in time.
async fn in_time<T>(
    format: Format,
    limit: Duration,
    made: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let ended = tokio::time::timeout(limit, made).await;
    ended.unwrap_or_else(|_| {
        let seconds = limit.as_secs();
        let why = format!("the model was not made within {seconds} s, which is the limit here");
        Err(elsewhere(format, &why))
    })
}

async fn made_here(
    app: &App,
    job: &Job,
    format: Format,
    (adapter, config): (&ArtifactRef, Bytes),
) -> Result<Response, Problem> {
    let stored = model::stored(app, &job.spec.model, format).await?;
    let has_room = || {
        let used = chassis::memory::data_bytes();
        let needed = used.saturating_add(needed_bytes(&stored));
        room(format, needed, allowed_bytes())
    };
    let alone = admitted((app.merging(), app.computing()), has_room).await?;
    let place = tempfile::tempdir().map_err(|error| local(&error))?;
    let free = chassis::disk::free_bytes(place.path()).map_err(|error| local(&error))?;
    room_on_disk(format, disk_bytes(&stored, adapter.bytes), free)?;
    let own = place.path().join("adapter");
    let laid = async {
        tokio::fs::create_dir(&own).await?;
        tokio::fs::write(own.join("adapter_config.json"), &config).await
    };
    laid.await.map_err(|error| local(&error))?;
    let tensors = own.join("adapter_model.safetensors");
    fetch(app, adapter, &tensors, app.limits().adapter_bytes).await?;
    let cache = ModelCache::open(&place.path().join("models"), free)?;
    let transfer = Transfer::default();
    let model = cache
        .fetch(app.objects(), &stored.digest, &transfer)
        .await?;
    let asked = Asked {
        place,
        model,
        format,
        name: job.id.to_string(),
        labels: job.spec.training.labels.clone(),
        alone,
    };
    let control = Control::new();
    let _waits = GiveUp(control.clone());
    let work = move || {
        let made = make(&asked, &control)?;
        // Here its turn ends, and what it was made of goes away.
        Ok::<_, Problem>((made, asked.alone.making))
    };
    let ended = tokio::task::spawn_blocking(work).await;
    let (made, making) =
        ended.map_err(|_| Problem::new(Kind::Internal, "the export did not end"))??;
    handed_out(job, format, (made, making))
}

/// Bytes of memory that making it takes, as predicted: a model as it came or in 16 bits, whichever is more, and its largest
/// table some times over.
fn needed_bytes(
    Stored {
        manifest, config, ..
    }: &Stored,
) -> u64 {
    let loaded = |base| memory::loading(config, manifest.bytes(), base);
    let table = 4 * (config.vocabulary * config.hidden) as u64;
    loaded(Base::Source).max(loaded(Base::Bf16)) + TABLES * table
}

/// Bytes of disk that making it takes: what it is made of, and what is made. A file with fewer than 16 bits a value is one of
/// integers, and some of them, or all, become floating-point numbers.
fn disk_bytes(
    Stored {
        manifest, config, ..
    }: &Stored,
    adapter: u64,
) -> u64 {
    let (came, values) = (manifest.bytes(), Model::parameters_of(config));
    let made = if came < values.saturating_mul(2) {
        values.saturating_mul(4)
    } else {
        came
    };
    came.saturating_add(made).saturating_add(adapter)
}

/// The permits, if there is room while nobody else has them: what they use is no longer used then.
async fn admitted(
    (merging, computing): (Arc<Semaphore>, Arc<Semaphore>),
    has_room: impl FnOnce() -> Result<(), Problem>,
) -> Result<Alone, Problem> {
    let making = merging.try_acquire_owned().map_err(|_| {
        let detail = "another model is being made here: ask again when that is done";
        Problem::new(Kind::Unavailable, detail)
    })?;
    let turn = turn(computing).await?;
    has_room()?;
    Ok(Alone {
        making,
        _turn: turn,
    })
}

/// Bytes of memory that this process may use, if that is known.
fn allowed_bytes() -> Option<u64> {
    let allowed = chassis::memory::allowed_bytes(Path::new("/"));
    let unknown = |error: &chassis::memory::Error| {
        tracing::warn!(
            error = bus::drive::error_chain(error),
            "it is not known how much memory may be used"
        );
    };
    allowed.inspect_err(unknown).ok()
}

/// Refuses what this process may not hold.
fn room(format: Format, needed: u64, allowed: Option<u64>) -> Result<(), Problem> {
    let Some(allowed) = allowed else {
        let why = "it is not known how much memory this service may use";
        return Err(elsewhere(format, why));
    };
    if needed <= allowed {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let why = format!(
        "the model takes about {} MiB to be made here, and this service may use {}",
        mib(needed),
        mib(allowed)
    );
    Err(elsewhere(format, &why))
}

/// Refuses what the disk does not hold.
fn room_on_disk(format: Format, needed: u64, free: u64) -> Result<(), Problem> {
    if needed <= free {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let why = format!(
        "the model takes about {} MiB of disk to be made here, and {} are free",
        mib(needed),
        mib(free)
    );
    Err(elsewhere(format, &why))
}

/// Makes it; blocks.
fn make(asked: &Asked, control: &Control) -> Result<Made, Problem> {
    let (adapter, out) = (
        asked.place.path().join("adapter"),
        asked.place.path().join("made"),
    );
    let request = Request {
        adapter: &adapter,
        model: asked.model.path(),
        format: match asked.format {
            Format::Gguf => export::Format::Gguf,
            _ => export::Format::Merged,
        },
        precision: Precision::Source,
        output: &out,
        replace: false,
        name: &asked.name,
        labels: &asked.labels,
        // Requests are answered meanwhile.
        threads: NonZeroUsize::MIN,
    };
    export::export(request, control).map_err(|error| refused(asked.format, &error))?;
    opened(&out, asked.format).map_err(|error| local(&error))
}

fn refused(format: Format, error: &Error) -> Problem {
    match error {
        Error::Encoder => Problem::new(Kind::Conflict, error.to_string()),
        Error::Write { source, .. } => local(source),
        other => {
            tracing::warn!(
                error = bus::drive::error_chain(other),
                "model cannot be exported"
            );
            elsewhere(format, "the job's model cannot be made here")
        }
    }
}

/// The folder's files in the order of their names.
fn opened(folder: &Path, format: Format) -> std::io::Result<Made> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file = fs::File::open(entry.path())?;
        let bytes = file.metadata()?.len();
        files.push((
            entry.file_name().to_string_lossy().into_owned(),
            file,
            bytes,
        ));
    }
    files.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    let sha256 = digest_of(&fs::File::open(folder.join(weights(format)))?)?;
    Ok(Made { sha256, files })
}

const fn weights(format: Format) -> &'static str {
    match format {
        Format::Gguf => "model.gguf",
        _ => "model.safetensors",
    }
}

fn handed_out(
    job: &Job,
    format: Format,
    (made, making): (Made, OwnedSemaphorePermit),
) -> Result<Response, Problem> {
    let digest = [(SHA256, made.sha256.to_string())];
    let (kind, name, length, body) = match format {
        Format::Gguf => {
            let only = made.files.into_iter().next();
            let (_, file, length) =
                only.ok_or_else(|| Problem::new(Kind::Internal, "the export left no file"))?;
            let content = ReaderStream::with_capacity(File::from_std(file), CHUNK_BYTES);
            let body = Body::from_stream(held(content, length, making));
            ("application/octet-stream", "model.gguf", length, body)
        }
        _ => {
            let (length, archive) = archive(made.files).map_err(|error| local(&error))?;
            let body = Body::from_stream(held(archive, length, making));
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

/// A body that has the permit until its last part is handed out, or nobody reads on: then its files are gone.
fn held<S: Stream<Item = std::io::Result<Bytes>>>(
    body: S,
    length: u64,
    making: OwnedSemaphorePermit,
) -> impl Stream<Item = std::io::Result<Bytes>> {
    let (mut left, mut making) = (length, Some(making));
    body.map(move |part| {
        let bytes = part.as_ref().map_or(0, Bytes::len);
        left = left.saturating_sub(bytes as u64);
        if left == 0 {
            // Before the client has it all, and may ask for the next.
            drop(making.take());
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
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_the_command_that_makes_it() {
        assert!(room(Format::Merged, 1 << 30, Some(1 << 30)).is_ok());
        let problem = room(Format::Gguf, (1 << 30) + 1, Some(1 << 30)).expect_err("refused");
        let said = serde_json::to_string(&problem).expect("a document");
        for words in ["1025 MiB", "may use 1024", "fedpipe export --to gguf"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let problem = room(Format::Gguf, 1, None).expect_err("refused");
        let said = serde_json::to_string(&problem).expect("a document");
        assert!(said.contains("not known"), "{said}");

        assert!(room_on_disk(Format::Merged, 5 << 20, 5 << 20).is_ok());
        let problem = room_on_disk(Format::Merged, 6 << 20, 5 << 20).expect_err("refused");
        let said = serde_json::to_string(&problem).expect("a document");
        for words in ["6 MiB of disk", "5 are free", "fedpipe export --to merged"] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    #[tokio::test]
    async fn the_next_model_is_made_when_the_last_is_sent_or_given_up() {
        let merging = Arc::new(Semaphore::new(1));
        let body = || {
            let making = Arc::clone(&merging).try_acquire_owned().expect("free");
            let parts = ["ab", "c"].map(|part| Ok(Bytes::from_static(part.as_bytes())));
            Box::pin(held(stream::iter(parts), 3, making))
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
    }

    #[tokio::test]
    async fn room_is_looked_for_only_when_nobody_else_uses_it() {
        let (merging, computing) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let both = || (Arc::clone(&merging), Arc::clone(&computing));
        let too_large = || room(Format::Merged, 2, Some(1));
        let status = |alone: Result<Alone, Problem>| alone.err().map(|problem| problem.status());

        let alone = admitted(both(), || Ok(())).await;
        let second = admitted(both(), too_large).await;
        assert_eq!(status(second), Some(503), "it has to ask again");
        drop(alone);
        assert_eq!(status(admitted(both(), too_large).await), Some(409));

        // An adapter is being converted.
        let converting = turn(Arc::clone(&computing)).await;
        let mut waiting = Box::pin(admitted(both(), || Ok(())));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(converting);
        assert_eq!(status(waiting.await), None);
    }

    #[tokio::test]
    async fn what_takes_too_long_is_given_up_with_the_command_that_makes_it() {
        let (control, limit) = (Control::new(), Duration::from_millis(10));
        let waits = GiveUp(control.clone());
        let made = async {
            let _waits = waits;
            std::future::pending::<Result<(), Problem>>().await
        };
        let problem = in_time(Format::Merged, limit, made).await;
        let said = serde_json::to_string(&problem.expect_err("refused")).expect("a document");
        for words in ["within 0 s", "409", "fedpipe export --to merged"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(control.is_cancelled());
        let made = in_time(Format::Merged, Duration::from_secs(60), async { Ok(7) }).await;
        assert_eq!(made.ok(), Some(7));
    }
}

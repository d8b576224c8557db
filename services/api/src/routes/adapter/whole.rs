//! The job's model with its adapter in its weights, made here where this process has the memory for it.
//!
//! Promises: it is the engine's own export, which reads back what it wrote and compares its logits before the first byte
//! leaves; one is made at a time, by one thread; what does not fit is refused with the command that makes it where the model is.

mod room;
mod sent;

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use artifacts::{CachedModel, ModelCache, Transfer};
use axum::response::Response;
use bytes::Bytes;
use domain::artifact::{ArtifactRef, Digest};
use domain::job::Job;
use engine::compute;
use engine::control::Control;
use engine::export::{self, Error, Precision, Request};
use tempfile::TempDir;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::model::{self, Stored, elsewhere};
use super::{Format, digest_of, fetch, local};
use crate::problem::{Kind, Problem};
use crate::state::App;
use room::Alone;

/// The part of the time that others' computing may take: who waited for it longer is to ask again, for the model itself may
/// well be made in time.
const WAIT: u32 = 6;

/// What is to be made, and of what; its files are gone with it.
struct Asked {
    place: TempDir,
    model: CachedModel,
    format: Format,
    name: String,
    labels: Vec<String>,
    alone: Alone,
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
    let (limit, wait) = times(Duration::from_millis(app.limits().request_timeout_ms));
    in_time(format, limit, made_here(app, wait, job, format, adapter)).await
}

/// How long making a model may take where a request takes at most so long, and how much of it waiting for others.
fn times(request: Duration) -> (Duration, Duration) {
    // The answer to what takes too long elsewhere says to try again, which would take as long.
    let limit = request - request / 10;
    (limit, limit / WAIT)
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
    wait: Duration,
    job: &Job,
    format: Format,
    adapter: (&ArtifactRef, Bytes),
) -> Result<Response, Problem> {
    let stored = model::stored(app, &job.spec.model, format).await?;
    // What does not even fit into an empty process is not brought.
    room::in_memory(format, &stored, 0)?;
    let has_room = || room::in_memory(format, &stored, chassis::memory::data_bytes());
    let both = (app.merging(), app.computing());
    let brought = brought(app, format, &stored, adapter);
    let ((place, model), alone) = room::admitted(both, wait, brought, has_room).await?;
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
    let cancelled = control.clone();
    let work = move || {
        let made = make(&asked, &cancelled)?;
        // Here its turn ends, and what it was made of goes away.
        Ok::<_, Problem>((made, asked.alone.making))
    };
    let work = tokio::task::spawn_blocking(work);
    let ended = until(app.stop(), &control, work).await;
    let (made, making) =
        ended.map_err(|_| Problem::new(Kind::Internal, "the export did not end"))??;
    sent::answer(job, format, (made, making))
}

/// The adapter and its model on this disk.
async fn brought(
    app: &App,
    format: Format,
    stored: &Stored,
    (adapter, config): (&ArtifactRef, Bytes),
) -> Result<(TempDir, CachedModel), Problem> {
    let place = tempfile::tempdir().map_err(|error| local(&error))?;
    let free = room::on_disk(format, (stored, adapter.bytes), place.path())?;
    let own = place.path().join("adapter");
    let laid = async {
        tokio::fs::create_dir(&own).await?;
        tokio::fs::write(own.join("adapter_config.json"), &config).await
    };
    laid.await.map_err(|error| local(&error))?;
    let tensors = own.join("adapter_model.safetensors");
    fetch(app, adapter, &tensors, app.limits().adapter_bytes).await?;
    let cache = ModelCache::open(&place.path().join("models"), free)?;
    let transfer = Transfer::new(app.stop().clone());
    let fetched = cache.fetch(app.objects(), &stored.digest, &transfer).await;
    let model = fetched.map_err(|error| match error {
        artifacts::Error::Cancelled => stopping(),
        other => other.into(),
    })?;
    Ok((place, model))
}

/// The end of some work, which is soon if the process is to stop: what it has on the disk goes away with it.
async fn until<T>(
    stop: &CancellationToken,
    control: &Control,
    mut work: JoinHandle<T>,
) -> Result<T, JoinError> {
    tokio::select! {
        ended = &mut work => ended,
        () = stop.cancelled() => {
            control.cancel();
            work.await
        }
    }
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
        // Whoever still waits was not the one who gave it up.
        Error::Compute(compute::Error::Cancelled(_)) => stopping(),
        other => {
            tracing::warn!(
                error = bus::drive::error_chain(other),
                "model cannot be exported"
            );
            elsewhere(format, "the job's model cannot be made here")
        }
    }
}

fn stopping() -> Problem {
    let detail = "this service is stopping: ask again when it is back";
    Problem::new(Kind::Unavailable, detail)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::super::turn;
    use super::*;

    #[tokio::test]
    async fn an_export_ends_with_the_process_and_is_waited_for() {
        let (stop, control) = (CancellationToken::new(), Control::new());
        let ended = until(&stop, &control, tokio::task::spawn_blocking(|| 7)).await;
        assert_eq!(ended.expect("it ended"), 7);
        assert!(!control.is_cancelled());

        let cancelled = control.clone();
        let (starting, started) = tokio::sync::oneshot::channel();
        let work = tokio::task::spawn_blocking(move || {
            starting.send(()).expect("somebody waits");
            while !cancelled.is_cancelled() {
                std::thread::yield_now();
            }
            8
        });
        started.await.expect("it began");
        stop.cancel();
        let ended = until(&stop, &control, work).await;
        assert_eq!(ended.expect("it ended"), 8);
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

    #[tokio::test]
    async fn whoever_waits_for_others_is_to_ask_again_and_not_to_go_elsewhere() {
        let (limit, wait) = times(Duration::from_millis(600));
        let (merging, computing) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let converting = turn(Arc::clone(&computing)).await;
        let both = (Arc::clone(&merging), computing);
        let not_yet = || Err(Problem::new(Kind::Internal, "others have it"));
        let alone = room::admitted(both, wait, async { Ok(()) }, not_yet);
        let refused = in_time(Format::Merged, limit, alone).await.err();
        let said = serde_json::to_string(&refused.expect("refused")).expect("a document");
        for words in ["503", "are being converted here: ask again"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert_eq!(merging.available_permits(), 1);
        drop(converting);
    }
}

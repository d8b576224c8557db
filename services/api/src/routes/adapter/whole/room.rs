//! Whether there is room for a model to be made here: memory while nobody else computes, and disk while no other is on it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::memory;
use engine::model::{Base, Model};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::model::{Stored, elsewhere};
use super::super::{Format, local, turn};
use crate::problem::{Kind, Problem};

/// How often the largest table is held at once: as it came, in 32 bits, rounded, and read back.
const TABLES: u64 = 4;

/// What others have not meanwhile.
pub struct Alone {
    /// To make a model and have it on the disk, until it is sent or given up, or that takes too long: others are refused.
    pub making: OwnedSemaphorePermit,
    /// To compute, until it is made: others wait.
    _turn: OwnedSemaphorePermit,
}

/// What is brought while nobody else makes a model, and the permits, if there is room while nobody else has them: what they use
/// is no longer used then. Others compute while it is brought; whom they keep waiting for longer than `wait` is to ask again.
pub async fn admitted<T>(
    (merging, computing): (Arc<Semaphore>, Arc<Semaphore>),
    wait: Duration,
    brought: impl Future<Output = Result<T, Problem>>,
    has_room: impl FnOnce() -> Result<(), Problem>,
) -> Result<(T, Alone), Problem> {
    let making = merging.try_acquire_owned().map_err(|_| {
        let detail = "another model is being made here: ask again when that is done";
        Problem::new(Kind::Unavailable, detail)
    })?;
    let brought = brought.await?;
    let turn = tokio::time::timeout(wait, turn(computing)).await;
    let turn = turn.map_err(|_| {
        let detail = "adapters are being converted here: ask again when that is done";
        Problem::new(Kind::Unavailable, detail)
    })??;
    has_room()?;
    let alone = Alone {
        making,
        _turn: turn,
    };
    Ok((brought, alone))
}

/// Refuses a model that this process has not the memory for, beside what it uses.
pub fn in_memory(format: Format, stored: &Stored, used: u64) -> Result<(), Problem> {
    let needed = used.saturating_add(needed_bytes(stored));
    room(format, needed, allowed_bytes())
}

/// Refuses a model, with an adapter of so many bytes, that the disk has no room for at this place; gives what is free there.
pub fn on_disk(
    format: Format,
    (stored, adapter): (&Stored, u64),
    place: &Path,
) -> Result<u64, Problem> {
    let free = chassis::disk::free_bytes(place).map_err(|error| local(&error))?;
    room_on_disk(format, disk_bytes(stored, adapter), free)?;
    Ok(free)
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

    const PATIENCE: Duration = Duration::from_secs(20);

    /// What may be had, and a model that is there.
    fn both() -> (Arc<Semaphore>, Arc<Semaphore>) {
        (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)))
    }

    async fn there() -> Result<u32, Problem> {
        Ok(7)
    }

    fn too_large() -> Result<(), Problem> {
        room(Format::Merged, 2, Some(1))
    }

    fn status(admitted: Result<(u32, Alone), Problem>) -> Option<u16> {
        admitted.err().map(|problem| problem.status())
    }

    #[tokio::test]
    async fn room_is_looked_for_only_when_nobody_else_uses_it() {
        let own = both();
        let alone = admitted(own.clone(), PATIENCE, there(), || Ok(())).await;
        let second = admitted(own.clone(), PATIENCE, there(), too_large).await;
        assert_eq!(status(second), Some(503), "it has to ask again");
        drop(alone);
        let refused = admitted(own.clone(), PATIENCE, there(), too_large).await;
        assert_eq!(status(refused), Some(409));

        // An adapter is being converted.
        let converting = turn(Arc::clone(&own.1)).await;
        let mut waiting = Box::pin(admitted(own.clone(), PATIENCE, there(), || Ok(())));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(converting);
        assert_eq!(status(waiting.await), None);
    }

    #[tokio::test]
    async fn others_compute_while_the_model_is_brought() {
        let own = both();
        let free = || (own.0.available_permits(), own.1.available_permits());
        let (bring, comes) = tokio::sync::oneshot::channel();
        let brought = async { Ok(comes.await.expect("it comes")) };
        let mut waiting = Box::pin(admitted(own.clone(), PATIENCE, brought, || Ok(())));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(free(), (0, 1));
        bring.send(7).expect("somebody waits");
        let (model, alone) = waiting.await.expect("admitted");
        assert_eq!((model, free()), (7, (0, 0)));
        drop(alone);
        assert_eq!(free(), (1, 1));
        // What does not come keeps nobody waiting.
        let lost = async { Err(Problem::new(Kind::Unavailable, "away")) };
        let refused = admitted(own.clone(), PATIENCE, lost, || Ok(())).await;
        assert_eq!((status(refused), free()), (Some(503), (1, 1)));
    }
}

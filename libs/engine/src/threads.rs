//! The compute threads: a pool of its own, with an explicit size.
//!
//! Nothing here uses the process-wide pool, so that two engines in one process do not share a
//! setting, and idle processes hold no threads before a model is loaded.

use std::cell::Cell;
use std::num::NonZeroUsize;

use crate::kernel::Unit;

thread_local! {
    static PORTABLE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread computes what every other machine would, bit for bit.
pub(crate) fn are_portable() -> bool {
    PORTABLE.get()
}

/// A dedicated pool of compute threads.
#[derive(Debug)]
pub struct Threads {
    pool: rayon::ThreadPool,
    count: NonZeroUsize,
}

/// The operating system refused to start the threads.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {count} compute threads")]
pub struct Error {
    count: NonZeroUsize,
    source: rayon::ThreadPoolBuildError,
}

impl Threads {
    /// Starts `count` threads for kernels of `unit`; they sleep while there is nothing to compute.
    ///
    /// # Errors
    /// The operating system refused to start a thread.
    pub fn new(count: NonZeroUsize, unit: Unit) -> Result<Self, Error> {
        let builder = rayon::ThreadPoolBuilder::new()
            .num_threads(count.get())
            .start_handler(move |_| PORTABLE.set(unit == Unit::Portable))
            .thread_name(|index| format!("compute-{index}"));
        let pool = builder.build().map_err(|source| Error { count, source })?;
        Ok(Self { pool, count })
    }

    /// How many threads there are.
    #[must_use]
    pub const fn count(&self) -> NonZeroUsize {
        self.count
    }

    /// Runs `work` on the pool and waits for it.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }
}

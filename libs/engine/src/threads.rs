//! The compute threads: a pool of its own, with an explicit size.
//!
//! Nothing here uses the process-wide pool, so that two engines in one process do not share a
//! setting, and idle processes hold no threads before a model is loaded.

use std::num::NonZeroUsize;

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
    /// Starts `count` threads; they sleep while there is nothing to compute.
    ///
    /// # Errors
    /// The operating system refused to start a thread.
    pub fn new(count: NonZeroUsize) -> Result<Self, Error> {
        let builder = rayon::ThreadPoolBuilder::new()
            .num_threads(count.get())
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

//! The one OS thread that owns the model and everything that computes with it.
//!
//! Async code sends it work and waits; it never computes itself. Work is done in the order it came,
//! so two tasks can never hold a model each. If the thread dies of a defect the worker ends, and the
//! journal tells the next process.

mod model;
mod pace;

use engine::model::Cache;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::Error;

pub use model::{Key, Loaded, ModelFiles, loading_bytes};
pub use pace::{Pace, Tempo};

/// Work that may wait: one under way, one behind it, and an answer to a stopped one.
const QUEUE: usize = 4;

type Work = Box<dyn FnOnce(&mut Bench) + Send>;

/// What the thread owns.
#[derive(Debug)]
pub struct Bench {
    loaded: Option<Loaded>,
    quantized: Option<Cache>,
    runtime: Handle,
}

impl Bench {
    /// Without a model yet. `quantized` is where models made for a base in fewer bits are kept.
    #[must_use]
    pub const fn new(quantized: Option<Cache>, runtime: Handle) -> Self {
        Self {
            loaded: None,
            quantized,
            runtime,
        }
    }

    /// The runtime, for waits that something else can end.
    #[must_use]
    pub const fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// The way to the compute thread; clones share it.
#[derive(Debug, Clone)]
pub struct Compute {
    queue: mpsc::Sender<Work>,
}

impl Compute {
    /// Starts the thread; it ends when the last clone is dropped. Call it inside a tokio runtime.
    /// `quantized` is where models made for a base in fewer bits are kept.
    ///
    /// # Errors
    /// [`Error::Thread`] if the system refuses.
    pub fn start(quantized: Option<Cache>) -> Result<Self, Error> {
        let (queue, mut waiting) = mpsc::channel::<Work>(QUEUE);
        let runtime = Handle::current();
        let work = move || {
            let mut bench = Bench::new(quantized, runtime);
            while let Some(work) = waiting.blocking_recv() {
                work(&mut bench);
            }
        };
        let builder = std::thread::Builder::new().name("compute".to_owned());
        builder.spawn(work).map_err(Error::Thread)?;
        Ok(Self { queue })
    }

    /// Does work on the thread and waits for its result.
    ///
    /// # Errors
    /// [`Error::ComputeGone`] if the thread died.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Bench) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, result) = oneshot::channel();
        let work: Work = Box::new(move |bench| {
            // Nobody listens to the result of a task that was stopped.
            let _ = answer.send(work(bench));
        });
        self.queue
            .send(work)
            .await
            .map_err(|_| Error::ComputeGone)?;
        result.await.map_err(|_| Error::ComputeGone)
    }

    /// Whether the thread died.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.queue.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_in_order_on_one_thread_and_a_dead_thread_is_told() {
        let compute = Compute::start(None).unwrap();
        let thread = || std::thread::current().id();
        let first = compute.run(move |_| thread()).await.unwrap();
        assert_eq!(compute.run(move |_| thread()).await.unwrap(), first);
        assert_ne!(thread(), first);
        let died = compute.run(|_| panic!("a defect, shown in the log")).await;
        assert!(matches!(died, Err::<(), _>(Error::ComputeGone)));
        assert!(matches!(compute.run(|_| ()).await, Err(Error::ComputeGone)));
        assert!(compute.is_gone());
    }
}

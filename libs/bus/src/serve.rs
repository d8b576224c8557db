//! Serving a worker's tasks: one at a time, kept alive while there is progress, acknowledged by what
//! the handler returns.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::{AckKind, Message};
use contract::DecodeError;
use contract::envelope::{KIND_HEADER, TRACE_HEADER, VERSION_HEADER};
use contract::message::task::Task;
use contract::subject::{self, Address};
use contract::topology;
use domain::id::WorkerName;
use domain::trace::Trace;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::{Bus, Error};

/// How long one request for work waits at the server.
const POLL: Duration = Duration::from_secs(5);

/// Pause after a failed request for work.
const MEND: Duration = Duration::from_millis(200);

/// How a worker takes its tasks.
#[derive(Debug, Clone)]
pub struct Serve {
    /// Whose tasks.
    pub worker: WorkerName,
    /// The idle knob: without progress for so long the task is delivered again.
    pub ack_wait: Duration,
    /// Deliveries after which a task is poison.
    pub max_deliveries: u64,
}

/// A task that arrived.
#[derive(Debug)]
pub struct Delivery {
    /// What its subject says.
    pub address: Address,
    /// The task, unless it cannot be read or was delivered too often to be looked at.
    pub task: Result<Task, DecodeError>,
    /// How often it was delivered, this time included.
    pub deliveries: u64,
    /// Whether it was delivered so often that it must be given up without being tried again.
    pub poison: bool,
    /// The span of whoever asks, if it says one.
    pub trace: Option<Trace>,
    /// Raise this with every step, block, byte or record: it keeps the task.
    pub progress: Arc<AtomicU64>,
}

/// What becomes of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or reported as failed: it never comes again.
    Done,
    /// Not possible now: it comes again after a pause.
    Later,
    /// The process is stopping: it comes again at once, to whoever is there.
    HandBack,
}

impl Bus {
    /// Serves tasks until the token is cancelled. The handler reports; this acknowledges.
    ///
    /// # Errors
    /// None while serving: a server that is away is waited for.
    pub async fn serve<F, Fut>(&self, serve: &Serve, token: &CancellationToken, handle: F)
    where
        F: Fn(Delivery) -> Fut,
        Fut: Future<Output = Outcome>,
    {
        while !token.is_cancelled() {
            let next = tokio::select! {
                next = self.next_task(&serve.worker) => next,
                () = token.cancelled() => return,
            };
            match next {
                Ok(Some(message)) => work(serve, message, &handle).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "no tasks to be had, asking again");
                    tokio::time::sleep(MEND).await;
                }
            }
        }
    }

    async fn next_task(&self, worker: &WorkerName) -> Result<Option<Message>, Error> {
        let away = |error| Error::unavailable("ask for a task")(error);
        let again = self.reconnected();
        let name = topology::consumer(worker);
        let consumer: Consumer<pull::Config> = self
            .jetstream
            .get_consumer_from_stream(name, topology::TASKS.name)
            .await
            .map_err(|error| away(Box::new(error)))?;
        let batch = consumer
            .fetch()
            .max_messages(1)
            .expires(POLL)
            .messages()
            .await;
        let mut batch = batch.map_err(|error| away(Box::new(error)))?;
        let next = tokio::select! {
            next = batch.next() => next,
            // A server that was started again has forgotten the request.
            () = again => return Ok(None),
        };
        match next {
            Some(Ok(message)) => Ok(Some(message)),
            Some(Err(error)) => Err(Error::Unavailable {
                doing: "ask for a task",
                source: error,
            }),
            None => Ok(None),
        }
    }
}

async fn work<F, Fut>(serve: &Serve, message: Message, handle: &F)
where
    F: Fn(Delivery) -> Fut,
    Fut: Future<Output = Outcome>,
{
    let Some(address) = subject::parse_address(message.subject.as_str()) else {
        finish(&message, AckKind::Term).await;
        return;
    };
    let deliveries = message
        .info()
        .map_or(1, |info| u64::try_from(info.delivered).unwrap_or(1));
    let header = |name| {
        message
            .headers
            .as_ref()?
            .get(name)
            .map(|value| value.as_str())
    };
    // The count is looked at first: what killed this process before is not decoded again.
    let poison = deliveries > serve.max_deliveries;
    let payload: &[u8] = if poison { &[] } else { &message.payload };
    let task = Task::decode(header(KIND_HEADER), header(VERSION_HEADER), payload);
    let progress = Arc::new(AtomicU64::new(0));
    let delivery = Delivery {
        address,
        task,
        deliveries,
        poison,
        trace: header(TRACE_HEADER).and_then(Trace::parse),
        progress: Arc::clone(&progress),
    };
    let outcome = tokio::select! {
        outcome = handle(delivery) => outcome,
        never = keep(&message, &progress, serve.ack_wait) => match never {},
    };
    let kind = match outcome {
        Outcome::Done => AckKind::Ack,
        Outcome::Later => AckKind::Nak(Some(backoff(deliveries, serve.ack_wait))),
        Outcome::HandBack => AckKind::Nak(None),
    };
    finish(&message, kind).await;
}

/// Tells the server that work goes on, whenever the counter moved; never returns.
async fn keep(message: &Message, progress: &AtomicU64, ack_wait: Duration) -> Infallible {
    let mut seen = progress.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(ack_wait / 4).await;
        let now = progress.load(Ordering::Relaxed);
        if now != seen {
            seen = now;
            if let Err(error) = message.ack_with(AckKind::Progress).await {
                tracing::debug!(%error, "progress not told");
            }
        }
    }
}

async fn finish(message: &Message, kind: AckKind) {
    // Confirmed by the server, or the task comes again and finds its own result.
    if let Err(error) = message.double_ack_with(kind).await {
        tracing::debug!(%error, "acknowledgement not confirmed");
    }
}

fn backoff(deliveries: u64, ack_wait: Duration) -> Duration {
    let factor = u32::try_from(deliveries.min(8)).unwrap_or(8);
    (ack_wait / 8 * factor).min(ack_wait)
}

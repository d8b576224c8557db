//! Listening: jobs, reports, events, beats, orders. A feed is a wake-up and an information; whoever
//! acts on it reads the truth first. Feeds mend themselves when the server restarts.

use std::pin::pin;
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use contract::message::control::{Control, Reply};
use contract::message::job::JobEvent;
use contract::subject::{self, Address};
use contract::topology::{Bucket, JOBS, REPORTS};
use contract::{Message, topology};
use domain::fleet::{Beat, Registration};
use domain::id::{JobId, WorkerName};
use futures::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::publish::{headers, payload};
use crate::unread::Unheard;
use crate::{Bus, Error, request, store};

/// How many changes wait for a slow listener before the feed waits for it.
const BUFFER: usize = 1024;

/// Reads a value under its key.
type Read<T> = fn(&str, &[u8]) -> Result<T, Error>;

/// Pause before a broken feed is opened again.
pub(crate) const MEND: Duration = Duration::from_millis(200);

/// A value that was written, was removed, or can no longer be read.
#[derive(Debug, Clone)]
pub struct Change<T> {
    /// Its key.
    pub key: String,
    /// The value; absent if it was removed, or if what was written over it cannot be read.
    pub value: Option<T>,
}

/// An order to this worker, to be answered.
#[derive(Debug)]
pub struct IncomingOrder {
    /// What to do.
    pub control: Control,
    reply: Option<async_nats::Subject>,
    bus: Bus,
}

impl IncomingOrder {
    /// Answers whoever gave the order.
    ///
    /// # Errors
    /// If the connection is gone; the order is then given again.
    pub async fn answer(self, reply: &Reply) -> Result<(), Error> {
        let Some(inbox) = self.reply else {
            return Ok(());
        };
        let sent = self
            .bus
            .client
            .publish_with_headers(inbox, headers(reply), payload(reply)?)
            .await;
        sent.map_err(|error| Error::unavailable("answer an order")(Box::new(error)))
    }
}

impl Bus {
    /// All values of a bucket, then every change. One that cannot be read is told once in the log and counts as removed:
    /// whoever kept what stood there before would take it for what stands there now. Behind a key with a dot are
    /// values of other types, which are skipped.
    pub fn changes<T: DeserializeOwned + Send + 'static>(
        &self,
        bucket: Bucket,
    ) -> mpsc::Receiver<Change<T>> {
        self.follow(bucket, store::decode)
    }

    /// All registrations, then every change, as [`Bus::changes`]. One that a worker wrote under its key in another's name
    /// counts as one that cannot be read: permissions hold a worker to its own key, and nothing but this to its own name.
    pub fn registrations(&self) -> mpsc::Receiver<Change<Registration>> {
        self.follow(Bucket::Workers, registration)
    }

    fn follow<T: Send + 'static>(
        &self,
        bucket: Bucket,
        read: Read<T>,
    ) -> mpsc::Receiver<Change<T>> {
        let (sender, receiver) = mpsc::channel(BUFFER);
        let bus = self.clone();
        tokio::spawn(async move {
            while !sender.is_closed() {
                if let Err(error) = bus.pump_changes(bucket, read, &sender).await {
                    tracing::debug!(%error, bucket = bucket.name(), "feed broken, opening it again");
                }
                tokio::time::sleep(MEND).await;
            }
        });
        receiver
    }

    async fn pump_changes<T>(
        &self,
        bucket: Bucket,
        read: Read<T>,
        sender: &mpsc::Sender<Change<T>>,
    ) -> Result<(), Error> {
        let broken = |error| Error::unavailable("watch a bucket")(error);
        let mut again = pin!(self.reconnected());
        let store = self
            .jetstream
            .get_key_value(bucket.name())
            .await
            .map_err(|error| broken(Box::new(error)))?;
        let mut watch = store
            .watch_with_history(">")
            .await
            .map_err(|error| broken(Box::new(error)))?;
        loop {
            let next = tokio::select! {
                next = watch.next() => next,
                // The server has forgotten this watch: open it again rather than wait for its silence.
                () = &mut again => return Ok(()),
                () = sender.closed() => return Ok(()),
            };
            let Some(entry) = next else { return Ok(()) };
            let entry = entry.map_err(|error| broken(Box::new(error)))?;
            let value = match entry.operation {
                async_nats::jetstream::kv::Operation::Put => {
                    match read(&entry.key, &entry.value) {
                        Ok(value) => Some(value),
                        // Another type of value in the same bucket: not ours.
                        Err(_) if entry.key.contains('.') => continue,
                        Err(error) => {
                            self.unread.tell(bucket, &entry.key, &error);
                            None
                        }
                    }
                }
                _ => None,
            };
            if sender
                .send(Change {
                    key: entry.key,
                    value,
                })
                .await
                .is_err()
            {
                return Ok(());
            }
        }
    }

    /// Who reported on what, from now on; what is reported while the server or the network is away is
    /// told afterwards.
    pub fn report_feed(&self) -> mpsc::Receiver<Address> {
        let (sender, receiver) = mpsc::channel(BUFFER);
        let bus = self.clone();
        tokio::spawn(async move {
            let mut position = None;
            while !sender.is_closed() {
                if let Err(error) = bus.pump_reports(&mut position, &sender).await {
                    tracing::debug!(%error, "report feed broken, opening it again");
                }
                tokio::time::sleep(MEND).await;
            }
        });
        receiver
    }

    async fn pump_reports(
        &self,
        position: &mut Option<u64>,
        sender: &mpsc::Sender<Address>,
    ) -> Result<(), Error> {
        let last = match *position {
            Some(last) => last,
            None => self.last_position(REPORTS.name).await?,
        };
        *position = Some(last);
        let config = pull::OrderedConfig {
            filter_subject: REPORTS.filter(),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: last + 1,
            },
            headers_only: true,
            ..pull::OrderedConfig::default()
        };
        self.pump(REPORTS.name, config, sender, |message| {
            *position = Some(message.info().ok()?.stream_sequence);
            subject::parse_address(message.subject.as_str())
        })
        .await
    }

    async fn last_position(&self, stream: &str) -> Result<u64, Error> {
        let stream = self.jetstream.get_stream(stream).await;
        let stream =
            stream.map_err(|error| Error::unavailable("find a stream")(Box::new(error)))?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// The events of one job or of all, after a position; each with its own position.
    pub fn events(&self, job: Option<&JobId>, after: u64) -> mpsc::Receiver<(u64, JobEvent)> {
        let (sender, receiver) = mpsc::channel(BUFFER);
        let bus = self.clone();
        let filter_subject = job.map_or_else(|| JOBS.filter(), subject::job_events);
        tokio::spawn(async move {
            let mut position = after;
            while !sender.is_closed() {
                let config = pull::OrderedConfig {
                    filter_subject: filter_subject.clone(),
                    deliver_policy: DeliverPolicy::ByStartSequence {
                        start_sequence: position + 1,
                    },
                    ..pull::OrderedConfig::default()
                };
                let done = bus.pump(JOBS.name, config, &sender, |message| {
                    let sequence = message.info().ok()?.stream_sequence;
                    position = sequence;
                    Some((sequence, decode(message)?))
                });
                if let Err(error) = done.await {
                    tracing::debug!(%error, "event feed broken, opening it again");
                }
                tokio::time::sleep(MEND).await;
            }
        });
        receiver
    }

    async fn pump<T>(
        &self,
        stream: &str,
        config: pull::OrderedConfig,
        sender: &mpsc::Sender<T>,
        mut read: impl FnMut(&async_nats::jetstream::Message) -> Option<T>,
    ) -> Result<(), Error> {
        let broken = |error| Error::unavailable("listen")(error);
        let mut again = pin!(self.reconnected());
        let consumer = self.stream(stream).await?.create_consumer(config).await;
        let consumer = consumer.map_err(|error| broken(Box::new(error)))?;
        let mut messages = consumer
            .messages()
            .await
            .map_err(|error| broken(Box::new(error)))?;
        loop {
            let next = tokio::select! {
                next = messages.next() => next,
                // A server that was away has forgotten this consumer; the library finds out late.
                () = &mut again => return Ok(()),
                () = sender.closed() => return Ok(()),
            };
            let Some(message) = next else { return Ok(()) };
            let message = message.map_err(|error| broken(Box::new(error)))?;
            if let Some(item) = read(&message)
                && sender.send(item).await.is_err()
            {
                return Ok(());
            }
        }
    }

    /// Signs of life of every worker. One that came on another worker's subject than it names is dropped, and one that
    /// cannot be read; the log tells of a worker's first.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn beats(&self) -> Result<impl Stream<Item = Beat> + Send + Unpin + use<>, Error> {
        let beats = self.client.subscribe(subject::beats()).await;
        let beats =
            beats.map_err(|error| Error::unavailable("listen to beats")(Box::new(error)))?;
        let unread = self.unread.clone();
        Ok(beats.filter_map(move |message| {
            let worker = subject::parse_beat(&message.subject);
            let beat = worker.and_then(|worker| {
                heard(&worker, &message)
                    .inspect_err(|why| unread.tell_beat(&worker, why))
                    .ok()
            });
            std::future::ready(beat)
        }))
    }

    /// Orders to this worker.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn orders(
        &self,
        worker: &WorkerName,
    ) -> Result<impl Stream<Item = IncomingOrder> + Send + Unpin + use<>, Error> {
        let orders = self.client.subscribe(subject::control(worker)).await;
        let orders =
            orders.map_err(|error| Error::unavailable("listen to orders")(Box::new(error)))?;
        let bus = self.clone();
        Ok(orders.filter_map(move |message| {
            let control = decode(&message);
            let order = control.map(|control| IncomingOrder {
                control,
                reply: message.reply,
                bus: bus.clone(),
            });
            std::future::ready(order)
        }))
    }

    /// Whether the consumer of a worker exists already.
    pub async fn worker_is_known(&self, worker: &WorkerName) -> bool {
        let name = topology::consumer(worker);
        let found = self
            .jetstream
            .get_consumer_from_stream::<pull::Config, _, _>(name, topology::TASKS.name)
            .await;
        found.is_ok()
    }
}

fn registration(key: &str, value: &[u8]) -> Result<Registration, Error> {
    let read: Registration = store::decode(key, value)?;
    if read.worker.as_str() == key {
        return Ok(read);
    }
    let why = format!(
        "it names {}, and a worker registers itself alone",
        read.worker
    );
    Err(Error::Decode {
        subject: key.to_owned(),
        source: why.into(),
    })
}

/// The beat that came on this worker's subject, which permissions let nobody else use.
fn heard(worker: &WorkerName, message: &async_nats::Message) -> Result<Beat, Unheard> {
    let beat: Beat = request::read(message)?;
    if beat.worker == *worker {
        Ok(beat)
    } else {
        Err(Unheard::Foreign(beat.worker))
    }
}

fn decode<M: Message>(message: &async_nats::Message) -> Option<M> {
    request::read(message)
        .inspect_err(|error| tracing::warn!(%error, "message dropped"))
        .ok()
}

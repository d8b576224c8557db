//! One connection of one process.

use std::future::Future;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::{Client, ConnectOptions, Event};
use contract::permission::Role;
use contract::topology;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::advice::advice;
use crate::unread::Unread;
use crate::{Connect, Error};

/// How long a request waits for its answer.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection to NATS in one role. Clones share it; it reconnects by itself.
#[derive(Clone, Debug)]
pub struct Bus {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    /// Raised at each connect: what was asked of the server before is forgotten there.
    pub(crate) connects: watch::Receiver<u64>,
    /// Stored values that cannot be read, as far as they were told.
    pub(crate) unread: Unread,
    /// A subject on which the server itself answers this role.
    echo: String,
}

impl Bus {
    /// Connects, or goes on trying in the background if the server is not there yet.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration or a file that it names cannot be used,
    /// [`Error::Connect`] if the address cannot.
    pub async fn connect(connect: &Connect, role: &Role) -> Result<Self, Error> {
        let options = connect.options().await?.retry_on_initial_connect();
        Self::establish(connect, options, role).await
    }

    /// Connects at once or not at all, for whoever asks whether a configuration is right;
    /// [`Error::next`] says what to do.
    ///
    /// # Errors
    /// As [`Bus::connect`], and [`Error::Connect`] if the server is away or refuses.
    pub async fn connect_once(connect: &Connect, role: &Role) -> Result<Self, Error> {
        Self::establish(connect, connect.options().await?, role).await
    }

    async fn establish(
        connect: &Connect,
        options: ConnectOptions,
        role: &Role,
    ) -> Result<Self, Error> {
        let (connected, connects) = watch::channel(0);
        let options = options
            .name(format!("fedpipe-{}", role.user()))
            .custom_inbox_prefix(role.inbox())
            .request_timeout(Some(REQUEST_TIMEOUT))
            .connection_timeout(REQUEST_TIMEOUT)
            .reconnect_delay_callback(|attempt| {
                // Quick at first: a server that restarts is back within a second.
                let step = u64::try_from(attempt).unwrap_or(u64::MAX).min(20);
                Duration::from_millis(50 * step)
            })
            .event_callback(move |event| {
                if matches!(event, Event::Connected) {
                    connected.send_modify(|count| *count += 1);
                }
                report(event)
            });
        let client = options
            .connect(&connect.url)
            .await
            .map_err(|error| Error::Connect {
                url: connect.url.clone(),
                source: Box::new(error),
            })?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(REQUEST_TIMEOUT);
        Ok(Self {
            client,
            jetstream,
            connects,
            unread: Unread::default(),
            echo: echo(role),
        })
    }

    /// Whether the connection stands at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Waits for the next connect after this call.
    pub(crate) fn reconnected(&self) -> impl Future<Output = ()> + use<> {
        let mut connects = self.connects.clone();
        connects.mark_unchanged();
        async move {
            // Invariant: the sender lives as long as the client, which this connection holds.
            let _ = connects.changed().await;
        }
    }

    /// Bytes this connection has sent so far.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.client
            .statistics()
            .out_bytes
            .load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Waits until the server answers and has every stream and bucket; for control services. `false` if the token was
    /// cancelled first.
    #[must_use]
    pub async fn ready(&self, token: &CancellationToken) -> bool {
        while let Err(error) = self.ensure_topology().await {
            tracing::warn!(
                cause = crate::drive::error_chain(&error),
                "waiting for nats"
            );
            tokio::select! {
                () = token.cancelled() => return false,
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
        }
        true
    }

    /// How long a message to the server and its answer take. What was sent before has arrived then.
    ///
    /// # Errors
    /// If the server does not answer.
    #[expect(
        clippy::disallowed_methods,
        reason = "measures a round trip; decides nothing"
    )]
    pub async fn round_trip(&self) -> Result<Duration, Error> {
        let start = Instant::now();
        let asked = self.client.request(self.echo.clone(), Vec::new().into());
        let answered = tokio::time::timeout(REQUEST_TIMEOUT, asked).await;
        // A flush would only empty this side's buffer.
        answered
            .map_err(|error| Error::unavailable("answer")(Box::new(error)))?
            .map_err(|error| Error::unavailable("answer")(Box::new(error)))?;
        Ok(start.elapsed())
    }
}

fn echo(role: &Role) -> String {
    match role {
        Role::Worker(worker) => {
            let (tasks, consumer) = (topology::TASKS.name, topology::consumer(worker));
            format!("$JS.API.CONSUMER.INFO.{tasks}.{consumer}")
        }
        _ => "$JS.API.INFO".to_owned(),
    }
}

// A denied publish shows at the caller only as a time-out; the reason arrives here.
async fn report(event: Event) {
    match event {
        Event::Connected => tracing::info!("nats connected"),
        Event::Disconnected => tracing::warn!("nats disconnected"),
        Event::SlowConsumer(id) => tracing::warn!(id, "nats drops messages: slow consumer"),
        Event::ServerError(error) => tracing::error!(%error, "nats refused"),
        Event::ClientError(error) => {
            let next = advice(&error.to_string());
            tracing::warn!(%error, next, "nats client error");
        }
        other => tracing::debug!(%other, "nats event"),
    }
}

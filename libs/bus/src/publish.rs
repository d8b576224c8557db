//! Saying things: once per identity where the stream promises it, or unkept.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::message::PublishMessage;
use async_nats::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use contract::envelope::{KIND_HEADER, SIZE_LIMIT, TRACE_HEADER, VERSION_HEADER};
use contract::{Message, subject, topology};
use domain::fleet::Registration;
use domain::trace::Trace;

use crate::{Bus, Error};

/// JetStream's code for a message that the stream would not store; per-subject limits are among its reasons.
const STORE_FAILED: u64 = 10077;

/// Whether a message was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It is stored now.
    Now,
    /// The same was said before; nothing changed.
    Before,
}

impl Bus {
    /// Stores a message, once per subject. With `ttl` the server drops it when nobody wants it any more.
    ///
    /// # Errors
    /// If the server does not confirm it, or it is too large.
    pub async fn publish<M: Message>(
        &self,
        message: &M,
        ttl: Option<Duration>,
    ) -> Result<Said, Error> {
        let subject = message.subject();
        let payload = payload(message)?;
        let mut publish = PublishMessage::build()
            .headers(headers(message))
            .message_id(&subject)
            .payload(payload);
        if let Some(ttl) = ttl {
            publish = publish.ttl(ttl.max(Duration::from_secs(1)));
        }
        let sent = self.jetstream.send_publish(subject, publish).await;
        let stored = match sent {
            Ok(acknowledgement) => acknowledgement.await,
            Err(error) => Err(error),
        };
        match stored {
            Ok(stored) if stored.duplicate => Ok(Said::Before),
            Ok(_) => Ok(Said::Now),
            Err(error) if already_said(&error) => Ok(Said::Before),
            Err(error) => Err(Error::unavailable("store a message")(Box::new(error))),
        }
    }

    /// Says something that nobody keeps.
    ///
    /// # Errors
    /// If it is too large or the connection is gone.
    pub async fn say<M: Message>(&self, message: &M) -> Result<(), Error> {
        let sent = self
            .client
            .publish_with_headers(message.subject(), headers(message), payload(message)?)
            .await;
        sent.map_err(|error| Error::unavailable("send a message")(Box::new(error)))
    }

    /// Writes a worker's registration under its own key.
    ///
    /// # Errors
    /// If the server does not confirm it.
    pub async fn register(&self, registration: &Registration) -> Result<(), Error> {
        let json = serde_json::to_vec(registration);
        let json = json.map_err(|error| Error::Encode {
            what: "registration",
            source: Box::new(error),
        })?;
        let subject = topology::registration_subject(&registration.worker);
        let sent = self.jetstream.publish(subject, json.into()).await;
        let stored = match sent {
            Ok(acknowledgement) => acknowledgement.await,
            Err(error) => Err(error),
        };
        stored.map_err(|error| Error::unavailable("register")(Box::new(error)))?;
        Ok(())
    }
}

/// Bytes of a message as [`Bus::publish`] sends it: subject, headers and payload.
///
/// # Errors
/// If it is too large.
pub fn wire_bytes<M: Message>(message: &M) -> Result<u64, Error> {
    let (subject, mut headers) = (message.subject(), headers(message));
    headers.insert(header::NATS_MESSAGE_ID, subject.as_str());
    // The line that opens a block of headers, and the one that ends it.
    let mut bytes = subject.len() + "NATS/1.0\r\n\r\n".len();
    for (name, values) in headers.iter() {
        let name: &str = name.as_ref();
        let line = |value: &HeaderValue| name.len() + value.as_str().len() + ": \r\n".len();
        bytes += values.iter().map(line).sum::<usize>();
    }
    Ok((bytes + payload(message)?.len()) as u64)
}

pub(crate) fn payload<M: Message>(message: &M) -> Result<Bytes, Error> {
    let written = contract::encode(message);
    let written = written.map_err(|error| Error::Encode {
        what: M::KIND,
        source: Box::new(error),
    })?;
    if written.len() > SIZE_LIMIT {
        return Err(Error::TooLarge {
            what: M::KIND,
            bytes: written.len(),
            limit: SIZE_LIMIT,
        });
    }
    Ok(written.into())
}

pub(crate) fn headers<M: Message>(message: &M) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(KIND_HEADER, M::KIND);
    headers.insert(VERSION_HEADER, M::VERSION.to_string());
    if let Some(address) = subject::parse_address(&message.subject()) {
        let trace = Trace::of_epoch(&address.job, address.epoch, message.round());
        headers.insert(TRACE_HEADER, trace.to_string());
    }
    headers
}

fn already_said(error: &PublishError) -> bool {
    let source = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<jetstream::Error>());
    // The same code is used when a disk is full; the text tells them apart.
    source.is_some_and(|source| {
        source.error_code().0 == STORE_FAILED
            && source.to_string().contains("maximum messages per subject")
    })
}

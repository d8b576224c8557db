//! Questions and their answers, typed: between two processes, kept by nobody.

use contract::Message;
use contract::envelope::{KIND_HEADER, VERSION_HEADER};
use contract::message::control::{Control, Reply};
use contract::message::grant::{Answer, Ask};
use contract::subject;
use futures::{Stream, StreamExt};

use crate::connection::REQUEST_TIMEOUT;
use crate::publish::{headers, payload};
use crate::{Bus, Error};

/// Processes of one service share its questions under this name: each is answered once.
const TOGETHER: &str = "grants";

/// A worker's question, from the worker that it says it is from, to be answered.
#[derive(Debug)]
pub struct IncomingAsk {
    /// The question.
    pub ask: Ask,
    reply: async_nats::Subject,
    bus: Bus,
}

impl IncomingAsk {
    /// Answers the worker.
    ///
    /// # Errors
    /// If the connection is gone; the worker then asks again.
    pub async fn answer(self, answer: &Answer) -> Result<(), Error> {
        let client = &self.bus.client;
        let sent = client.publish_with_headers(self.reply, headers(answer), payload(answer)?);
        let sent = sent.await;
        sent.map_err(|error| Error::unavailable("answer a worker")(Box::new(error)))
    }
}

impl Bus {
    /// Gives a worker an order and waits for its answer.
    ///
    /// # Errors
    /// If nobody answers in time.
    pub async fn order(&self, control: &Control) -> Result<Reply, Error> {
        self.request("order a worker", control).await
    }

    /// Asks for URLs and waits for the answer.
    ///
    /// # Errors
    /// If nobody answers in time.
    pub async fn ask(&self, ask: &Ask) -> Result<Answer, Error> {
        self.request("ask for URLs", ask).await
    }

    /// The questions of all workers, each to one of the processes that listen. One under another
    /// worker's name, or that asks to be answered where its worker does not listen, is dropped: what
    /// is said on somebody's behalf must not go anywhere else.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn asks(
        &self,
    ) -> Result<impl Stream<Item = IncomingAsk> + Send + Unpin + use<>, Error> {
        let asks = self
            .client
            .queue_subscribe(subject::grants(), TOGETHER.to_owned());
        let asks = asks.await;
        let asks =
            asks.map_err(|error| Error::unavailable("listen to workers")(Box::new(error)))?;
        let bus = self.clone();
        Ok(asks.filter_map(move |message| std::future::ready(incoming(&bus, &message))))
    }

    async fn request<Q: Message, A: Message>(
        &self,
        doing: &'static str,
        question: &Q,
    ) -> Result<A, Error> {
        let subject = question.subject();
        let request = self.client.request_with_headers(
            subject.clone(),
            headers(question),
            payload(question)?,
        );
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, request).await;
        let answer = answer.map_err(|error| Error::unavailable(doing)(Box::new(error)))?;
        let answer = answer.map_err(|error| Error::unavailable(doing)(Box::new(error)))?;
        read(&answer).map_err(|error| Error::Decode {
            subject,
            source: Box::new(error),
        })
    }
}

fn incoming(bus: &Bus, message: &async_nats::Message) -> Option<IncomingAsk> {
    let worker = subject::parse_grant(&message.subject)?;
    let ask: Ask = read(message)
        .inspect_err(|error| tracing::warn!(%error, %worker, "question dropped"))
        .ok()?;
    let reply = message.reply.clone()?;
    let inbox = format!("{}.", subject::inbox(&worker));
    if ask.worker != worker || !reply.starts_with(&inbox) {
        tracing::warn!(%worker, named = %ask.worker, %reply, "question for somebody else dropped");
        return None;
    }
    Some(IncomingAsk {
        ask,
        reply,
        bus: bus.clone(),
    })
}

/// What came on a subject that no stream keeps.
pub(crate) fn read<M: Message>(message: &async_nats::Message) -> Result<M, contract::DecodeError> {
    let headers = message.headers.as_ref();
    let header = |name| headers?.get(name).map(|value| value.as_str());
    contract::decode(
        header(KIND_HEADER),
        header(VERSION_HEADER),
        &message.payload,
    )
}

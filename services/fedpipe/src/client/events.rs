//! Follows what happens to a job, over any number of broken connections.

use std::time::Duration;

use eventsource_stream::{Event as Raw, Eventsource};
use futures::StreamExt;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::view::Beat;
use super::{Client, Problem};

/// The API sends at least a comment every 10 s; who is silent for longer is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// First pause between two attempts, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Attempts in a row without a word of the API; about three minutes.
const ATTEMPTS: u32 = 40;

/// Events that may wait to be shown.
const WAITING: usize = 64;

/// What was heard.
#[derive(Debug)]
pub enum Heard {
    /// Something happened to the job.
    Event(Event),
    /// A worker made progress.
    Progress(Beat),
    /// The connection broke; it is tried again.
    Broken(String),
    /// Nothing more will come: the job has ended, or it cannot be followed.
    End(anyhow::Result<()>),
}

/// Something that happened to a job.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// When (RFC 3339).
    pub at: String,
    /// What.
    pub event: String,
    /// What belongs to it.
    #[serde(default)]
    pub detail: Map<String, Value>,
}

impl Event {
    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self.event.as_str(), "finished" | "failed" | "cancelled")
    }
}

/// Follows a job in the background. With `follow` it waits for more until the job has ended; otherwise
/// it ends with what there is.
pub fn follow(client: Client, job: String, follow: bool) -> mpsc::Receiver<Heard> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let mut stream = Follower {
            client,
            job,
            follow,
            last_id: None,
            sender,
        };
        let end = stream.run().await;
        let _ = stream.sender.send(Heard::End(end)).await;
    });
    receiver
}

struct Follower {
    client: Client,
    job: String,
    follow: bool,
    last_id: Option<String>,
    sender: mpsc::Sender<Heard>,
}

impl Follower {
    async fn run(&mut self) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            let before = self.last_id.clone();
            match self.connection().await {
                Ok(true) => return Ok(()),
                Ok(false) if !self.follow => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    let refused = error
                        .downcast_ref::<Problem>()
                        .is_some_and(|problem| !problem.is_passing());
                    failures = if self.last_id == before {
                        failures + 1
                    } else {
                        0
                    };
                    if refused || failures >= ATTEMPTS {
                        return Err(error);
                    }
                    if self
                        .sender
                        .send(Heard::Broken(format!("{error:#}")))
                        .await
                        .is_err()
                    {
                        return Ok(());
                    }
                }
            }
            tokio::time::sleep(pause(failures)).await;
        }
    }

    /// Reads one connection to its end; true if nothing more will come.
    async fn connection(&mut self) -> anyhow::Result<bool> {
        let path = format!("/v1/jobs/{}/events?follow={}", self.job, self.follow);
        let mut request = self.client.request(Method::GET, &path)?;
        if let Some(id) = &self.last_id {
            request = request.header("Last-Event-ID", id);
        }
        let mut events = self
            .client
            .send(request)
            .await?
            .bytes_stream()
            .eventsource();
        loop {
            let next = tokio::time::timeout(SILENCE, events.next()).await;
            match next.map_err(|_| anyhow::anyhow!("the API is silent"))? {
                Some(Ok(raw)) => {
                    if self.hear(raw).await? {
                        return Ok(true);
                    }
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(false),
            }
        }
    }

    async fn hear(&mut self, raw: Raw) -> anyhow::Result<bool> {
        let (heard, last) = if raw.event == "progress" {
            (Heard::Progress(serde_json::from_str(&raw.data)?), false)
        } else {
            let event: Event = serde_json::from_str(&raw.data)?;
            let last = event.is_last();
            (Heard::Event(event), last)
        };
        if !raw.id.is_empty() {
            self.last_id = Some(raw.id);
        }
        // Nobody listens any more: that is an end as well.
        Ok(self.sender.send(heard).await.is_err() || last)
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(1 << failures.min(6))
        .min(LONGEST_PAUSE)
}

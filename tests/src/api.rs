//! The REST API as a client sees it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use testkit::wait;

/// Longest time one request may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A client. The API may die and come back on another port: its address is read before each request.
#[derive(Debug, Clone)]
pub struct Api {
    address_file: PathBuf,
    http: reqwest::Client,
}

/// An answer: status and JSON body, `null` where there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Value,
}

/// An event of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its place in the stream.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// The epoch it belongs to.
    pub epoch: u64,
    /// What belongs to it.
    pub detail: Value,
}

impl Api {
    pub(crate) fn of(state: &Path) -> Self {
        // Invariant: refused only if somebody installed one before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER)
            .build()
            .expect("an HTTP client");
        Self {
            address_file: state.join("run/api.address"),
            http,
        }
    }

    /// One request without patience; `None` if nobody answers.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&str>) -> Option<Answer> {
        let bytes = self.bytes(method, path, body).await?;
        let (status, bytes) = bytes;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Some(Answer { status, body })
    }

    /// As [`Api::ask`], the body as it came.
    pub async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> Option<(StatusCode, Vec<u8>)> {
        let address = std::fs::read_to_string(&self.address_file).ok()?;
        let url = format!("http://{}{path}", address.trim());
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            let json = "application/json";
            request = request.header("content-type", json).body(body.to_owned());
        }
        let answer = request.send().await.ok()?;
        let status = answer.status();
        Some((status, answer.bytes().await.ok()?.to_vec()))
    }

    /// A request that is answered sooner or later, by this or the next process.
    pub async fn get(&self, path: &str) -> Answer {
        wait::some(&format!("GET {path} is answered"), 3 * ANSWER, async || {
            let answer = self.ask(Method::GET, path, None).await?;
            (!answer.status.is_server_error()).then_some(answer)
        })
        .await
    }

    /// Submits and returns whatever the answer is. The key makes repeating harmless.
    pub async fn try_submit(&self, job: &Value, key: &str) -> Answer {
        let body = job.to_string();
        wait::some("a submission is answered", 3 * ANSWER, async || {
            let address = std::fs::read_to_string(&self.address_file).ok()?;
            let request = self
                .http
                .post(format!("http://{}/v1/jobs", address.trim()))
                .header("content-type", "application/json")
                .header("idempotency-key", key)
                .body(body.clone());
            let answer = request.send().await.ok()?;
            let status = answer.status();
            let body = answer.json().await.unwrap_or(Value::Null);
            (!status.is_server_error()).then_some(Answer { status, body })
        })
        .await
    }

    /// Submits a job that must be accepted; returns its id.
    pub async fn submit(&self, job: &Value) -> String {
        let key = format!("key-{}", chassis::clock::random_token());
        let answer = self.try_submit(job, &key).await;
        assert!(answer.status.is_success(), "refused: {answer:?}");
        answer.body["id"].as_str().expect("an id").to_owned()
    }

    /// The job now.
    pub async fn job(&self, id: &str) -> Value {
        let answer = self.get(&format!("/v1/jobs/{id}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.body
    }

    /// Waits until the job is so.
    pub async fn until(
        &self,
        id: &str,
        what: &str,
        within: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let last = std::cell::RefCell::new(Value::Null);
        let path = format!("/v1/jobs/{id}");
        let search = wait::some(what, within + ANSWER, async || {
            let answer = self.ask(Method::GET, &path, None).await?;
            if answer.status == StatusCode::OK {
                last.replace(answer.body.clone());
            }
            (answer.status == StatusCode::OK && holds(&answer.body)).then_some(answer.body)
        });
        match tokio::time::timeout(within, search).await {
            Ok(job) => job,
            Err(_) => panic!(
                "waited {within:?} in vain until {what}: {:#}",
                last.borrow()
            ),
        }
    }

    /// Waits for a phase.
    pub async fn phase(&self, id: &str, phase: &str, within: Duration) -> Value {
        let what = format!("{id} is {phase}");
        self.until(id, &what, within, |job| job["phase"] == phase)
            .await
    }

    /// Waits for the job's end.
    pub async fn ended(&self, id: &str, within: Duration) -> Value {
        let what = format!("{id} has ended");
        let over = |job: &Value| {
            ["succeeded", "failed", "cancelled"]
                .iter()
                .any(|phase| job["phase"] == *phase)
        };
        self.until(id, &what, within, over).await
    }

    /// Waits for a good end; returns the adapter's digest.
    pub async fn succeeded(&self, id: &str, within: Duration) -> String {
        let job = self.ended(id, within).await;
        assert_eq!(job["phase"], "succeeded", "{job:#}");
        let digest = job["adapter"]["sha256"].as_str().expect("an adapter");
        digest.to_owned()
    }

    /// Everything said of a job so far.
    pub async fn events(&self, id: &str) -> Vec<Event> {
        let path = format!("/v1/jobs/{id}/events?follow=false");
        let text = wait::some("events are read", 3 * ANSWER, async || {
            let (status, bytes) = self.bytes(Method::GET, &path, None).await?;
            (status == StatusCode::OK).then(|| String::from_utf8_lossy(&bytes).into_owned())
        });
        text.await.split("\n\n").filter_map(event).collect()
    }

    /// The report of a job that succeeded.
    pub async fn report(&self, id: &str) -> Value {
        self.get(&format!("/v1/jobs/{id}/report")).await.body
    }

    /// The rounds of a job.
    pub async fn rounds(&self, id: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/jobs/{id}/rounds?limit=500")).await;
        answer.body["items"].as_array().expect("rounds").clone()
    }

    /// Posts to a job: `cancel`, `pause`, `resume`.
    pub async fn order(&self, id: &str, what: &str) -> Answer {
        let path = format!("/v1/jobs/{id}/{what}");
        wait::some(
            &format!("POST {path} is answered"),
            3 * ANSWER,
            async || {
                let answer = self.ask(Method::POST, &path, None).await?;
                (!answer.status.is_server_error()).then_some(answer)
            },
        )
        .await
    }
}

/// One block of an event stream; comments and progress are none.
fn event(block: &str) -> Option<Event> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
    let data: Value = serde_json::from_str(field("data:")?.trim()).ok()?;
    Some(Event {
        id: field("id:")?.trim().parse().ok()?,
        name: field("event:")?.trim().to_owned(),
        epoch: data["epoch"].as_u64()?,
        detail: data["detail"].clone(),
    })
}

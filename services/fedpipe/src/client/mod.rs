//! The REST interface as the command line uses it.
//!
//! Promises: a refusal arrives as the problem document the API sent; a request that never arrived says
//! what to do. Does not: interpret what jobs are made of beyond what is shown.

pub mod archive;
pub mod events;
pub mod job_file;
mod problem;
pub mod view;

use std::time::Duration;

use anyhow::Context;
use clap::Args as Arguments;
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use problem::Problem;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may be silent; longer than the API's own limit.
const SILENCE: Duration = Duration::from_secs(70);

/// Items of a page that is asked for.
const PAGE: usize = 200;

/// Pages that are read at most.
const PAGES: usize = 1000;

/// Where the API is, and who asks.
#[derive(Debug, Clone, Arguments)]
pub struct Connection {
    /// Address of the API
    #[arg(
        long,
        value_name = "URL",
        env = "FEDPIPE_API",
        default_value = "http://127.0.0.1:8080"
    )]
    api: Url,
    /// Token that the API asks for
    #[arg(long, env = "FEDPIPE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Connection {
    /// A client of this API.
    pub fn client(&self) -> anyhow::Result<Client> {
        let token = self.token.clone();
        Client::at(self.api.clone()).map(|client| Client { token, ..client })
    }
}

/// A client of one API. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

impl Client {
    /// A client of the API at this address, without a token.
    pub fn at(base: Url) -> anyhow::Result<Self> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE);
        // A proxy reaches no address of this machine.
        if matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            builder = builder.no_proxy();
        }
        let http = builder.build()?;
        Ok(Self {
            http,
            base,
            token: None,
        })
    }

    /// A request to a path of the API.
    pub fn request(&self, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        let url = self
            .base
            .join(path)
            .with_context(|| format!("{path} is no path of {}", self.base))?;
        let request = self.http.request(method, url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    /// Sends a request; an answer that is no success is an error.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let sent = request.send().await.map_err(reqwest::Error::without_url);
        let answer = sent.with_context(|| {
            format!("the API does not answer at {}. Next: start `fedpipe up`, or give its address with --api or FEDPIPE_API", self.base)
        })?;
        match Problem::of(answer).await {
            Ok(answer) => Ok(answer),
            Err(problem) => Err(problem.into()),
        }
    }

    /// The JSON answer to a GET.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.answer(self.request(Method::GET, path)?).await
    }

    /// The JSON answer to a POST without a body.
    pub async fn post(&self, path: &str) -> anyhow::Result<Value> {
        self.answer(self.request(Method::POST, path)?).await
    }

    /// Every item of a list, page after page.
    pub async fn items(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut items = Vec::new();
        let mut cursor = String::new();
        for _ in 0..PAGES {
            let page: Page = self
                .get(&format!("{path}{separator}limit={PAGE}{cursor}"))
                .await?;
            items.extend(page.items);
            match page.next_cursor {
                // Invariant: the API makes cursors of characters that need no escaping.
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        Ok(items)
    }

    /// Sends a request and reads its JSON.
    pub async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let answer = self.send(request).await?;
        let read = answer.json().await.map_err(reqwest::Error::without_url);
        read.context("the answer cannot be read: are the API and this program of one version?")
    }
}

#[derive(serde::Deserialize)]
struct Page {
    items: Vec<Value>,
    next_cursor: Option<String>,
}

//! One question to the Hub and its answer, wherever it is sent on to.
//!
//! Redirects are followed by hand: what the Hub says of a file stands in its own answer, not in that of the
//! storage behind it, and the token is for the Hub alone.

use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, LOCATION, RANGE,
};
use reqwest::{Method, Response, StatusCode, Url};

use super::{Error, Hub};
use crate::Retry;

const LINKED_TAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const MESSAGE: HeaderName = HeaderName::from_static("x-error-message");

/// Times that a question is sent on.
const REDIRECTS: usize = 5;
/// Characters of a server's own words that are passed on.
const WORDS: usize = 200;
/// Largest list of a repository's files.
const LIST_BYTES: usize = 16 << 20;

/// What the Hub says of a file.
#[derive(Debug, Default)]
pub(super) struct About {
    pub tag: Option<String>,
    pub bytes: Option<u64>,
    pub commit: Option<String>,
    /// Of an answer that was not given elsewhere.
    linked_tag: bool,
}

impl About {
    /// The first that is said counts: it is the Hub's, what comes after is said by what lies behind it.
    fn hear(&mut self, headers: &HeaderMap, last: bool) {
        let text = |name: &HeaderName| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let number = |name: &HeaderName| text(name)?.parse().ok();
        match text(&LINKED_TAG) {
            Some(tag) if !self.linked_tag => (self.tag, self.linked_tag) = (Some(tag), true),
            _ if self.tag.is_none() => self.tag = text(&ETAG),
            _ => {}
        }
        self.bytes = self.bytes.or_else(|| number(&LINKED_SIZE));
        if last {
            self.bytes = self.bytes.or_else(|| number(&CONTENT_LENGTH));
        }
        self.commit = self.commit.take().or_else(|| text(&COMMIT));
    }
}

impl Hub {
    /// What the Hub says of a file, without the file.
    pub(super) async fn about(&self, url: &Url, what: &str) -> Result<About, Error> {
        let mut failed = 0;
        loop {
            match self.heads(url.clone(), what).await {
                Err(error) => self.wait(error, &mut failed).await?,
                about => return about,
            }
        }
    }

    /// The body of a short answer.
    pub(super) async fn text(&self, url: &Url, what: &str) -> Result<Vec<u8>, Error> {
        let mut failed = 0;
        loop {
            match self.short(url.clone(), what).await {
                Err(error) => self.wait(error, &mut failed).await?,
                text => return text,
            }
        }
    }

    /// Waits before another attempt.
    ///
    /// # Errors
    /// The error itself, if it does not pass, or there were enough attempts.
    pub(super) async fn wait(&self, error: Error, failed: &mut u32) -> Result<(), Error> {
        *failed += 1;
        if error.retry() == Retry::Never || *failed >= self.limits.attempts {
            return Err(error);
        }
        let pause = self.limits.pause.saturating_mul(1 << (*failed - 1).min(6));
        tracing::debug!(%error, "the Hub is asked again");
        if pause > Duration::ZERO {
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    async fn heads(&self, mut url: Url, what: &str) -> Result<About, Error> {
        let mut about = About::default();
        for _ in 0..=REDIRECTS {
            let answer = self.send(Method::HEAD, &url, 0).await?;
            let next = elsewhere(&url, &answer, what)?;
            about.hear(answer.headers(), next.is_none());
            match next {
                // What is asked there has no digest; the content is fetched from there later.
                Some(next) if !self.is_hub(&next) => return Ok(about),
                Some(next) => url = next,
                None => {
                    self.judge(&answer, what, 0)?;
                    return Ok(about);
                }
            }
        }
        Err(circular(what))
    }

    async fn short(&self, url: Url, what: &str) -> Result<Vec<u8>, Error> {
        let mut answer = self.content(url, what, 0).await?;
        let mut all = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| self.unreachable(e))? {
            if all.len() + piece.len() > LIST_BYTES {
                let why = format!("it is longer than {LIST_BYTES} bytes");
                return Err(protocol(what, why));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    /// Content from byte `from` on, wherever the Hub has it.
    pub(super) async fn content(
        &self,
        mut url: Url,
        what: &str,
        from: u64,
    ) -> Result<Response, Error> {
        for _ in 0..=REDIRECTS {
            let answer = self.send(Method::GET, &url, from).await?;
            match elsewhere(&url, &answer, what)? {
                Some(next) => url = next,
                None => {
                    self.judge(&answer, what, from)?;
                    return Ok(answer);
                }
            }
        }
        Err(circular(what))
    }

    async fn send(&self, method: Method, url: &Url, from: u64) -> Result<Response, Error> {
        // As it is: what is compressed on its way has another length, and no byte to go on from.
        let mut request = self
            .client
            .request(method, url.clone())
            .header(ACCEPT_ENCODING, "identity");
        if let Some(token) = self.token.as_ref().filter(|_| self.is_hub(url)) {
            request = request.bearer_auth(token.reveal());
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        request.send().await.map_err(|e| self.unreachable(e))
    }

    /// Whether this address is the Hub's own: its token is for nobody else.
    fn is_hub(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// What an answer that is no success means.
    fn judge(&self, answer: &Response, what: &str, from: u64) -> Result<(), Error> {
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let words = answer
            .headers()
            .get(MESSAGE)
            .and_then(|words| words.to_str().ok());
        let said = words.map_or_else(String::new, |words| {
            format!(": {}", words.chars().take(WORDS).collect::<String>())
        });
        let (what, with_token) = (what.to_owned(), self.token.is_some());
        Err(match status {
            StatusCode::UNAUTHORIZED => Error::Unauthorized {
                what,
                said,
                with_token,
            },
            StatusCode::FORBIDDEN => Error::Forbidden {
                what,
                said,
                with_token,
            },
            StatusCode::NOT_FOUND => Error::NotFound { what, said },
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => Error::Range { what, from },
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Error::Failed {
                what,
                status: status.as_u16(),
            },
            _ if status.is_server_error() => Error::Failed {
                what,
                status: status.as_u16(),
            },
            _ => Error::Refused {
                what,
                status: status.as_u16(),
                said,
            },
        })
    }

    pub(super) fn unreachable(&self, source: reqwest::Error) -> Error {
        Error::Unreachable {
            endpoint: self.endpoint.to_string(),
            source: source.without_url(),
        }
    }
}

/// Where an answer sends us on to.
fn elsewhere(url: &Url, answer: &Response, what: &str) -> Result<Option<Url>, Error> {
    if !answer.status().is_redirection() {
        return Ok(None);
    }
    let place = answer
        .headers()
        .get(LOCATION)
        .and_then(|place| place.to_str().ok());
    let next = place.and_then(|place| url.join(place).ok());
    let next = next.ok_or_else(|| protocol(what, "a redirect that names no address".to_owned()))?;
    let safe = next.scheme() == "https" || (next.scheme() == "http" && url.scheme() == "http");
    if safe {
        Ok(Some(next))
    } else {
        Err(protocol(
            what,
            "a redirect from https:// to something else".to_owned(),
        ))
    }
}

pub(super) fn protocol(what: &str, why: String) -> Error {
    Error::Protocol {
        what: what.to_owned(),
        why,
    }
}

fn circular(what: &str) -> Error {
    protocol(what, format!("more than {REDIRECTS} redirects"))
}

//! What goes wrong on the way to storage through a URL. No URL is ever part of it.

use domain::grant::Refusal;
use object_store::client::{HttpError, HttpResponse};

use crate::error::Source;
use crate::sign::SignError;

/// Bytes of an error's answer that are read.
const ANSWER_BYTES: usize = 4096;
/// Letters of what it says that are repeated.
const SHOWN: usize = 200;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The control plane does not grant it.
    #[error("not granted")]
    Refused(#[source] Refusal),
    /// Nobody signs.
    #[error("nobody signs URLs at this moment")]
    Away(#[source] Source),
    /// The words are those of object_store, so that they are sorted alike.
    #[error("Server returned non-2xx status code: {status} {says}")]
    Answer { status: u16, says: String },
    /// The transport.
    #[error("the request failed")]
    Http(#[from] HttpError),
    /// The answer ended too early.
    #[error("the answer broke off")]
    Broken,
    /// What was signed is `http://`, and this site does not consent.
    #[error("the signed URL is http://")]
    InTheClear,
    /// What was signed is no URL.
    #[error("what was signed cannot be asked for")]
    NoUrl,
    /// The server ignores ranges.
    #[error("the server does not answer from where the last answer broke off")]
    NoRange,
    /// The server does not say how long its answer is.
    #[error("the server does not say how long the object is")]
    NoLength,
}

impl From<SignError> for Fault {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Refused(refusal) => Self::Refused(refusal),
            SignError::Away(source) => Self::Away(source),
        }
    }
}

impl Fault {
    /// What a server says that does not do what it was asked. Only the code and the message of its
    /// answer are kept: the rest may repeat what was signed.
    pub async fn answer(response: HttpResponse) -> Self {
        use futures::StreamExt as _;
        let status = response.status().as_u16();
        let mut chunks = response.into_body().bytes_stream();
        let mut text = Vec::new();
        while let Some(Ok(chunk)) = chunks.next().await {
            text.extend_from_slice(&chunk);
            if text.len() > ANSWER_BYTES {
                break;
            }
        }
        let text = String::from_utf8_lossy(&text);
        let of = |tag: &str| {
            let (_, rest) = text.split_once(&format!("<{tag}>"))?;
            let (inner, _) = rest.split_once(&format!("</{tag}>"))?;
            Some(inner.to_owned())
        };
        let says: Vec<String> = ["Code", "Message"].into_iter().filter_map(of).collect();
        let says = says.join(": ").chars().take(SHOWN).collect();
        Self::Answer { status, says }
    }

    /// Whether storage does not take the URL: it has expired, or was never right.
    pub fn says_expired(&self) -> bool {
        matches!(
            self,
            Self::Answer {
                status: 401 | 403,
                ..
            }
        )
    }

    /// Whether the same request may succeed a moment later.
    pub fn passes(&self) -> bool {
        match self {
            Self::Away(_) | Self::Http(_) | Self::Broken => true,
            // 409: S3 is busy with another write of the same object.
            Self::Answer { status, .. } => {
                matches!(status, 408 | 409 | 429 | 500..) && *status != 507
            }
            _ => false,
        }
    }

    /// The same as an error of object_store about this key.
    pub fn at(self, key: &str) -> object_store::Error {
        let path = key.to_owned();
        match self {
            Self::Answer {
                status: 404,
                ref says,
            } if !says.contains("NoSuchBucket") => object_store::Error::NotFound {
                path,
                source: self.into(),
            },
            Self::Answer { status: 412, .. } => object_store::Error::AlreadyExists {
                path,
                source: self.into(),
            },
            fault => object_store::Error::Generic {
                store: "signed URLs",
                source: fault.into(),
            },
        }
    }
}

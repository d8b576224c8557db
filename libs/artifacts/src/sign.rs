//! The side that signs: URLs for somebody who has no credentials, made from credentials of our own.
//!
//! Nothing is decided here: who may have a URL is `domain::grant`'s rule and its caller's business.

use std::sync::Arc;
use std::time::Duration;

use domain::grant::{Access, SignedUrl, Wanted};
use futures::future::BoxFuture;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::{HeaderName, HeaderValue, Method, SignedUrlOptions, Signer as _};

use crate::error::Source;
use crate::{Config, Error, Store, key};

/// The header that keeps a PUT from replacing what is there. It is part of the signature, so that the
/// URL is good for nothing else.
pub(crate) const IF_NONE_MATCH: HeaderName = HeaderName::from_static("if-none-match");
/// Its value: whatever is there.
pub(crate) const ANYTHING: HeaderValue = HeaderValue::from_static("*");

/// Longest validity that S3 accepts, in seconds: a week.
const LONGEST_SECONDS: u32 = 7 * 86_400;

/// URLs, in the order in which they were asked for.
#[derive(Debug, Clone)]
pub struct Signed {
    /// One for each object.
    pub urls: Vec<SignedUrl>,
    /// How long a request may begin with them, counted from now.
    pub valid: Duration,
}

/// Why there are no URLs.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// They were refused; asking again gives the same answer.
    #[error(transparent)]
    Refused(domain::grant::Refusal),
    /// Nobody signs at this moment.
    #[error("nobody signs URLs at this moment")]
    Away(#[source] Source),
}

/// Somebody else who signs for us. The caller gives it to [`Store::granted`].
pub trait Signer: std::fmt::Debug + Send + Sync {
    /// Asks for URLs for all of `wanted`, at most [`domain::grant::BATCH`].
    fn sign(&self, wanted: Vec<Wanted>) -> BoxFuture<'_, Result<Signed, SignError>>;
}

/// What signing needs.
#[derive(Debug)]
pub(crate) struct Signing {
    s3: Arc<AmazonS3>,
    prefix: Path,
    valid: Duration,
}

impl Signing {
    pub(crate) fn new(config: &Config, s3: Arc<AmazonS3>, prefix: Path) -> Result<Self, Error> {
        let seconds = config.urls.valid_seconds;
        if !(1..=LONGEST_SECONDS).contains(&seconds) {
            let why = format!("urls.valid_seconds must be from 1 to {LONGEST_SECONDS}");
            return Err(Error::Config { why });
        }
        let valid = Duration::from_secs(u64::from(seconds));
        Ok(Self { s3, prefix, valid })
    }

    async fn url(&self, wanted: &Wanted) -> Result<SignedUrl, object_store::Error> {
        let location: Path = self
            .prefix
            .parts()
            .chain(Path::from(wanted.key.as_str()).parts())
            .collect();
        let plain = SignedUrlOptions::default();
        let (method, options) = match wanted.access {
            Access::Get => (Method::GET, plain),
            Access::Head => (Method::HEAD, plain),
            Access::Delete => (Method::DELETE, plain),
            Access::Put => (
                Method::PUT,
                plain.with_signed_header(IF_NONE_MATCH, ANYTHING),
            ),
        };
        // S3 counts from the beginning of the second in which the URL was signed.
        let expires_in = self.valid + Duration::from_secs(1);
        let url = self
            .s3
            .signed_url_opts(method, &location, expires_in, &options)
            .await?;
        Ok(SignedUrl::from(String::from(url)))
    }
}

impl Store {
    /// Signs URLs with this storage's own credentials, for somebody who has none. Nothing is asked
    /// over the network.
    ///
    /// # Errors
    /// [`Error::NoUrls`] if objects lie in a folder or are themselves reached through URLs;
    /// [`Error::InvalidKey`].
    pub async fn sign(&self, wanted: &[Wanted]) -> Result<Signed, Error> {
        let signing = self.signing.as_ref().ok_or(Error::NoUrls)?;
        let mut urls = Vec::with_capacity(wanted.len());
        for one in wanted {
            key::parse(&one.key)?;
            let url = signing.url(one).await;
            urls.push(url.map_err(|e| Error::storage(&self.place, &one.key, e))?);
        }
        let valid = signing.valid;
        Ok(Signed { urls, valid })
    }
}

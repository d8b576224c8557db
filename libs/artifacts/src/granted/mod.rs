//! Storage reached through URLs that somebody else signs: no credentials, no listing, and nothing but
//! what each URL allows.
//!
//! It is an `object_store` like the others, so parts, manifests, limits and verification above it are
//! the same. A request that fails is repeated as the others repeat it; a URL that storage no longer
//! takes is asked for again once; an answer that breaks off goes on where it broke.

mod body;
mod fault;
mod urls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use domain::grant::{Access, Reason, Refusal, Wanted};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use object_store::client::{
    HttpClient, HttpConnector, HttpRequest, HttpResponse, ReqwestConnector,
};
use object_store::path::Path;
use object_store::signer::{HeaderMap, HeaderName, HeaderValue, Method};
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::measured::Measured;
use crate::sign::{ANYTHING, IF_NONE_MATCH, Signer};
use crate::store::{self, RETRY_TIMEOUT};
use crate::transfer::tick;
use crate::{Config, Error, Store};

pub(crate) use fault::Fault;
pub(crate) use urls::Urls;

const CONTENT_LENGTH: HeaderName = HeaderName::from_static("content-length");
const RANGE: HeaderName = HeaderName::from_static("range");

/// Pauses between attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Connections to storage without credentials; clones share them.
#[derive(Debug, Clone)]
pub struct Link {
    reads: HttpClient,
    writes: HttpClient,
    allow_http: bool,
}

impl Link {
    /// Prepares connections; nothing is asked yet. Of the settings, only `ca_file` and `allow_http`
    /// have a meaning here.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that only somebody with credentials could use.
    pub fn open(config: &Config) -> std::result::Result<Self, Error> {
        let Config {
            ca_file,
            allow_http,
            ..
        } = config;
        let (ca_file, allow_http) = (ca_file.clone(), *allow_http);
        let meaningful = Config {
            ca_file,
            allow_http,
            ..Config::default()
        };
        if *config != meaningful {
            let why = "without a url storage is reached through signed URLs: only ca_file and allow_http mean something then";
            return Err(Error::Config { why: why.into() });
        }
        let connect = |options| {
            let client = ReqwestConnector::default().connect(&options);
            client.map_err(|e| Error::Config { why: e.to_string() })
        };
        Ok(Self {
            reads: connect(store::asking(config)?)?,
            writes: connect(store::sending(config)?)?,
            allow_http,
        })
    }
}

impl Store {
    /// Storage through URLs that `signer` gives. Listing, and whatever else no URL allows, is refused
    /// as [`Error::NotGranted`].
    #[must_use]
    pub fn granted(link: &Link, signer: Arc<dyn Signer>) -> Self {
        let urls = Arc::new(Urls::new(signer));
        let through = |client: &HttpClient| -> Arc<dyn ObjectStore> {
            Measured::over(Arc::new(Granted {
                client: client.clone(),
                urls: Arc::clone(&urls),
                allow_http: link.allow_http,
            }))
        };
        Self::through_urls(through(&link.reads), through(&link.writes), urls.clone())
    }
}

/// One client of the storage behind the URLs.
#[derive(Debug, Clone)]
struct Granted {
    client: HttpClient,
    urls: Arc<Urls>,
    allow_http: bool,
}

/// A request that can be made again and again.
struct Repeatable {
    wanted: Wanted,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Repeatable {
    fn new(access: Access, location: &Path) -> Self {
        let method = match access {
            Access::Get => Method::GET,
            Access::Head => Method::HEAD,
            Access::Put => Method::PUT,
            Access::Delete => Method::DELETE,
        };
        let key = location.to_string();
        Self {
            wanted: Wanted { access, key },
            method,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }
}

impl Granted {
    /// The answer to a request, whatever it takes within [`RETRY_TIMEOUT`].
    async fn send(&self, request: &Repeatable) -> std::result::Result<HttpResponse, Fault> {
        let started_at = tick();
        let (mut pause, mut renewed) = (FIRST_PAUSE, false);
        loop {
            let fault = match self.attempt(request).await {
                Ok(response) => return Ok(response),
                Err(fault) => fault,
            };
            if fault.says_expired() && !renewed {
                // It may be the URL's age: a fresh one decides.
                renewed = true;
                self.urls.forget(&request.wanted);
                continue;
            }
            if !fault.passes() || tick() - started_at > RETRY_TIMEOUT {
                return Err(fault);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, request: &Repeatable) -> std::result::Result<HttpResponse, Fault> {
        // Asked for at each attempt: it may have expired since the last one.
        let url = self.urls.get(&request.wanted).await?;
        if url.reveal().starts_with("http://") && !self.allow_http {
            return Err(Fault::InTheClear);
        }
        let mut http = HttpRequest::new(request.body.clone().into());
        *http.method_mut() = request.method.clone();
        *http.headers_mut() = request.headers.clone();
        *http.uri_mut() = url.reveal().parse().map_err(|_| Fault::NoUrl)?;
        let response = self.client.execute(http).await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(Fault::answer(response).await)
        }
    }

    /// An object from byte `from` on.
    async fn open(&self, location: &Path, from: u64) -> std::result::Result<HttpResponse, Fault> {
        let mut request = Repeatable::new(Access::Get, location);
        if from == 0 {
            return self.send(&request).await;
        }
        let range = HeaderValue::try_from(format!("bytes={from}-"));
        request
            .headers
            .insert(RANGE, range.map_err(|_| Fault::NoUrl)?);
        let response = self.send(&request).await?;
        // Whoever ignores the range begins anew.
        if response.status().as_u16() == 206 {
            Ok(response)
        } else {
            Err(Fault::NoRange)
        }
    }
}

fn length(response: &HttpResponse) -> std::result::Result<u64, Fault> {
    let header = response.headers().get(CONTENT_LENGTH);
    let length = header.and_then(|value| value.to_str().ok()?.parse().ok());
    length.ok_or(Fault::NoLength)
}

/// What no URL allows.
fn no_url(location: Option<&Path>) -> object_store::Error {
    let key = location.map_or("", |location| location.as_ref());
    Fault::Refused(Refusal::of(key, Reason::NotAllowed)).at(key)
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("storage through signed URLs")
    }
}

#[async_trait]
impl ObjectStore for Granted {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if options.mode != PutMode::Create {
            return Err(no_url(Some(location)));
        }
        let mut request = Repeatable::new(Access::Put, location);
        request.headers.insert(IF_NONE_MATCH, ANYTHING);
        // In one piece: a body of known length is not sent in chunks, which S3 does not take.
        request.body = payload.into();
        let sent = self.send(&request).await;
        sent.map_err(|fault| fault.at(location.as_ref()))?;
        Ok(PutResult {
            e_tag: None,
            version: None,
            extensions: Default::default(),
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(no_url(Some(location)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let at = |fault: Fault| fault.at(location.as_ref());
        let response = if options.head {
            self.send(&Repeatable::new(Access::Head, location)).await
        } else {
            self.open(location, 0).await
        };
        let response = response.map_err(at)?;
        let size = length(&response).map_err(at)?;
        let content = if options.head {
            stream::empty().boxed()
        } else {
            body::resuming(self.clone(), location.clone(), response, size)
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(content),
            meta: ObjectMeta {
                location: location.clone(),
                // Nobody above compares clocks.
                last_modified: Default::default(),
                size,
                e_tag: None,
                version: None,
            },
            range: 0..size,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let location = location?;
                    let request = Repeatable::new(Access::Delete, &location);
                    match this.send(&request).await {
                        Ok(_) => Ok(location),
                        Err(fault) => Err(fault.at(location.as_ref())),
                    }
                }
                .boxed()
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let refused = no_url(prefix);
        stream::once(async move { Err(refused) }).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        Err(no_url(prefix))
    }

    async fn copy_opts(&self, _: &Path, to: &Path, _: CopyOptions) -> Result<()> {
        Err(no_url(Some(to)))
    }
}

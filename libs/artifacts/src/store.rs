//! The storage itself: opening it, and the few operations that everything else is made of.
//!
//! It promises that no call hangs: finding out that a server is away takes at most 20 s (retries for
//! 10 s, then one last answer is awaited for 8 s), and a part that is being sent is given up after
//! [`SEND_TIMEOUT`]. It never overwrites an object.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use domain::grant::Wanted;
use futures::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, GetResultPayload, ObjectStore, ObjectStoreExt,
    PutMode, PutOptions, RetryConfig,
};

use crate::classify::Place;
use crate::granted::Urls;
use crate::measured::Measured;
use crate::sign::Signing;
use crate::{Config, Error, Transfer, key};

/// Time to set up a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Silence of a server that was asked something, or stopped within an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(8);
/// A request that fails is repeated for this long.
pub(crate) const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for sending one part; 8 MiB in it are 70 kB/s.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(120);

/// Objects on local files, on an S3 server, or behind URLs that somebody else signs; clones share the
/// connections.
#[derive(Debug, Clone)]
pub struct Store {
    /// For questions: they have short answers, or answers that show progress.
    pub(crate) reads: Arc<dyn ObjectStore>,
    /// For sending: the time an answer takes depends on what is sent.
    pub(crate) writes: Arc<dyn ObjectStore>,
    pub(crate) place: Place,
    /// Where local objects lie.
    pub(crate) folder: Option<PathBuf>,
    /// With what URLs are signed for others.
    pub(crate) signing: Option<Arc<Signing>>,
    /// The URLs that others sign for us.
    urls: Option<Arc<Urls>>,
}

impl Store {
    /// Opens the storage; an S3 server is not asked anything yet (see [`Store::ready`]).
    ///
    /// # Errors
    /// [`Error::Config`] if the settings cannot be used, [`Error::Io`] if the local folder cannot.
    pub fn open(config: &Config) -> Result<Self, Error> {
        if let Some(folder) = config.url.strip_prefix("file://") {
            Self::open_files(&config.url, folder)
        } else if let Some(bucket) = config.url.strip_prefix("s3://") {
            Self::open_s3(config, bucket)
        } else {
            let why = format!(
                "url must begin with file:// or s3://, it is `{}`",
                config.url
            );
            Err(Error::Config { why })
        }
    }

    fn open_files(url: &str, folder: &str) -> Result<Self, Error> {
        let folder = std::path::Path::new(folder);
        if !folder.is_absolute() {
            let why = format!("url must name an absolute folder, as file:///folder; it is `{url}`");
            return Err(Error::Config { why });
        }
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let place = Place {
            url: url.to_owned(),
            bucket: String::new(),
        };
        let files = LocalFileSystem::new_with_prefix(folder)
            .map_err(|e| Error::storage(&place, "", e))?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        let files = Measured::over(Arc::new(files));
        Ok(Self {
            reads: Arc::clone(&files),
            writes: files,
            place,
            folder: Some(folder.to_owned()),
            signing: None,
            urls: None,
        })
    }

    fn open_s3(config: &Config, bucket: &str) -> Result<Self, Error> {
        let (bucket, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
        let prefix = prefix.trim_end_matches('/');
        if bucket.is_empty() {
            return Err(Error::Config {
                why: "url must name a bucket, as s3://bucket".into(),
            });
        }
        let prefix = if prefix.is_empty() {
            Path::ROOT
        } else {
            key::parse(prefix)?
        };
        let place = Place {
            url: config.url.clone(),
            bucket: bucket.to_owned(),
        };
        let open =
            |endpoint: Option<&str>, options: ClientOptions| -> Result<Arc<AmazonS3>, Error> {
                let builder = s3_builder(config, bucket, endpoint)?.with_client_options(options);
                let built = builder.build();
                Ok(Arc::new(
                    built.map_err(|e| Error::Config { why: e.to_string() })?,
                ))
            };
        let endpoint = config.endpoint.as_deref();
        let (reads, writes) = (
            open(endpoint, asking(config)?)?,
            open(endpoint, sending(config)?)?,
        );
        let signs = match config.urls.endpoint.as_deref() {
            Some(elsewhere) => open(Some(elsewhere), asking(config)?)?,
            None => Arc::clone(&reads),
        };
        let signing = Signing::new(config, signs, prefix.clone())?;
        Ok(Self {
            reads: Measured::over(Arc::new(PrefixStore::new(reads, prefix.clone()))),
            writes: Measured::over(Arc::new(PrefixStore::new(writes, prefix))),
            place,
            folder: None,
            signing: Some(Arc::new(signing)),
            urls: None,
        })
    }

    /// Storage behind the URLs of somebody else.
    pub(crate) fn through_urls(
        reads: Arc<dyn ObjectStore>,
        writes: Arc<dyn ObjectStore>,
        urls: Arc<Urls>,
    ) -> Self {
        let place = Place {
            url: "the signed URLs".into(),
            bucket: "behind the signed URLs".into(),
        };
        Self {
            reads,
            writes,
            place,
            folder: None,
            signing: None,
            urls: Some(urls),
        }
    }

    /// Says what a transfer is going to ask for, so that its URLs are signed in batches.
    pub(crate) fn expect(&self, ahead: impl FnOnce() -> Vec<Wanted>) {
        if let Some(urls) = &self.urls {
            urls.expect(ahead());
        }
    }

    /// Asks the storage one small question: is it there, and may we in?
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Denied`], [`Error::BucketMissing`] and their like.
    pub async fn ready(&self) -> Result<(), Error> {
        if self.urls.is_some() {
            return self.exists(domain::object::REACH).await.map(drop);
        }
        match self.reads.list(Some(&Path::from("models"))).next().await {
            Some(Err(e)) => Err(Error::storage(&self.place, "models", e)),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Whether there is an object under this key.
    ///
    /// # Errors
    /// Whatever keeps the storage from answering.
    pub async fn exists(&self, key: &str) -> Result<bool, Error> {
        Ok(self.length(key).await?.is_some())
    }

    /// The length of the object under this key, if there is one.
    pub(crate) async fn length(&self, key: &str) -> Result<Option<u64>, Error> {
        match self.reads.head(&key::parse(key)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::storage(&self.place, key, e)),
        }
    }

    /// Whether an object of exactly `expected` bytes is there; another length is an error.
    pub(crate) async fn is_placed(&self, key: &str, expected: u64) -> Result<bool, Error> {
        match self.length(key).await {
            Ok(Some(found)) => same_length(key, expected, found).map(|()| true),
            // Who may write but not list is told "denied" for what is not there: writing decides.
            Ok(None) | Err(Error::Denied { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Writes an object unless it is there; what is there must have the same length.
    pub(crate) async fn create(
        &self,
        key: &str,
        bytes: Bytes,
        transfer: &Transfer,
    ) -> Result<(), Error> {
        let expected = bytes.len() as u64;
        transfer.pace(expected).await?;
        let create = PutOptions::from(PutMode::Create);
        let sent = self
            .writes
            .put_opts(&key::parse(key)?, bytes.into(), create)
            .await;
        match sent {
            Ok(_) => {
                transfer.count_moved(expected);
                Ok(())
            }
            Err(object_store::Error::AlreadyExists { .. }) => {
                let found = self.length(key).await?.unwrap_or(expected);
                same_length(key, expected, found)
            }
            Err(e) => Err(Error::storage(&self.place, key, e)),
        }
    }

    /// Reads an object of at most `limit` bytes.
    pub(crate) async fn get_small(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        let quiet = Transfer::default();
        let (length, payload) = self.get(key).await?;
        if length > limit {
            return Err(Error::TooLarge {
                key: key.to_owned(),
                bytes: length,
                limit,
            });
        }
        self.collect(key, length, payload, &quiet).await
    }

    /// Reads an object of exactly `expected` bytes, at the pace of `transfer`.
    pub(crate) async fn get_exact(
        &self,
        key: &str,
        expected: u64,
        transfer: &Transfer,
    ) -> Result<Bytes, Error> {
        let (found, payload) = self.get(key).await?;
        if found != expected {
            return Err(Error::WrongLength {
                key: key.to_owned(),
                expected,
                found,
            });
        }
        self.collect(key, expected, payload, transfer).await
    }

    async fn get(&self, key: &str) -> Result<(u64, GetResultPayload), Error> {
        let result = self.reads.get(&key::parse(key)?).await;
        let result = result.map_err(|e| Error::storage(&self.place, key, e))?;
        Ok((result.range.end - result.range.start, result.payload))
    }

    /// Gathers an answer of `expected` bytes; a longer one is cut off as soon as it shows.
    async fn collect(
        &self,
        key: &str,
        expected: u64,
        payload: GetResultPayload,
        transfer: &Transfer,
    ) -> Result<Bytes, Error> {
        let wrong = |found| Error::WrongLength {
            key: key.to_owned(),
            expected,
            found,
        };
        let mut stream = match payload {
            GetResultPayload::Stream(stream) => stream,
            GetResultPayload::File(file, path) => {
                let bytes =
                    crate::source::blocking(move || read_whole(file, &path, expected)).await?;
                transfer.count_moved(bytes.len() as u64);
                transfer.pace(bytes.len() as u64).await?;
                let found = bytes.len() as u64;
                return if found == expected {
                    Ok(bytes)
                } else {
                    Err(wrong(found))
                };
            }
        };
        let mut all = BytesMut::with_capacity(expected as usize);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| Error::storage(&self.place, key, e))?;
            let found = (all.len() + chunk.len()) as u64;
            if found > expected {
                return Err(wrong(found));
            }
            transfer.count_moved(chunk.len() as u64);
            transfer.pace(chunk.len() as u64).await?;
            all.extend_from_slice(&chunk);
        }
        if all.len() as u64 == expected {
            Ok(all.freeze())
        } else {
            Err(wrong(all.len() as u64))
        }
    }
}

/// For questions.
pub(crate) fn asking(config: &Config) -> Result<ClientOptions, Error> {
    let options = ClientOptions::new()
        .with_timeout_disabled()
        .with_read_timeout(READ_TIMEOUT);
    trusting(config, options)
}

/// For sending.
pub(crate) fn sending(config: &Config) -> Result<ClientOptions, Error> {
    trusting(config, ClientOptions::new().with_timeout(SEND_TIMEOUT))
}

/// The options with the configured authorities in them, and what all connections share.
fn trusting(config: &Config, options: ClientOptions) -> Result<ClientOptions, Error> {
    // The client has no TLS provider of its own; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut options = options
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(config.allow_http);
    if let Some(path) = &config.ca_file {
        let pem = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let unusable = |e| Error::Config {
            why: format!("ca_file: {e}"),
        };
        for certificate in Certificate::from_pem_bundle(&pem).map_err(unusable)? {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn s3_builder(
    config: &Config,
    bucket: &str,
    endpoint: Option<&str>,
) -> Result<AmazonS3Builder, Error> {
    let (Some(access), Some(secret)) = (&config.access_key, &config.secret_key) else {
        return Err(Error::Config {
            why: "s3:// needs access_key and secret_key".into(),
        });
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(config.region.as_deref().unwrap_or("us-east-1"))
        .with_access_key_id(access)
        .with_secret_access_key(secret.reveal())
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            // Time is the limit.
            max_retries: 100,
            retry_timeout: RETRY_TIMEOUT,
        });
    if let Some(endpoint) = endpoint {
        if endpoint.starts_with("http://") && !config.allow_http {
            let why = "endpoint is http://, which sends data in the clear: use https:// or set allow_http";
            return Err(Error::Config { why: why.into() });
        }
        builder = builder.with_endpoint(endpoint);
    }
    Ok(builder)
}

fn same_length(key: &str, expected: u64, found: u64) -> Result<(), Error> {
    if expected == found {
        Ok(())
    } else {
        Err(Error::WrongLength {
            key: key.to_owned(),
            expected,
            found,
        })
    }
}

fn read_whole(file: std::fs::File, path: &std::path::Path, limit: u64) -> Result<Bytes, Error> {
    use std::io::Read as _;
    let mut bytes = Vec::with_capacity(limit as usize);
    // One byte more than promised shows that it is longer.
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io(path, e))?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(url: &str, word: &str) {
        let config = Config {
            url: url.into(),
            ..Config::default()
        };
        let error = Store::open(&config).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }

    #[test]
    fn settings_that_cannot_work_say_what_to_change() {
        refused("", "file://");
        refused("https://x", "s3://");
        refused("file://relative", "absolute");
        refused("s3://", "bucket");
        refused("s3://bucket", "access_key");
    }

    #[test]
    fn storage_in_the_clear_needs_consent() {
        let mut config = Config {
            url: "s3://bucket".into(),
            endpoint: Some("http://127.0.0.1:1".into()),
            access_key: Some("a".into()),
            secret_key: Some("b".to_owned().into()),
            ..Config::default()
        };
        assert!(
            Store::open(&config)
                .unwrap_err()
                .to_string()
                .contains("allow_http")
        );
        config.allow_http = true;
        Store::open(&config).unwrap();
    }
}

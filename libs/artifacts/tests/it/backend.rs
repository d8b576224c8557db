//! The storage under test, with a back door to damage it, and content to put into it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use artifacts::{Config, Link, Store, Transfer};
use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;
use testkit::s3::S3Server;

use crate::clerk::Clerk;
use tokio_util::sync::CancellationToken;

pub const MIB: usize = 1024 * 1024;

pub struct Backend {
    pub store: Store,
    /// The same storage with every right: who lists and deletes.
    pub owner: Store,
    back_door: Box<dyn ObjectStore>,
    /// A folder of the test's own.
    pub dir: TempDir,
    _server: Option<Arc<S3Server>>,
}

impl Backend {
    pub fn files() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("objects");
        let url = format!("file://{}", root.display());
        let store = Store::open(&Config {
            url,
            ..Config::default()
        })
        .unwrap();
        let back_door = object_store::local::LocalFileSystem::new_with_prefix(root).unwrap();
        Self {
            owner: store.clone(),
            store,
            back_door: Box::new(back_door),
            dir,
            _server: None,
        }
    }

    /// Tests that run at the same time share a server, each below its own prefix.
    pub fn s3(prefix: &str) -> Self {
        let server = shared_server();
        let config = config_of(&server, prefix);
        let store = Store::open(&config).unwrap();
        let back_door = AmazonS3Builder::new()
            .with_bucket_name(&server.bucket)
            .with_region("us-east-1")
            .with_endpoint(&server.endpoint)
            .with_access_key_id(&server.access_key)
            .with_secret_access_key(&server.secret_key)
            .with_allow_http(true)
            .build()
            .unwrap();
        let back_door = object_store::prefix::PrefixStore::new(back_door, prefix);
        let dir = tempfile::tempdir().unwrap();
        Self {
            owner: store.clone(),
            store,
            back_door: Box::new(back_door),
            dir,
            _server: Some(server),
        }
    }

    /// The same as [`Backend::s3`], its store without credentials: whatever it asks for is signed.
    pub fn granted(prefix: &str) -> Self {
        let backend = Self::s3(prefix);
        let signer = Arc::new(Clerk::of(&backend.owner));
        Self {
            store: Store::granted(&link(), signer),
            ..backend
        }
    }

    /// What nobody else may do: replaces an object.
    pub async fn overwrite(&self, key: &str, bytes: impl Into<bytes::Bytes>) {
        self.back_door
            .put(&key.into(), bytes.into().into())
            .await
            .unwrap();
    }

    pub async fn keys(&self) -> Vec<String> {
        use futures::TryStreamExt;
        let listed: Vec<_> = self.back_door.list(None).try_collect().await.unwrap();
        let mut keys: Vec<_> = listed
            .into_iter()
            .map(|meta| meta.location.to_string())
            .collect();
        keys.sort();
        keys
    }

    /// A file of the test's own with this content.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Connections that take URLs without TLS, as these servers need.
pub fn link() -> Link {
    let config = Config {
        allow_http: true,
        ..Config::default()
    };
    Link::open(&config).unwrap()
}

pub fn config_of(server: &S3Server, prefix: &str) -> Config {
    Config {
        url: format!("s3://{}/{prefix}", server.bucket),
        endpoint: Some(server.endpoint.clone()),
        access_key: Some(server.access_key.clone()),
        secret_key: Some(server.secret_key.clone().into()),
        allow_http: true,
        ..Config::default()
    }
}

fn shared_server() -> Arc<S3Server> {
    static SHARED: Mutex<Weak<S3Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(S3Server::start());
        *shared = Arc::downgrade(&server);
        server
    })
}

/// Bytes that follow from `seed` and do not repeat.
pub fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A transfer on a link slow enough to be interrupted.
pub fn slow(cancel: &CancellationToken) -> Transfer {
    Transfer::new(cancel.clone()).with_bandwidth(std::num::NonZeroU64::new(48_000_000))
}

/// Returns as soon as `seen` says so.
pub async fn until(seen: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(1));
    while !seen() {
        looks.tick().await;
    }
}

pub fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |meta| meta.len())
}

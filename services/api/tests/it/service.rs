//! A running API and everything that plays the other parts.

use std::sync::Arc;
use std::time::Duration;

use api::Config;
use artifacts::Transfer;
use bus::{Bus, Connect, Store};
use chassis::health::Readiness;
use contract::permission::Role;
use contract::topology::Bucket;
use domain::artifact::ArtifactRef;
use domain::fleet::{Beat, DatasetSummary, Progress, Registration, Stage};
use domain::id::WorkerName;
use domain::job::Job;
use domain::time::UnixMillis;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use testkit::nats::{NatsServer, roles};
use testkit::wait;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Far beyond what anything here takes.
pub const SOON: Duration = Duration::from_secs(20);

/// The API, its server and its storage; all stopped when it is dropped.
pub struct Service {
    pub nats: NatsServer,
    pub objects: artifacts::Store,
    pub readiness: Readiness,
    base: String,
    client: reqwest::Client,
    config: Config,
    folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl Service {
    /// Starts with workers `a` and `b` as possible users, and waits until it is ready.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let service = Self::begin(change).await;
        service.wait_until_ready().await;
        service
    }

    /// Starts with an S3 storage that nobody serves, and waits until the bus is ready.
    pub async fn start_without_storage() -> Self {
        let service = Self::begin(|config| {
            config.storage = artifacts::Config {
                url: "s3://nowhere".to_owned(),
                endpoint: Some("http://127.0.0.1:1".to_owned()),
                access_key: Some("id".to_owned()),
                secret_key: Some("secret".to_owned().into()),
                allow_http: true,
                ..artifacts::Config::default()
            };
        });
        let service = service.await;
        wait::until("the bus is ready", SOON, async || {
            !service.readiness.reasons().contains_key("nats")
        })
        .await;
        service
    }

    async fn begin(change: impl FnOnce(&mut Config)) -> Self {
        let nats = NatsServer::start(&roles(&["a", "b"]));
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        let login = nats.login(&Role::Api);
        config.listen.set_port(0);
        config.address_file = Some(folder.path().join("address"));
        config.nats.url = nats.url();
        config.nats.user = Some(login.user);
        config.nats.password = Some(login.password.into());
        config.storage.url = format!("file://{}", folder.path().join("objects").display());
        std::fs::create_dir(folder.path().join("objects")).expect("a folder");
        change(&mut config);
        let objects = artifacts::Store::open(&config.storage).expect("opens");
        let (base, readiness, stop) = serve(&config).await;
        // What a process does once, before its first client.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            nats,
            objects,
            readiness,
            base,
            client: reqwest::Client::new(),
            config,
            folder,
            _stop: stop,
        }
    }

    /// A second process of the same service.
    pub async fn second(&self) -> Second {
        let mut config = self.config.clone();
        config.address_file = Some(self.folder.path().join("address2"));
        let (base, readiness, stop) = serve(&config).await;
        wait::until("the second is ready", SOON, async || readiness.is_ready()).await;
        Second {
            base,
            client: self.client.clone(),
            _stop: stop,
        }
    }

    pub async fn wait_until_ready(&self) {
        wait::until("the api is ready", SOON, async || self.readiness.is_ready()).await;
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        json_of(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str) -> (u16, Value) {
        json_of(self.request(Method::POST, path)).await
    }

    /// Submits a job that names no model in storage; returns its id.
    pub async fn submit(&self) -> String {
        let (status, job) = json_of(self.request(Method::POST, "/v1/jobs").json(&spec())).await;
        assert_eq!(status, 201, "{job}");
        job["id"].as_str().expect("an id").to_owned()
    }

    /// A connection in another role.
    pub async fn bus(&self, role: &Role) -> Bus {
        let login = self.nats.login(role);
        let connect = Connect {
            url: self.nats.url(),
            user: Some(login.user),
            password: Some(login.password.into()),
            ..Connect::default()
        };
        Bus::connect(&connect, role).await.expect("connects")
    }

    pub async fn jobs(&self) -> Store<Job> {
        let bus = self.bus(&Role::Aggregator).await;
        bus.store(Bucket::Jobs).await.expect("a bucket")
    }

    /// Changes the stored job as its owner would.
    pub async fn change(&self, id: &str, change: impl Fn(&mut Job)) -> Job {
        let jobs = self.jobs().await;
        let (mut job, revision) = jobs.get(id).await.expect("answers").expect("a job");
        change(&mut job);
        jobs.update(id, &job, revision).await.expect("stored");
        job
    }

    /// Puts bytes where a job's results lie.
    pub async fn put(&self, id: &str, bytes: impl Into<Vec<u8>>) -> ArtifactRef {
        let prefix = format!("jobs/{id}/results");
        let bytes: Vec<u8> = bytes.into();
        self.objects
            .put_bytes(&prefix, bytes, &Transfer::default())
            .await
            .expect("stored")
    }
}

/// A second API on the same server.
pub struct Second {
    base: String,
    client: reqwest::Client,
    _stop: DropGuard,
}

impl Second {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }
}

async fn serve(config: &Config) -> (String, Readiness, DropGuard) {
    let (readiness, token) = (
        Readiness::new(&["nats", "storage"]),
        CancellationToken::new(),
    );
    let (config, shared) = (Arc::new(config.clone()), (readiness.clone(), token.clone()));
    let path = config.address_file.clone().expect("an address file");
    tokio::spawn(async move {
        let (readiness, token) = shared;
        api::serve(&config, &readiness, &token)
            .await
            .expect("serves");
    });
    let address = wait::some("the api listens", SOON, async || {
        std::fs::read_to_string(&path).ok()
    });
    (
        format!("http://{}", address.await),
        readiness,
        token.drop_guard(),
    )
}

pub async fn json_of(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("answers");
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    let value = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"))
    };
    (status, value)
}

pub fn spec() -> Value {
    json!({
        "name": "j", "model": {"source": "file:///m"}, "data": {"dataset": "mail", "sites": ["a"]},
        "rounds": {"count": 2},
    })
}

pub fn worker(name: &str) -> WorkerName {
    name.parse().expect("legal")
}

pub fn registration(name: &str, beat_ms: u64) -> Registration {
    let summary = DatasetSummary {
        records: 10,
        held_out: 4,
        skipped: 0,
    };
    Registration {
        worker: worker(name),
        version: "0.1.0".to_owned(),
        host: "host".to_owned(),
        started_at: UnixMillis(0),
        memory_limit_bytes: 1 << 30,
        threads: 1,
        datasets: [("mail".parse().expect("legal"), summary)].into(),
        policy: "every job".to_owned(),
        beat_ms,
    }
}

pub fn beat(name: &str, job: &Job, loss: f64) -> Beat {
    let progress = Progress {
        job: job.id.clone(),
        epoch: job.epoch,
        round: 1,
        done: 3,
        total: 8,
        loss: Some(loss),
        tokens_per_second: Some(10.0),
    };
    Beat {
        worker: worker(name),
        at: UnixMillis(0),
        stage: Stage::Training,
        counter: 3,
        progress: Some(progress),
        memory_bytes: 1,
        retries: 0,
    }
}

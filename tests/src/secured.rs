//! A fleet as an operator sets it up by hand: keys and permissions from `fedpipe admin`, TLS to NATS and
//! to S3 under an authority of its own, each service a process with its own configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use artifacts::{Config, Store, Transfer};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use testkit::s3::S3Server;
use testkit::tls::Authority;
use testkit::{data, wait};
use tokio::process::{Child, Command};

use crate::command::fedpipe;
use crate::fleet::binary;
use crate::{Api, procs};

/// How long the fleet may take until all of it is there.
const READY: Duration = Duration::from_secs(60);

/// The services beside the workers.
pub const CONTROL: [&str; 4] = ["api", "profiler", "planner", "aggregator"];

/// A running fleet; its processes end with it.
#[derive(Debug)]
pub struct Secured {
    folder: TempDir,
    authority: Authority,
    storage: S3Server,
    /// Where NATS listens.
    pub nats_url: String,
    processes: BTreeMap<String, Child>,
    api: Api,
}

impl Secured {
    /// Starts the servers, the services, and a worker for each site, and waits until all are there.
    pub async fn start(sites: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the fleet");
        let authority = Authority::new();
        let hosts = ["127.0.0.1", "localhost"];
        let storage = S3Server::start_tls(authority.certify(&hosts));
        std::fs::create_dir(folder.path().join("run")).expect("a folder");
        testkit::model::tiny(&folder.path().join("model"), 1).expect("a model");
        let api = Api::of(folder.path());
        let mut fleet = Self {
            folder,
            authority,
            storage,
            nats_url: String::new(),
            processes: BTreeMap::new(),
            api,
        };
        for service in CONTROL {
            fleet.add("add-service", service).await;
        }
        for site in sites {
            fleet.add("add-worker", site).await;
        }
        fleet.configure_nats().await;
        fleet.start_nats().await;
        for service in CONTROL {
            fleet.start_service(service);
        }
        for site in sites {
            fleet.start_worker(site);
        }
        fleet.wait_until_alive(sites).await;
        fleet
    }

    /// The client.
    #[must_use]
    pub const fn api(&self) -> &Api {
        &self.api
    }

    /// A path in the fleet's folder.
    #[must_use]
    pub fn path(&self, inner: &str) -> String {
        self.folder.path().join(inner).display().to_string()
    }

    /// Stores the tiny model; returns its digest.
    pub async fn push_model(&self) -> String {
        let config: Config = toml::from_str(&self.own_storage()).expect("settings");
        let store = Store::open(&config).expect("the storage");
        let model = self.folder.path().join("model");
        let pushed = store.push_model(&model, &Transfer::default()).await;
        pushed.expect("the model is stored").digest.to_string()
    }

    /// The configuration of a process, such as `api` or `worker-a`.
    #[must_use]
    pub fn configuration(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.toml"))).expect("a configuration")
    }

    /// Takes a user out of the server's users, and has the server read them again.
    pub async fn revoke(&self, user: &str) {
        let users = self.path("users.toml");
        let text = std::fs::read_to_string(&users).expect("the users file");
        let kept: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with(&format!("{user} =")))
            .collect();
        assert_eq!(kept.len() + 1, text.lines().count(), "{user} is not in it");
        std::fs::write(&users, kept.join("\n")).expect("the users file is written");
        self.configure_nats().await;
        let nats = self.processes["nats"].id().expect("nats runs");
        procs::signal(nats, Signal::HUP);
    }

    /// What a process has logged so far.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    async fn add(&self, command: &str, name: &str) {
        let (keys, users) = (self.path("keys"), self.path("users.toml"));
        let arguments = ["admin", command, name, "--output", &keys, "--users", &users];
        let _ = fedpipe(&arguments).await.good();
    }

    async fn configure_nats(&self) {
        let certificate = self.authority.folder().join("127.0.0.1.pem");
        let (certificate, key) = (
            certificate.display().to_string(),
            certificate.with_extension("key").display().to_string(),
        );
        let (users, store) = (self.path("users.toml"), self.path("nats-store"));
        let arguments = [
            "admin",
            "nats-config",
            "--users",
            &users,
            "--store-dir",
            &store,
            "--store-bytes",
            "268435456",
            "--certificate-file",
            &certificate,
            "--key-file",
            &key,
        ];
        let text = fedpipe(&arguments).await.good();
        std::fs::write(self.path("nats.conf"), text).expect("nats.conf is written");
    }

    async fn start_nats(&mut self) {
        let ports = self.folder.path().join("run/nats");
        std::fs::create_dir(&ports).expect("a folder");
        let mut command = Command::new(testkit::tool::path("nats-server"));
        command
            .args(["-c", &self.path("nats.conf"), "-a", "127.0.0.1", "-p", "-1"])
            .arg("--ports_file_dir")
            .arg(&ports);
        self.spawn("nats", command);
        let found = wait::some("nats listens", READY, async || port(&ports));
        self.nats_url = format!("tls://127.0.0.1:{}", found.await);
    }

    fn start_service(&mut self, service: &str) {
        let mut text = String::new();
        match service {
            "api" => {
                let address = self.path("run/api.address");
                text.push_str(&format!(
                    "listen = \"127.0.0.1:0\"\naddress_file = {address:?}\n"
                ));
            }
            "aggregator" => text.push_str(&format!("work_dir = {:?}\n", self.path("work"))),
            "profiler" => text.push_str("reuse_profiles_seconds = 0\n"),
            _ => {}
        }
        text.push_str(&self.common(service));
        if ["api", "aggregator"].contains(&service) {
            text.push_str(&format!("[storage]\n{}", self.own_storage()));
        }
        self.start_process(service, service, &text);
    }

    fn start_worker(&mut self, site: &str) {
        let mails = data::mails(self.folder.path(), site, 24, 1).expect("data");
        let user = format!("worker-{site}");
        let text = format!(
            "name = {site:?}\nstate_dir = {:?}\nthreads = 1\n{}[storage]\nca_file = {:?}\n\
             [datasets.mail]\ntrain = {:?}\nheld_out = {:?}\n",
            self.path(&user),
            self.common(&user),
            self.authority.file(),
            mails.train,
            mails.held_out
        );
        self.start_process("worker", &user, &text);
    }

    fn common(&self, user: &str) -> String {
        format!(
            "[nats]\nurl = {:?}\nseed_file = {:?}\nca_file = {:?}\n[liveness]\nidle_ms = 2000\n",
            self.nats_url,
            self.path(&format!("keys/{user}.nk")),
            self.authority.file()
        )
    }

    fn own_storage(&self) -> String {
        let server = &self.storage;
        format!(
            "url = \"s3://{}\"\nendpoint = {:?}\naccess_key = {:?}\nsecret_key = {:?}\nca_file = {:?}\n",
            server.bucket,
            server.endpoint,
            server.access_key,
            server.secret_key,
            self.authority.file()
        )
    }

    fn start_process(&mut self, command: &str, name: &str, configuration: &str) {
        let file = self.path(&format!("{name}.toml"));
        std::fs::write(&file, configuration).expect("a configuration is written");
        let mut process = Command::new(binary());
        process.args([command, "--config", &file]).env(
            chassis::signals::PARENT_VARIABLE,
            std::process::id().to_string(),
        );
        self.spawn(name, process);
    }

    fn spawn(&mut self, name: &str, mut command: Command) {
        let log = std::fs::File::create(self.path(&format!("{name}.log"))).expect("a log");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .kill_on_drop(true);
        let child = command.spawn().expect("a process is started");
        self.processes.insert(name.to_owned(), child);
    }

    /// Waits until the API has heard all these sites.
    async fn wait_until_alive(&self, sites: &[&str]) {
        let there = async || {
            let answer = self
                .api
                .ask(reqwest::Method::GET, "/v1/workers", None)
                .await;
            let workers = answer.map(|answer| answer.body["items"].clone());
            let alive = |worker: &&Value| worker["last_beat_at"].is_string();
            let items = workers.as_ref().and_then(Value::as_array);
            items.is_some_and(|items| items.iter().filter(alive).count() == sites.len())
        };
        if tokio::time::timeout(READY, wait::until("sites beat", READY * 2, there))
            .await
            .is_err()
        {
            let names = self.processes.keys();
            let logs: Vec<String> = names
                .map(|name| format!("--- {name}\n{}", self.log(name)))
                .collect();
            panic!("not ready within {READY:?}\n{}", logs.join("\n"));
        }
    }
}

/// The port that the server says it took.
fn port(folder: &Path) -> Option<u16> {
    let file: PathBuf = std::fs::read_dir(folder).ok()?.next()?.ok()?.path();
    let said: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    let url = said["nats"][0].as_str()?;
    url.rsplit(':').next()?.parse().ok()
}

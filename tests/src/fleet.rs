//! A fleet under `fedpipe up`: started, watched, killed in parts, ended whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use testkit::proxy::Proxy;
use testkit::{data, wait};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::disk::{self, Disk, Small};
use crate::points::Points;
use crate::{Api, procs};

/// How long a fleet may take until all of it is ready.
const READY: Duration = Duration::from_secs(60);

/// How long a process may take to come back.
const BACK: Duration = Duration::from_secs(20);

/// Records of a site unless it says otherwise.
const TRAIN: usize = 24;

/// One site of a fleet.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its worker's name.
    pub name: String,
    /// More lines of its `[[workers]]` table, before its data set.
    pub lines: String,
    /// Its training records, if not made up.
    pub train: Option<PathBuf>,
    /// Its held-out records, if not made up.
    pub held_out: Option<PathBuf>,
}

impl Site {
    /// A site of the usual kind.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            lines: String::new(),
            train: None,
            held_out: None,
        }
    }

    /// With a line of its table, such as `throttle_tokens_per_second = 100`.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push_str(line);
        self.lines.push('\n');
        self
    }
}

/// What a fleet is started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The sites.
    pub sites: Vec<Site>,
    /// The idle knob.
    pub idle: Duration,
    /// More arguments of `fedpipe up`.
    pub arguments: Vec<String>,
    /// Folders that are small disks of their own.
    pub disks: Vec<Small>,
    /// Whether what a site measured for one job may stand in for measuring it for another. Otherwise
    /// every job measures, so that every case comes by all places.
    pub reuse_profiles: bool,
    /// More variables of `fedpipe up`, which all its children inherit.
    pub environment: Vec<(&'static str, String)>,
}

impl Setup {
    /// Sites `a`, `b`, … of the usual kind.
    #[must_use]
    pub fn sites(count: u8) -> Self {
        let names = (b'a'..).take(usize::from(count)).map(char::from);
        Self {
            sites: names.map(|name| Site::new(&name.to_string())).collect(),
            idle: Duration::from_secs(2),
            arguments: Vec::new(),
            disks: Vec::new(),
            reuse_profiles: false,
            environment: Vec::new(),
        }
    }
}

/// A running fleet. Everything of it is killed when the value is dropped.
#[derive(Debug)]
pub struct Fleet {
    folder: TempDir,
    up: Child,
    pid: u32,
    api: Api,
    points: Points,
    notices: Arc<Mutex<Vec<Value>>>,
}

/// The program under test.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FEDPIPE_BIN") {
        return path.into();
    }
    // Beside this test's own binary.
    let own = std::env::current_exe().expect("this test has a path");
    let target = own.ancestors().nth(2).expect("a target folder");
    let path = target.join("fedpipe");
    assert!(
        path.is_file(),
        "{} is missing: cargo build --package fedpipe, or set FEDPIPE_BIN",
        path.display()
    );
    path
}

impl Fleet {
    /// Starts a fleet with a tiny model and tiny data, and waits until all of it is ready.
    pub async fn start(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the fleet");
        testkit::model::tiny(&folder.path().join("model"), 1).expect("a model");
        let fleet = fleet_file(folder.path(), setup);
        std::fs::write(folder.path().join("fleet.toml"), fleet).expect("a fleet file");
        let points = Points::at(&folder.path().join("points"));
        let notices: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (up, pid) = spawn(folder.path(), setup, &notices);
        let api = Api::of(&folder.path().join("state"));
        let fleet = Self {
            folder,
            up,
            pid,
            api,
            points,
            notices,
        };
        let said = fleet.notice("ready", READY).await;
        let troubled: Vec<&Value> = said["children"]
            .as_array()
            .expect("children")
            .iter()
            .filter(|child| child["ready"] != true)
            .collect();
        assert!(
            troubled.is_empty(),
            "not ready: {troubled:?}\n{}",
            fleet.logs()
        );
        fleet
    }

    /// The client.
    #[must_use]
    pub const fn api(&self) -> &Api {
        &self.api
    }

    /// Its fail-points.
    #[must_use]
    pub const fn points(&self) -> &Points {
        &self.points
    }

    /// The tiny model's folder.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    /// The fleet's object storage, unless it lies on a disk of its own.
    #[must_use]
    pub fn objects(&self) -> artifacts::Store {
        let text = std::fs::read_to_string(self.state().join("storage.toml"));
        let config: artifacts::Config =
            toml::from_str(&text.expect("the storage's file")).expect("its settings");
        artifacts::Store::open(&config).expect("the fleet's storage")
    }

    /// Stores the tiny model as `fedpipe model push` does; returns its digest.
    pub async fn push_model(&self) -> String {
        let store = self.objects();
        let pushed = store
            .push_model(&self.model(), &artifacts::Transfer::default())
            .await;
        pushed.expect("the model is stored").digest.to_string()
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// One of its small disks, by the folder inside the state folder.
    #[must_use]
    pub fn disk(&self, folder: &str) -> Disk {
        Disk::of(self.pid, &self.state().join(folder))
    }

    /// Puts a network that can be broken between a process and NATS, and starts the process anew.
    pub async fn through(&self, name: &str, network: &Proxy) {
        let url = format!("nats://{}", network.address());
        self.instead(name, &self.nats_url(), &url).await;
        let what = format!("{name} speaks through the network");
        wait::until(&what, BACK, async || network.passed_bytes() > 0).await;
    }

    /// Gives a worker storage of its own, with what `storage` says, instead of signed URLs, and starts
    /// the worker anew.
    pub async fn own_storage(&self, worker: &str, storage: &str) {
        let change = |text: &str| {
            let mut site: toml::Table = text.parse().expect("the worker's configuration");
            let own: toml::Table = storage.parse().expect("a storage table");
            site.insert("storage".to_owned(), own.into());
            site.to_string()
        };
        self.changed(worker, change).await;
    }

    /// Holds a worker to so many tokens a second from now on: it is started anew.
    pub async fn throttle(&self, worker: &str, tokens_per_second: f64) {
        let change = |text: &str| {
            let mut site: toml::Table = text.parse().expect("the worker's configuration");
            let key = "throttle_tokens_per_second".to_owned();
            site.insert(key, tokens_per_second.into());
            site.to_string()
        };
        self.changed(worker, change).await;
    }

    /// Has the API ask for one of these tokens from now on: it is started anew with these `[[tokens]]`.
    /// The fleet's own client shows none.
    pub async fn ask_for_tokens(&self, tables: &str) {
        self.changed("api", |text| format!("{text}\n{tables}"))
            .await;
    }

    /// Starts a worker anew with another address in its configuration.
    async fn instead(&self, worker: &str, address: &str, other: &str) {
        self.changed(worker, |text| text.replace(address, other))
            .await;
    }

    /// Starts a worker anew with a changed configuration.
    async fn changed(&self, worker: &str, change: impl Fn(&str) -> String) {
        let file = self.state().join(format!("config/{worker}.toml"));
        let text = std::fs::read_to_string(&file).expect("the worker's configuration");
        let other = change(&text);
        assert_ne!(text, other, "nothing of the configuration was changed");
        std::fs::write(&file, other).expect("the configuration is written");
        let old = self.kill(worker);
        self.back(worker, old).await;
    }

    /// A folder for what a case needs beside.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The processes that run now, by name: `api`, `profiler`, `worker-a`, `nats`, …
    #[must_use]
    pub fn processes(&self) -> BTreeMap<String, u32> {
        procs::children(self.pid)
    }

    /// The process of this name.
    ///
    /// # Panics
    /// If there is none now.
    #[must_use]
    pub fn pid(&self, name: &str) -> u32 {
        let all = self.processes();
        let found = all.get(name).copied();
        found.unwrap_or_else(|| panic!("no process {name} among {all:?}"))
    }

    /// SIGKILL; `up` starts it again.
    pub fn kill(&self, name: &str) -> u32 {
        let pid = self.pid(name);
        procs::signal(pid, Signal::KILL);
        pid
    }

    /// SIGTERM, as whoever runs a service tells it to end; `up` starts it again.
    pub fn terminate(&self, name: &str) -> u32 {
        let pid = self.pid(name);
        procs::signal(pid, Signal::TERM);
        pid
    }

    /// SIGSTOP: it is there and does nothing.
    pub fn halt(&self, name: &str) {
        procs::signal(self.pid(name), Signal::STOP);
    }

    /// SIGCONT.
    pub fn go_on(&self, name: &str) {
        procs::signal(self.pid(name), Signal::CONT);
    }

    /// SIGCONT to everybody, whoever was halted.
    pub fn all_go_on(&self) {
        for pid in self.processes().values() {
            procs::signal(*pid, Signal::CONT);
        }
    }

    /// Waits until the process has another pid than this one.
    pub async fn back(&self, name: &str, old: u32) {
        let what = format!("{name} is started again");
        wait::until(&what, BACK, async || {
            self.processes().get(name).is_some_and(|pid| *pid != old)
        })
        .await;
    }

    /// Waits until `up` has printed an event of this kind; returns the first.
    pub async fn notice(&self, event: &str, within: Duration) -> Value {
        let find = async || {
            let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
            notices
                .iter()
                .find(|notice| notice["event"] == event)
                .cloned()
        };
        let what = format!("up says {event}");
        match tokio::time::timeout(within, wait::some(&what, within + BACK, find)).await {
            Ok(notice) => notice,
            Err(_) => panic!("{what}: not within {within:?}\n{}", self.logs()),
        }
    }

    /// How often a process has died so far.
    #[must_use]
    pub fn deaths(&self, name: &str) -> usize {
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        let died = |notice: &&Value| notice["event"] == "died" && notice["name"] == name;
        notices.iter().filter(died).count()
    }

    /// How a process ended each time, such as `exit code 0`.
    #[must_use]
    pub fn statuses(&self, name: &str) -> Vec<String> {
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        let died = |notice: &&Value| notice["event"] == "died" && notice["name"] == name;
        let status = |notice: &Value| notice["status"].as_str().map(str::to_owned);
        notices.iter().filter(died).filter_map(status).collect()
    }

    /// The password of a role's NATS user, such as `worker-a`.
    #[must_use]
    pub fn password(&self, user: &str) -> String {
        let text = std::fs::read_to_string(self.state().join("passwords.json"));
        let all: Value = serde_json::from_str(&text.expect("passwords")).expect("JSON");
        all[user].as_str().expect("a known user").to_owned()
    }

    /// Where NATS listens.
    #[must_use]
    pub fn nats_url(&self) -> String {
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = notices.iter().find(|notice| notice["event"] == "ready");
        let url = ready.and_then(|ready| ready["nats"].as_str());
        url.expect("up has said where").to_owned()
    }

    /// What a process has logged so far.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let file = self.state().join(format!("logs/{name}.log"));
        std::fs::read_to_string(file).expect("a log")
    }

    /// The end of every log, for a failure's message.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let folder = self.state().join("logs");
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(12);
            let name = entry.file_name();
            // Writing to a string does not fail.
            let _ = writeln!(text, "--- {}", name.display());
            for line in &lines[from..] {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The case has failed; what the processes said last is worth more than quiet.
            eprintln!("{}", self.logs());
        }
        if std::env::var_os("FEDPIPE_TEST_KEEP").is_some() {
            self.folder.disable_cleanup(true);
            eprintln!("kept: {}", self.folder.path().display());
        }
        let children = self.processes();
        // First whoever would start them again.
        procs::signal(self.pid, Signal::KILL);
        for pid in children.values() {
            procs::signal(*pid, Signal::KILL);
        }
        // It is dead or will be; nothing is left to do with it.
        let _ = self.up.start_kill();
    }
}

fn spawn(folder: &Path, setup: &Setup, notices: &Arc<Mutex<Vec<Value>>>) -> (Child, u32) {
    let log = std::fs::File::create(folder.join("up.log")).expect("a log");
    let mut command = Command::new(binary());
    if !setup.disks.is_empty() {
        let state = folder.join("state");
        let of = |small: &Small| (state.join(small.folder), small.kib);
        let disks: Vec<(PathBuf, u32)> = setup.disks.iter().map(of).collect();
        command = disk::wrapped(&disks, &binary()).into();
    }
    command
        .args(["up", "--json", "--listen", "127.0.0.1:0", "--fleet"])
        .arg(folder.join("fleet.toml"))
        .arg("--state")
        .arg(folder.join("state"))
        .arg("--idle")
        .arg(format!("{}ms", setup.idle.as_millis()))
        .arg("--nats-server")
        .arg(testkit::tool::path("nats-server"))
        .args(&setup.arguments)
        .env(chassis::failpoint::FOLDER_VARIABLE, folder.join("points"))
        .env(
            "FEDPIPE_REUSE_PROFILES_SECONDS",
            if setup.reuse_profiles { "3600" } else { "0" },
        )
        .env(
            chassis::signals::PARENT_VARIABLE,
            std::process::id().to_string(),
        )
        .envs(setup.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true);
    let mut child = command.spawn().expect("fedpipe up is started");
    let pid = child.id().expect("it has just been started");
    let output = child.stdout.take().expect("its output is piped");
    let notices = Arc::clone(notices);
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Ok(notice) = serde_json::from_str(&line) {
                let mut all = notices.lock().unwrap_or_else(PoisonError::into_inner);
                all.push(notice);
            }
        }
    });
    (child, pid)
}

fn fleet_file(folder: &Path, setup: &Setup) -> String {
    let mut text = String::new();
    for site in &setup.sites {
        let mails = data::mails(folder, &site.name, TRAIN, 1).expect("data");
        let train = site.train.as_ref().unwrap_or(&mails.train);
        let held_out = site.held_out.as_ref().unwrap_or(&mails.held_out);
        let (name, lines) = (&site.name, &site.lines);
        let (train, held_out) = (train.display(), held_out.display());
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "[[workers]]\nname = \"{name}\"\nthreads = 1\n{lines}\n[workers.datasets.mail]\ntrain = \"{train}\"\nheld_out = \"{held_out}\"\n\n"
        );
    }
    text
}

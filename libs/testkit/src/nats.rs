//! A real NATS server with JetStream on a free loopback port, its store in a folder of its own.
//!
//! It runs with the configuration that `contract` generates, permissions included: what a test may do
//! is what the role may do in production. It is killed when the value is dropped. Its passwords and keys
//! are its own, so a test that reaches another test's server is denied.

#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "a test without its server cannot go on"
)]

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use contract::permission::Role;
use contract::server::{Listen, Proof, Tls, User, configuration};
use domain::id::WorkerName;
use nkeys::{KeyPair, KeyPairType};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::port::Port;
use crate::tls::Authority;

/// Longest time from start to the first answer; usually a twentieth of a second.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running server.
#[derive(Debug)]
pub struct NatsServer {
    dir: TempDir,
    port: Port,
    child: Option<Child>,
    /// Roles prove themselves with keys, over TLS; otherwise with passwords, in the clear.
    secured: Option<Secured>,
}

#[derive(Debug)]
struct Secured {
    authority: Authority,
    tls: Tls,
}

/// What a role proves itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// Its password.
    pub password: String,
}

/// The four control services and these workers.
///
/// # Panics
/// If a name is not one a worker can have.
#[must_use]
pub fn roles(workers: &[&str]) -> Vec<Role> {
    let control = [Role::Api, Role::Profiler, Role::Planner, Role::Aggregator];
    let worker = |name: &&str| name.parse::<WorkerName>().expect("a worker's name");
    control
        .into_iter()
        .chain(workers.iter().map(worker).map(Role::Worker))
        .collect()
}

impl NatsServer {
    /// Starts a server that knows these roles, and waits until it answers.
    ///
    /// # Panics
    /// If it cannot be started; its log is in the message.
    #[must_use]
    pub fn start(roles: &[Role]) -> Self {
        Self::start_as(roles, None)
    }

    /// As [`NatsServer::start`], but it speaks TLS only, as [`NatsServer::authority`] certifies, and
    /// knows its roles by their keys: [`NatsServer::seed_file`].
    ///
    /// # Panics
    /// As [`NatsServer::start`].
    #[must_use]
    pub fn start_secured(roles: &[Role]) -> Self {
        Self::start_as(roles, Some(Secured::by(&["127.0.0.1", "localhost"], false)))
    }

    /// As [`NatsServer::start_secured`], but its certificate is for this host, and it asks clients for
    /// one of the same authority.
    ///
    /// # Panics
    /// As [`NatsServer::start`].
    #[must_use]
    pub fn start_mutual(roles: &[Role], host: &str) -> Self {
        Self::start_as(roles, Some(Secured::by(&[host], true)))
    }

    fn start_as(roles: &[Role], secured: Option<Secured>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut server = Self {
            dir,
            port: Port::take(),
            child: None,
            secured,
        };
        server.write_configuration(roles);
        server.restart();
        server
    }

    /// `nats://127.0.0.1:<port>`, or `tls://…`.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.secured.is_some() {
            "tls"
        } else {
            "nats"
        };
        format!("{scheme}://{}", self.address())
    }

    /// Where it listens, for a [`crate::proxy::Proxy`] before it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.number))
    }

    /// The user and password of a role on this server.
    #[must_use]
    pub fn login(&self, role: &Role) -> Login {
        let user = role.user();
        let password = format!("{user}-{}-{}", std::process::id(), self.port.number);
        Login { user, password }
    }

    /// Who certified a server that speaks TLS.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.secured.as_ref().map(|secured| &secured.authority)
    }

    /// The file with the seed of a role's key on this server.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn seed_file(&self, role: &Role) -> PathBuf {
        let path = self.dir.path().join(format!("{}.nk", role.user()));
        let seed = self.key(role).seed().expect("a pair has a seed");
        fs::write(&path, seed).expect("a seed is written");
        path
    }

    /// A role's key pair: as much its own as its password, from which it follows.
    fn key(&self, role: &Role) -> KeyPair {
        let password = self.login(role).password;
        let mut bytes = [0; 32];
        for (part, chunk) in bytes.chunks_mut(8).enumerate() {
            let mut hasher = DefaultHasher::new();
            (part, &password).hash(&mut hasher);
            chunk.copy_from_slice(&hasher.finish().to_be_bytes());
        }
        KeyPair::new_from_raw(KeyPairType::User, bytes).expect("32 bytes are a key")
    }

    /// Its configuration file; beside it lie `store` and `nats.log`.
    #[must_use]
    pub fn configuration_file(&self) -> PathBuf {
        self.dir.path().join("nats.conf")
    }

    /// SIGKILL; from now on connections are refused. Doing it twice is fine.
    ///
    /// # Panics
    /// If the process cannot be waited for.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server is ours to kill");
            child.wait().expect("the server is ours to wait for");
        }
    }

    /// Kills it if it runs, starts it on the same port and store, and waits until it answers.
    ///
    /// # Panics
    /// If it cannot be started; its log is in the message.
    pub fn restart(&mut self) {
        self.kill();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("nats.log"));
        let log = log.expect("nats.log can be written");
        let child = Command::new(crate::tool::path("nats-server"))
            .arg("-c")
            .arg(self.configuration_file())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of nats.log"))
            .stderr(log)
            .spawn()
            .expect("nats-server starts");
        self.child = Some(child);
        self.wait_until_ready();
    }

    /// SIGSTOP: connections stand and nothing answers, as when the network is gone.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let child = self.child.as_ref().expect("the server runs");
        // The signal is on its way to threads that still run; it has arrived once the process is stopped.
        while !is_stopped(child.id()) {
            thread::yield_now();
        }
    }

    /// SIGCONT: goes on after [`NatsServer::pause`].
    ///
    /// # Panics
    /// If it does not run.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Lets it know these roles and no others from now on, without a restart: rewrites the configuration
    /// and sends SIGHUP. The effect follows a little later.
    ///
    /// # Panics
    /// If it does not run.
    pub fn reload(&self, roles: &[Role]) {
        self.write_configuration(roles);
        self.signal(Signal::HUP);
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("nats.log")).unwrap_or_default()
    }

    fn write_configuration(&self, roles: &[Role]) {
        let path = |path: &Path| path.display().to_string();
        let listen = Listen {
            address: self.address().to_string(),
            store_dir: path(&self.dir.path().join("store")),
            ports_file_dir: path(self.dir.path()),
            disk_bytes: 256 << 20,
            tls: self.secured.as_ref().map(|secured| secured.tls.clone()),
        };
        let users: Vec<User> = roles
            .iter()
            .map(|role| User {
                role: role.clone(),
                proof: match &self.secured {
                    Some(_) => Proof::Key(self.key(role).public_key()),
                    None => Proof::Password(self.login(role).password),
                },
            })
            .collect();
        fs::write(self.configuration_file(), configuration(&listen, &users))
            .expect("nats.conf is written");
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the server runs");
        kill_process(Pid::from_child(child), signal).expect("the server is ours to signal");
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a server's start has no other sign than its answer"
    )]
    fn wait_until_ready(&mut self) {
        let start = Instant::now();
        while start.elapsed() < READY_WITHIN {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("the server is ours to ask") {
                panic!("nats-server ended with {status}:\n{}", self.log());
            }
            if self.greets() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!(
            "nats-server did not answer within {READY_WITHIN:?}:\n{}",
            self.log()
        );
    }

    /// A server that is ready says `INFO` to everybody who connects.
    fn greets(&self) -> bool {
        let greeting = || -> std::io::Result<[u8; 4]> {
            let mut stream = TcpStream::connect_timeout(&self.address(), Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut head = [0; 4];
            stream.read_exact(&mut head)?;
            Ok(head)
        };
        greeting().is_ok_and(|head| head == *b"INFO")
    }
}

impl Secured {
    fn by(hosts: &[&str], mutual: bool) -> Self {
        let authority = Authority::new();
        let own = authority.certify(hosts);
        let text = |path: &Path| path.display().to_string();
        let tls = Tls {
            certificate_file: text(&own.certificate_file),
            key_file: text(&own.key_file),
            client_ca_file: mutual.then(|| text(&authority.file())),
        };
        Self { authority, tls }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether the system calls the process stopped: its state follows its name in `/proc`.
fn is_stopped(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server is there");
    let state = status.rsplit(')').next().map(str::trim_start);
    state.is_some_and(|state| state.starts_with('T'))
}

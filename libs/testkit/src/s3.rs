//! A real S3 server (SeaweedFS `weed mini`) on free loopback ports, in a folder of its own.
//!
//! It is killed when the value is dropped; [`S3Server::kill`] and [`S3Server::restart`] are SIGKILL
//! and a start on the same ports and data, for tests of faults. Its keys are its own, so a test that
//! reaches another test's server is denied.

#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "a test without its server cannot go on"
)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::tls::Certificate;

/// Longest time from start to the first answer.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Port blocks: five ports each, and the same plus 10000; all below the ports that the system gives
/// to outgoing connections.
const BLOCKS: u16 = 1000;
const FIRST_PORT: u16 = 12_000;

/// A running server.
#[derive(Debug)]
pub struct S3Server {
    /// `http://127.0.0.1:<port>`, or `https://…`.
    pub endpoint: String,
    /// A bucket that is there and empty.
    pub bucket: String,
    /// Who may do everything.
    pub access_key: String,
    /// The proof.
    pub secret_key: String,
    dir: TempDir,
    ports: Ports,
    child: Option<Child>,
    tls: Option<Certificate>,
}

/// A block of ports that no other test takes while the lock is held.
#[derive(Debug)]
struct Ports {
    first: u16,
    _lock: File,
}

impl S3Server {
    /// Starts a server and waits until its bucket is there.
    ///
    /// # Panics
    /// If it cannot be started; its log is in the message.
    #[must_use]
    pub fn start() -> Self {
        Self::start_as(None)
    }

    /// As [`S3Server::start`], over TLS with this certificate.
    ///
    /// # Panics
    /// As [`S3Server::start`].
    #[must_use]
    pub fn start_tls(certificate: Certificate) -> Self {
        Self::start_as(Some(certificate))
    }

    fn start_as(tls: Option<Certificate>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("data")).expect("a folder for data");
        let ports = Ports::take();
        let access_key = format!("access{}", ports.first);
        let secret_key = format!("secret{}-{}", ports.first, std::process::id());
        let identity = serde_json::json!({ "identities": [{
            "name": "fedpipe",
            "credentials": [{ "accessKey": access_key, "secretKey": secret_key }],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }]});
        fs::write(dir.path().join("s3.json"), identity.to_string()).expect("s3.json is written");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://127.0.0.1:{}", ports.first);
        let bucket = "fedpipe".to_owned();
        let mut server = Self {
            endpoint,
            bucket,
            access_key,
            secret_key,
            dir,
            ports,
            child: None,
            tls,
        };
        server.restart();
        server
    }

    /// The folder that holds its data, its `s3.json` and its `weed.log`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
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

    /// Kills it if it runs, starts it on the same ports and data, and waits until it answers.
    ///
    /// # Panics
    /// If it cannot be started; its log is in the message.
    pub fn restart(&mut self) {
        self.kill();
        let child = self.spawn();
        self.child = Some(child);
        self.wait_until_ready();
    }

    fn spawn(&self) -> Child {
        let dir = self.dir.path();
        let log = File::options()
            .create(true)
            .append(true)
            .open(dir.join("weed.log"));
        let log = log.expect("weed.log can be written");
        let [s3, master, volume, filer, admin] = self.ports.all();
        let mut command = Command::new(crate::tool::path("weed"));
        command.arg("mini");
        if let Some(tls) = &self.tls {
            command
                .arg(format!("-s3.cert.file={}", tls.certificate_file.display()))
                .arg(format!("-s3.key.file={}", tls.key_file.display()));
        }
        command
            .arg(format!("-dir={}", dir.join("data").display()))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
            .arg(format!("-s3.config={}", dir.join("s3.json").display()))
            .arg(format!("-bucket={}", self.bucket))
            .args([format!("-s3.port={s3}"), format!("-master.port={master}")])
            .args([
                format!("-volume.port={volume}"),
                format!("-filer.port={filer}"),
            ])
            .arg(format!("-admin.port={admin}"))
            .args([
                "-webdav=false",
                "-admin.ui=false",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
            ])
            .args([
                "-s3.iam=false",
                "-s3.autoCreateBucket=false",
                "-master.telemetry=false",
            ])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of weed.log"))
            .stderr(log)
            .spawn()
            .expect("weed starts")
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a server's start has no other sign than its answer"
    )]
    fn wait_until_ready(&mut self) {
        let [s3, _, _, filer, _] = self.ports.all();
        let bucket = format!("/buckets/{}/", self.bucket);
        let start = Instant::now();
        while start.elapsed() < READY_WITHIN {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("the server is ours to ask") {
                panic!("weed ended with {status}:\n{}", self.log());
            }
            // Who speaks TLS answers a plain question with 400.
            let plain = if self.tls.is_some() { "400" } else { "200" };
            if answers(s3, "/healthz", plain) && answers(filer, &bucket, "200") {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!(
            "weed did not answer within {READY_WITHIN:?}:\n{}",
            self.log()
        );
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("weed.log")).unwrap_or_default()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Ports {
    /// Every block has a lock file, which says that it is taken also before its ports are bound.
    fn take() -> Self {
        let locks = std::env::temp_dir().join("fedpipe-test-ports");
        fs::create_dir_all(&locks).expect("a folder for port locks");
        // Different processes begin at different blocks; which one they get does not matter.
        let offset = (std::process::id() % u32::from(BLOCKS)) as u16;
        for block in (0..BLOCKS).map(|i| (i + offset) % BLOCKS) {
            let first = FIRST_PORT + 5 * block;
            let mut options = File::options();
            let opened = options
                .create(true)
                .truncate(false)
                .write(true)
                .open(locks.join(first.to_string()));
            let Ok(lock) = opened else { continue };
            if lock.try_lock().is_err() {
                continue;
            }
            let ports = Self { first, _lock: lock };
            if ports
                .all()
                .into_iter()
                .all(|port| is_free(port) && is_free(port + 10_000))
            {
                return ports;
            }
        }
        panic!("no free ports from {FIRST_PORT} on");
    }

    fn all(&self) -> [u16; 5] {
        [0, 1, 2, 3, 4].map(|i| self.first + i)
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Whether `GET path` on this loopback port is answered with this status.
fn answers(port: u16, path: &str, status: &str) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(status.as_bytes()))
    };
    ask().unwrap_or(false)
}

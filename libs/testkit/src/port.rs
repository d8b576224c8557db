//! Free ports for servers that must come back on the same one.
//!
//! A port lies below those that the system gives to outgoing connections: while a server is down, the
//! clients that try to reach it could otherwise be given its port themselves. A lock file says that a
//! port is taken also while nobody listens on it.

#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "a test without its server cannot go on"
)]

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};

/// The ports to choose from; those below belong to [`crate::s3`].
const FIRST: u16 = 17_000;
const COUNT: u16 = 5_000;

/// A port that no other test takes while this value lives.
#[derive(Debug)]
pub struct Port {
    /// The number.
    pub number: u16,
    _lock: File,
}

impl Port {
    /// Takes a free port of the loopback interface.
    ///
    /// # Panics
    /// If none is left.
    #[must_use]
    pub fn take() -> Self {
        let locks = std::env::temp_dir().join("fedpipe-test-ports");
        fs::create_dir_all(&locks).expect("a folder for port locks");
        // Different processes begin at different ports; which one they get does not matter.
        let offset = (std::process::id() % u32::from(COUNT)) as u16;
        for number in (0..COUNT).map(|i| FIRST + (i + offset) % COUNT) {
            let mut options = File::options();
            let opened = options
                .create(true)
                .truncate(false)
                .write(true)
                .open(locks.join(number.to_string()));
            let Ok(lock) = opened else { continue };
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self {
                    number,
                    _lock: lock,
                };
            }
        }
        panic!("no free port from {FIRST} on");
    }
}

//! The parts of configuration that every service has.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// Where health and metrics are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// A file that receives the bound address as text, for whoever started this process.
    pub address_file: Option<PathBuf>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            address_file: None,
        }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Filter in the form of `RUST_LOG`: `info`, `info,worker=debug`.
    pub log: String,
    /// Form of one event on standard error.
    pub format: Format,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            format: Format::Text,
        }
    }
}

/// Form of one log event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object on a line.
    Json,
}

/// The one idle knob, from which every time of liveness follows.
///
/// Progress is steps, blocks, bytes or records, never the mere passing of time. Every process of a
/// fleet needs the same value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Liveness {
    /// How long something may go without progress before it is looked at again, in milliseconds; at
    /// least 100.
    #[serde(deserialize_with = "idle_ms")]
    pub idle_ms: u64,
}

/// Less than this is shorter than a message's way, and nobody would ever count as alive.
const SHORTEST_IDLE_MS: u64 = 100;

fn idle_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let idle_ms = u64::deserialize(deserializer)?;
    if idle_ms < SHORTEST_IDLE_MS {
        let reason = format!("{idle_ms} ms is less than {SHORTEST_IDLE_MS} ms");
        return Err(D::Error::custom(reason));
    }
    Ok(idle_ms)
}

impl Default for Liveness {
    fn default() -> Self {
        Self { idle_ms: 60_000 }
    }
}

impl Liveness {
    /// How long NATS waits for an ack or for progress before it delivers again: one idle.
    #[must_use]
    pub const fn ack_wait_ms(self) -> u64 {
        self.idle_ms
    }

    /// Interval of a worker's beats: 3 s, or half an idle where that is shorter.
    #[must_use]
    pub const fn beat_ms(self) -> u64 {
        at_least_one(at_most(self.idle_ms / 2, 3000))
    }

    /// A site is given up after three idles without progress.
    #[must_use]
    pub const fn give_up_ms(self) -> u64 {
        self.idle_ms.saturating_mul(3)
    }

    /// How long a job's owner keeps its lease without renewing it: two idles.
    #[must_use]
    pub const fn lease_ms(self) -> u64 {
        self.idle_ms.saturating_mul(2)
    }

    /// How often an owner looks at its jobs although nothing was said: half an idle, within 250 ms
    /// and 5 s.
    #[must_use]
    pub const fn sweep_ms(self) -> u64 {
        let half = at_most(self.idle_ms / 2, 5000);
        if half < 250 { 250 } else { half }
    }
}

const fn at_most(value: u64, bound: u64) -> u64 {
    if value < bound { value } else { bound }
}

/// Intervals of zero would make timers panic.
const fn at_least_one(value: u64) -> u64 {
    if value == 0 { 1 } else { value }
}

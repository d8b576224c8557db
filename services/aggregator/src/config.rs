//! The aggregator's configuration.

use std::path::PathBuf;

use bus::Connect;
use chassis::config::{Health, Liveness, Telemetry};
use domain::id::InstanceId;
use serde::{Deserialize, Serialize};

/// Everything the aggregator can be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the message bus is.
    pub nats: Connect,
    /// Where adapters lie.
    pub storage: artifacts::Config,
    /// Folder for updates being merged; it may be lost at any time, and what jobs left in it is removed at the start.
    pub work_dir: PathBuf,
    /// Bytes of updates kept in `work_dir` at most.
    pub spool_bytes: u64,
    /// Where health and metrics are served.
    pub health: Health,
    /// What is logged, and how.
    pub telemetry: Telemetry,
    /// The one idle knob.
    pub liveness: Liveness,
    /// Name under which leases are held; a restarted process with the same name goes on at once.
    /// Absent: a new name each start.
    pub instance: Option<InstanceId>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nats: Connect::default(),
            storage: artifacts::Config::default(),
            work_dir: PathBuf::from("aggregator"),
            spool_bytes: 8 << 30,
            health: Health::default(),
            telemetry: Telemetry::default(),
            liveness: Liveness::default(),
            instance: None,
        }
    }
}

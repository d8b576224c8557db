//! The profiler's configuration.

use bus::Connect;
use chassis::config::{Health, Liveness, Telemetry};
use domain::id::InstanceId;
use serde::{Deserialize, Serialize};

/// Everything the profiler can be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the message bus is.
    pub nats: Connect,
    /// Where health and metrics are served.
    pub health: Health,
    /// What is logged, and how.
    pub telemetry: Telemetry,
    /// The one idle knob.
    pub liveness: Liveness,
    /// Name under which leases are held; a restarted process with the same name goes on at once.
    /// Absent: a new name each start.
    pub instance: Option<InstanceId>,
    /// How long what a worker measured may stand in for measuring it again, for jobs that ask the same of
    /// the same model; 0: every job measures.
    pub reuse_profiles_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nats: Connect::default(),
            health: Health::default(),
            telemetry: Telemetry::default(),
            liveness: Liveness::default(),
            instance: None,
            reuse_profiles_seconds: 86_400,
        }
    }
}

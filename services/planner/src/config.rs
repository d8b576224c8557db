//! The planner's configuration.

use bus::Connect;
use chassis::config::{Health, Liveness, Telemetry};
use domain::id::InstanceId;
use serde::{Deserialize, Serialize};

/// Everything the planner can be told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
}

//! The job file's `planner:` section: how plans are made.

use serde::{Deserialize, Serialize};

/// How the planner solves a worker's program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// `exact` for small programs, `fast` for all others: by their size, never by time.
    #[default]
    Auto,
    /// Branch and bound; where its limit of nodes ends it, what `fast` found stands.
    Exact,
    /// By marginal gain per parameter, with dynamic programming at the end of the room.
    Fast,
}

/// How plans are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Planner {
    /// What solves the programs.
    pub solver: Solver,
}

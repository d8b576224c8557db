//! The states of a job, who drives each, and what each says to the world.

use serde::{Deserialize, Serialize};

use super::course::Kept;
use crate::artifact::ArtifactRef;
use crate::cause::Cause;
use crate::id::WorkerName;
use crate::round::Closed;
use crate::time::UnixMillis;

/// The control service that drives a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Admits jobs to sites and measures them.
    Profiler,
    /// Plans.
    Planner,
    /// Drives rounds and cleans up.
    Aggregator,
}

/// Where a job goes on once its plan was looked at again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// The committed round; the next one opens.
    pub round: u32,
    /// Its adapter.
    pub global: ArtifactRef,
}

/// How far a job is. Deadlines live here, so that no state is without one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// Waits for its sites.
    Queued,
    /// Its sites measure themselves.
    Profiling {
        /// When slow sites are left out.
        deadline: UnixMillis,
    },
    /// Between two rounds: what was observed refines the profiles, and sites without one measure
    /// themselves, so that the plan can be looked at again.
    Refining {
        /// Where the job goes on.
        resume: Resume,
        /// When slow sites are left out.
        deadline: UnixMillis,
    },
    /// A plan is being made.
    Planning {
        /// Where the job goes on; absent before the first round.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume: Option<Resume>,
    },
    /// A plan exists; the untrained adapter is being written, or the next round opens.
    Starting {
        /// Where the job goes on; absent before the first round.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume: Option<Resume>,
    },
    /// Workers train.
    Training {
        /// Counted from 1.
        round: u32,
        /// What they start from.
        global: ArtifactRef,
        /// When the round opened; a pause shifts it.
        opened_at: UnixMillis,
        /// When the round closes with its quorum.
        deadline: UnixMillis,
        /// Whom it asks, ordered by name; empty: every planned site.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        asked: Vec<WorkerName>,
    },
    /// The round is decided; its updates are being merged.
    Folding {
        /// The round being merged.
        round: u32,
        /// What its workers started from.
        global: ArtifactRef,
        /// When the round opened.
        opened_at: UnixMillis,
        /// The decision.
        closed: Closed,
    },
    /// Workers score the merged adapter.
    Evaluating {
        /// The committed round.
        round: u32,
        /// Its adapter.
        global: ArtifactRef,
        /// When scores that are missing are given up.
        deadline: UnixMillis,
    },
    /// The report and the adapter are being written.
    Finalizing {
        /// The adapter that the job ends with.
        global: ArtifactRef,
        /// Of which round it is, and why.
        #[serde(default)]
        kept: Option<Kept>,
    },
    /// Stopped by a person; deadlines are frozen.
    Paused {
        /// What goes on after a resume.
        resume: Box<Phase>,
        /// Since when.
        since: UnixMillis,
    },
    /// Done.
    Succeeded {
        /// The adapter, `adapter_model.safetensors`.
        adapter: ArtifactRef,
        /// Its `adapter_config.json`.
        config: ArtifactRef,
        /// The report.
        report: ArtifactRef,
    },
    /// Ended without an adapter.
    Failed {
        /// Why.
        cause: Cause,
    },
    /// Ended by a person.
    Cancelled,
}

impl Phase {
    /// Who drives this phase. The aggregator also ends what was paused too long and cleans up what has ended.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self {
            Self::Queued | Self::Profiling { .. } | Self::Refining { .. } => Role::Profiler,
            Self::Planning { .. } => Role::Planner,
            _ => Role::Aggregator,
        }
    }

    /// The phase's name as the API shows it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Profiling { .. } => "profiling",
            Self::Refining { .. } => "refining",
            Self::Planning { .. } => "planning",
            Self::Starting { .. } => "starting",
            Self::Training { .. } => "training",
            Self::Folding { .. } => "folding",
            Self::Evaluating { .. } => "evaluating",
            Self::Finalizing { .. } => "finalizing",
            Self::Paused { .. } => "paused",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the job has ended.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Succeeded { .. } | Self::Failed { .. } | Self::Cancelled
        )
    }

    /// Whether the job's sites are taken: a worker serves one job at a time.
    #[must_use]
    pub const fn holds_sites(&self) -> bool {
        !self.is_terminal() && !matches!(self, Self::Queued | Self::Paused { .. })
    }

    /// The round this phase belongs to, where there is one.
    #[must_use]
    pub fn round(&self) -> Option<u32> {
        match self {
            Self::Training { round, .. }
            | Self::Folding { round, .. }
            | Self::Evaluating { round, .. } => Some(*round),
            Self::Refining { resume, .. } => Some(resume.round),
            Self::Planning { resume } | Self::Starting { resume } => {
                resume.as_ref().map(|resume| resume.round)
            }
            Self::Paused { resume, .. } => resume.round(),
            _ => None,
        }
    }

    /// The round in whose trace this phase is: training, merging and scoring it.
    #[must_use]
    pub const fn traced_round(&self) -> Option<u32> {
        match self {
            Self::Training { round, .. } | Self::Folding { round, .. } => Some(*round),
            Self::Evaluating { round, .. } if *round > 0 => Some(*round),
            _ => None,
        }
    }

    /// This phase with every deadline and start moved later by `ms`: time does not pass in a pause,
    /// and a new owner starts the clock anew.
    #[must_use]
    pub fn shifted(self, ms: u64) -> Self {
        match self {
            Self::Profiling { deadline } => Self::Profiling {
                deadline: deadline.plus(ms),
            },
            Self::Refining { resume, deadline } => Self::Refining {
                resume,
                deadline: deadline.plus(ms),
            },
            Self::Training {
                round,
                global,
                opened_at,
                deadline,
                asked,
            } => Self::Training {
                round,
                global,
                opened_at: opened_at.plus(ms),
                deadline: deadline.plus(ms),
                asked,
            },
            Self::Evaluating {
                round,
                global,
                deadline,
            } => Self::Evaluating {
                round,
                global,
                deadline: deadline.plus(ms),
            },
            other => other,
        }
    }

    /// Whether a job may go from this phase to `next`.
    #[must_use]
    pub fn may_become(&self, next: &Self) -> bool {
        if self.is_terminal() {
            return false;
        }
        match (self, next) {
            (_, Self::Failed { .. } | Self::Cancelled) => true,
            (Self::Paused { resume, .. }, _) => resume.name() == next.name(),
            (_, Self::Paused { resume, .. }) => {
                resume.name() == self.name() || self.may_become(resume)
            }
            (Self::Queued, Self::Profiling { .. })
            | (Self::Profiling { .. }, Self::Planning { resume: None } | Self::Queued)
            | (
                Self::Starting { resume: None },
                Self::Evaluating { round: 0, .. } | Self::Training { round: 1, .. },
            )
            | (Self::Finalizing { .. }, Self::Succeeded { .. }) => true,
            (Self::Refining { resume, .. }, Self::Planning { resume: next }) => {
                Some(resume) == next.as_ref()
            }
            (Self::Planning { resume }, Self::Starting { resume: next }) => resume == next,
            (
                Self::Starting {
                    resume: Some(resume),
                },
                Self::Training { round, .. },
            ) => *round == resume.round + 1,
            (
                Self::Folding { round, .. } | Self::Evaluating { round, .. },
                Self::Refining { resume, .. },
            ) => resume.round == *round,
            (Self::Training { round, .. }, Self::Folding { round: next, .. }) => round == next,
            (Self::Folding { round, .. }, Self::Evaluating { round: next, .. }) => round == next,
            (
                Self::Folding { round, .. } | Self::Evaluating { round, .. },
                Self::Training { round: next, .. },
            ) => *next == *round + 1,
            (Self::Folding { .. } | Self::Evaluating { .. }, Self::Finalizing { .. }) => true,
            _ => false,
        }
    }
}

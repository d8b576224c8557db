//! Why a site, a round or a job did not go on: typed, and naming the site.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::WorkerName;

/// What went wrong at one site. A variant exists only if somebody would act differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// No sign of life: look at the machine or its network.
    Unreachable,
    /// Alive but without progress for longer than the idle knob allows.
    NoProgress,
    /// The site's own policy does not admit the job.
    PolicyRefused,
    /// The site has no such data set, or none of its records can be used.
    DataUnusable,
    /// The model cannot be found, read or verified.
    ModelUnusable,
    /// The plan does not fit into the memory the worker may use.
    OutOfMemory,
    /// The worker process died again and again on this task.
    Crashed,
    /// The loss or the update is not a finite number.
    NotFinite,
    /// The update does not match the plan: digest, rank, shape or size.
    UpdateRefused,
    /// Object storage cannot be reached or refuses the worker.
    StorageUnavailable,
    /// The site's disk is full.
    DiskFull,
    /// The worker cannot honour the plan, or be planned for (release, engine version, kernel, threads).
    PlanUnsupported,
    /// The round's deadline passed before the site's update arrived.
    TooLate,
    /// A defect; the detail says where.
    Internal,
}

impl Trouble {
    /// Whether asking the site again in a later round is pointless.
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::PolicyRefused
                | Self::DataUnusable
                | Self::ModelUnusable
                | Self::OutOfMemory
                | Self::PlanUnsupported
                | Self::Crashed
        )
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "unreachable",
            Self::NoProgress => "makes no progress",
            Self::PolicyRefused => "its policy refuses the job",
            Self::DataUnusable => "has no usable data",
            Self::ModelUnusable => "cannot use the model",
            Self::OutOfMemory => "ran out of memory",
            Self::Crashed => "crashes on this task",
            Self::NotFinite => "produced numbers that are not finite",
            Self::UpdateRefused => "sent an update that was refused",
            Self::StorageUnavailable => "cannot reach object storage",
            Self::DiskFull => "has a full disk",
            Self::PlanUnsupported => "cannot honour its plan",
            Self::TooLate => "missed the round's deadline",
            Self::Internal => "failed",
        })
    }
}

/// Longest detail of a site's trouble, in characters.
pub const DETAIL_LIMIT: usize = 600;

/// One site and what went wrong there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteTrouble {
    /// The site's worker.
    pub worker: WorkerName,
    /// What kind of trouble.
    pub trouble: Trouble,
    /// One sentence for a person; never data, tokens or paths of records.
    pub detail: String,
}

impl SiteTrouble {
    /// What went wrong at a site, of a long detail the beginning: a site has a say in it, in its own words or in the names of
    /// what it sent, and it is stored with the job.
    #[must_use]
    pub fn new(worker: WorkerName, trouble: Trouble, detail: &str) -> Self {
        Self {
            worker,
            trouble,
            detail: detail.chars().take(DETAIL_LIMIT).collect(),
        }
    }
}

impl fmt::Display for SiteTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.worker, self.trouble)?;
        if self.detail.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.detail)
        }
    }
}

/// Which kind of end without an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CauseKind {
    /// Fewer sites are left than the quorum.
    QuorumLost,
    /// The job's deadline passed.
    DeadlinePassed,
    /// No plan satisfies what the job fixes and what the sites have.
    PlanImpossible,
    /// The job's input cannot be used: model, replayed plan, stored adapter.
    InputUnusable,
    /// A paused job was not resumed within 30 days.
    PausedTooLong,
    /// A defect; the message says where.
    Internal,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Which kind of end.
    pub kind: CauseKind,
    /// What happened and what to do, in a sentence.
    pub message: String,
    /// The sites it came from.
    pub sites: Vec<SiteTrouble>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_detail_without_end_the_beginning_is_kept() {
        let of = |detail: &str| {
            let worker = "a".parse().expect("legal");
            SiteTrouble::new(worker, Trouble::Internal, detail).detail
        };
        assert_eq!(of("the disk is full"), "the disk is full");
        assert_eq!(of(&"ä".repeat(1 << 20)), "ä".repeat(DETAIL_LIMIT));
    }
}

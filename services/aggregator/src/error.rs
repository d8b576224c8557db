//! What can go wrong in the aggregator.

use bus::Retry;
use domain::zeroth::GENERATOR;

use crate::strategy;

/// What can go wrong in the aggregator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process cannot start.
    #[error("aggregator cannot start")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The bus.
    #[error("message bus")]
    Bus(#[from] bus::Error),
    /// Object storage.
    #[error("object storage")]
    Storage(#[from] artifacts::Error),
    /// Object storage, when it was asked whether it is there.
    #[error("object storage does not answer: {why}")]
    Away {
        /// What it or the network said.
        why: String,
    },
    /// An update that cannot be fetched, and not for anything that its site did.
    #[error("an update cannot be fetched, and its site is not to blame: {why}")]
    Unfetched {
        /// What storage says.
        why: String,
    },
    /// A tensor file of ours.
    #[error("tensor file")]
    Tensors(#[from] artifacts::tensors::Error),
    /// A file in the spool that the disk does not give.
    #[error("the spool cannot be read")]
    Unread(#[source] strategy::Refused),
    /// The file of a merged adapter whose ranks are known last.
    #[error("cannot write {path}")]
    Unwritten {
        /// Which.
        path: String,
        /// What lies below.
        #[source]
        source: strategy::source::Below,
    },
    /// The merge.
    #[error("merging round {round}")]
    Merge {
        /// Of which round.
        round: u32,
        /// Why.
        #[source]
        source: strategy::Error,
    },
    /// The working folder.
    #[error("working folder {path}")]
    Folder {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Stored state that must be there is not.
    #[error("{what} of the job is missing in the store")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// A job whose zeroth-order steps went along directions that this release does not make.
    #[error(
        "the job's directions are of generator {began}, and this release has generator {GENERATOR}: it goes on \
         under the release that it began with; or cancel it and submit it anew"
    )]
    Generator {
        /// The one that the job began with.
        began: u16,
    },
    /// A round is committed already, with another decision than this process has read.
    #[error("round {round} was committed with other updates")]
    Contradicted {
        /// Which round.
        round: u32,
    },
    /// The system refuses the threads of a replay.
    #[error("cannot replay")]
    Threads {
        /// Why.
        #[source]
        source: engine::threads::Error,
    },
    /// A value of ours has no JSON form.
    #[error("cannot write {what}")]
    Encode {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A computation ended without a result.
    #[error("the merge was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl Error {
    /// Whether trying again helps.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Bus(error) => error.retry(),
            // Only this process's own end cancels a transfer: the next owner does the step again. And the disk is ours.
            Self::Storage(artifacts::Error::Cancelled | artifacts::Error::Io { .. }) => {
                Retry::Later
            }
            Self::Storage(error) => match error.retry() {
                artifacts::Retry::Later => Retry::Later,
                artifacts::Retry::Never => Retry::Never,
            },
            // A full or lost disk comes back, as storage does, and keys that have run out; so does a cancelled computation.
            Self::Away { .. }
            | Self::Unfetched { .. }
            | Self::Folder { .. }
            | Self::Tensors(_)
            | Self::Unread(_)
            | Self::Unwritten { .. }
            | Self::Threads { .. }
            // A job of days is not given up for an upgrade that can be taken back.
            | Self::Generator { .. }
            | Self::Interrupted(_) => Retry::Later,
            Self::Merge { source, .. } if source.is_disk() => Retry::Later,
            Self::Start(_)
            | Self::Merge { .. }
            | Self::Missing { .. }
            | Self::Contradicted { .. }
            | Self::Encode { .. } => Retry::Never,
        }
    }

    pub(crate) fn start(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Start(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_that_the_end_of_the_process_cut_off_ends_no_job() {
        let error = Error::from(artifacts::Error::Cancelled);
        assert_eq!(error.retry(), Retry::Later);
    }

    #[test]
    fn a_spool_that_its_disk_does_not_give_ends_no_job() {
        let error = Error::from(artifacts::Error::Io {
            path: "/spool/x".into(),
            source: std::io::Error::from_raw_os_error(5),
        });
        assert_eq!(error.retry(), Retry::Later);
    }
}

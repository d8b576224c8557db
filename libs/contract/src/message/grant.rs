//! How a worker without credentials is let at single objects in storage: it asks, and whoever has the
//! credentials judges (`domain::grant`) and signs. Request and reply; nothing keeps either.

use domain::grant::{Refusal, SignedUrl, Wanted};
use domain::id::{JobId, WorkerName};
use serde::{Deserialize, Serialize};

use crate::{Message, subject};

/// What a worker asks for, at most [`domain::grant::BATCH`] objects at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Who asks.
    pub worker: WorkerName,
    /// For which job; absent only to learn whether storage is reached.
    pub job: Option<JobId>,
    /// Which objects, and what to do with each.
    pub wanted: Vec<Wanted>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// One URL for each object, in order.
    Granted {
        /// The URLs.
        urls: Vec<SignedUrl>,
        /// How long a request may begin with them, counted from the question, in milliseconds.
        valid_ms: u64,
    },
    /// Nothing of it; asking again gives the same answer.
    Refused(Refusal),
    /// Not now: whoever signs cannot look the job up.
    Away {
        /// Why, in a sentence.
        detail: String,
    },
}

impl Message for Ask {
    const KIND: &'static str = "grant";
    const VERSION: u16 = 1;

    fn subject(&self) -> String {
        subject::grant(&self.worker)
    }
}

impl Message for Answer {
    const KIND: &'static str = "grant-reply";
    const VERSION: u16 = 1;

    // A reply goes to the requester's inbox; this names it in logs only.
    fn subject(&self) -> String {
        subject::grants()
    }
}

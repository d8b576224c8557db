//! What could not be handled, with why, for a person to look at. Never its payload: it may be large.

use domain::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::{Message, subject};

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Who gave it up.
    pub service: String,
    /// The subject it came on.
    pub original: String,
    /// Kind header of the original, if any.
    pub kind: Option<String>,
    /// Bytes of its payload.
    pub bytes: u64,
    /// Why, in a sentence.
    pub why: String,
    /// When it was given up.
    pub at: UnixMillis,
}

impl Message for DeadLetter {
    const KIND: &'static str = "dead-letter";
    const VERSION: u16 = 1;

    fn subject(&self) -> String {
        subject::dead(&self.service, &self.original)
    }
}

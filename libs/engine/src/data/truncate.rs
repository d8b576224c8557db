//! What is cut when a record exceeds the sequence: tokens of the prompt, never of the answer.

use serde::{Deserialize, Serialize};

use super::Refusal;

/// Where a prompt is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncate {
    /// Out of the middle: the beginning stays, and so do the last tokens, where the question is.
    Middle {
        /// Tokens kept at the prompt's end.
        keep_end: usize,
    },
    /// From the beginning.
    Front,
    /// Not at all: a record that is too long is refused.
    Refuse,
}

impl Default for Truncate {
    /// 32 tokens at the end hold a question such as `Is this mail spam? Answer:` and what
    /// belongs to it.
    fn default() -> Self {
        Self::Middle { keep_end: 32 }
    }
}

impl Truncate {
    /// The prompt within `room` tokens; at least `suffix` tokens of its end stay, if they fit.
    pub(super) fn cut(
        self,
        prompt: Vec<u32>,
        room: usize,
        suffix: usize,
    ) -> Result<Vec<u32>, Refusal> {
        let excess = prompt.len().saturating_sub(room);
        if excess == 0 {
            return Ok(prompt);
        }
        let kept_end = match self {
            Self::Middle { keep_end } => keep_end.max(suffix).min(room),
            Self::Front => room,
            Self::Refuse => {
                return Err(Refusal::TooLong {
                    tokens: prompt.len(),
                    sequence_length: room,
                });
            }
        };
        let (head, tail) = (room - kept_end, prompt.len() - kept_end);
        let kept = prompt.iter().take(head).chain(prompt.iter().skip(tail));
        Ok(kept.copied().collect())
    }
}

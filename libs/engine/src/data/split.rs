//! A held-out part that stays the same when records are added, moved or repeated.

use sha2::{Digest, Sha256};

use super::{Dataset, Error, Record};

/// Record numbers of the two parts, each ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// To learn from.
    pub training: Vec<usize>,
    /// To measure with.
    pub held_out: Vec<usize>,
}

impl Dataset {
    /// Holds out about this fraction (0 to 1) of the records, chosen by their content: equal
    /// records fall on the same side, and a larger fraction only adds to a smaller one's choice.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn split(&self, fraction: f64) -> Result<Split, Error> {
        let mut split = Split {
            training: Vec::new(),
            held_out: Vec::new(),
        };
        for (number, record) in self.records().enumerate() {
            if is_held_out(&record?, fraction) {
                split.held_out.push(number);
            } else {
                split.training.push(number);
            }
        }
        Ok(split)
    }
}

/// Whether a record belongs to the held-out fraction (0 to 1), by SHA-256 of its texts.
#[must_use]
pub fn is_held_out(record: &Record, fraction: f64) -> bool {
    let mut hash = Sha256::new();
    // The length before each text keeps ("ab", "c") and ("a", "bc") apart.
    let mut add = |text: &str| {
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(text.as_bytes());
    };
    match record {
        Record::Text { text } => add(text),
        Record::Completion { prompt, completion } => {
            add(prompt);
            add(completion);
        }
        Record::Label { text, label } => {
            add(text);
            add(label);
        }
        Record::Messages { messages, tools } => {
            for message in messages {
                add(&message.role);
                add(message.said());
                message.calls_json().for_each(|call| add(&call));
            }
            if !tools.is_empty() {
                add(&tools.json());
            }
        }
    }
    let first = hash
        .finalize()
        .iter()
        .take(4)
        .fold(0u32, |sum, byte| (sum << 8) | u32::from(*byte));
    f64::from(first) / (f64::from(u32::MAX) + 1.0) < fraction
}

//! What could not be read: counted by reason, with a few line numbers, never with content.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Line numbers kept for each reason.
const LINES_KEPT: usize = 5;

/// Why a line is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Not a JSON object.
    BadJson,
    /// A JSON object without the keys of this data set's shape, or with other types under them.
    WrongShape,
    /// Not UTF-8.
    BadUtf8,
    /// Nothing to learn: a blank line, an empty completion, no assistant turn.
    Empty,
    /// Beyond the limit on one record.
    TooLong,
    /// A conversation that describes or calls tools other than in its turns' text.
    ToolCalls,
}

/// The account of skipped lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    reasons: BTreeMap<Reason, Lines>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Lines {
    count: u64,
    first_lines: Vec<u64>,
}

impl Skipped {
    pub(super) fn add(&mut self, reason: Reason, line: u64) {
        let lines = self.reasons.entry(reason).or_default();
        lines.count += 1;
        if lines.first_lines.len() < LINES_KEPT {
            lines.first_lines.push(line);
        }
    }

    /// Skipped lines in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.reasons.values().map(|lines| lines.count).sum()
    }

    /// Lines skipped for this reason.
    #[must_use]
    pub fn count(&self, reason: Reason) -> u64 {
        self.reasons.get(&reason).map_or(0, |lines| lines.count)
    }

    /// Numbers (from 1) of the first few lines skipped for this reason.
    #[must_use]
    pub fn first_lines(&self, reason: Reason) -> &[u64] {
        let lines = self.reasons.get(&reason);
        lines.map_or(&[], |lines| &lines.first_lines)
    }

    /// Every reason that occurred, with its count.
    pub fn reasons(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        let reasons = self.reasons.iter();
        reasons.map(|(reason, lines)| (*reason, lines.count))
    }
}

impl Reason {
    /// The reason in a word for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::WrongShape => "wrong_shape",
            Self::BadUtf8 => "bad_utf8",
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::ToolCalls => "tool_calls",
        }
    }

    /// What to do about it, where the name does not say it.
    const fn advice(self) -> &'static str {
        match self {
            Self::ToolCalls => {
                " (write tools and calls as text into the contents, as the model is to read and write them)"
            }
            _ => "",
        }
    }
}

/// `3 skipped: bad_json 2 (lines 4, 9), empty 1 (line 7)`
impl fmt::Display for Skipped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} skipped", self.total())?;
        for (place, (reason, lines)) in self.reasons.iter().enumerate() {
            let before = if place == 0 { ": " } else { ", " };
            let numbers: Vec<_> = lines.first_lines.iter().map(u64::to_string).collect();
            let word = if numbers.len() == 1 { "line" } else { "lines" };
            let more = u64::try_from(numbers.len()).is_ok_and(|kept| kept < lines.count);
            let more = if more { ", …" } else { "" };
            let numbers = numbers.join(", ");
            write!(
                formatter,
                "{before}{} {} ({word} {numbers}{more}){}",
                reason.name(),
                lines.count,
                reason.advice()
            )?;
        }
        Ok(())
    }
}

//! What could not be read: counted by reason, with a few line numbers, never with content.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::BadTools;

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
    /// Tools, or calls of them, in another form than chat templates take.
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
    /// What is wrong with each of the first lines, where it is their tools.
    faults: Vec<ToolFault>,
}

/// What is wrong with a record's tools, or with calls of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ToolFault {
    /// The number of the turn that calls, from 1; none: the record's list of tools.
    pub(super) turn: Option<u64>,
    pub(super) what: BadTools,
}

/// Why a line is no record, and more of it where there is more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unread {
    reason: Reason,
    fault: Option<ToolFault>,
}

impl From<Reason> for Unread {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            fault: None,
        }
    }
}

impl From<ToolFault> for Unread {
    fn from(fault: ToolFault) -> Self {
        Self {
            reason: Reason::ToolCalls,
            fault: Some(fault),
        }
    }
}

impl Skipped {
    pub(super) fn add(&mut self, unread: Unread, line: u64) {
        let lines = self.reasons.entry(unread.reason).or_default();
        lines.count += 1;
        if lines.first_lines.len() < LINES_KEPT {
            lines.first_lines.push(line);
            lines.faults.extend(unread.fault);
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
}

/// `lines 4, 9`, or `line 4, turn 2: only the assistant calls tools; line 9, …`
impl fmt::Display for Lines {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.first_lines.iter();
        if !self.faults.is_empty() {
            let faults = numbers.zip(&self.faults);
            let faults = faults.map(|(number, fault)| format!("line {number}, {fault}"));
            return formatter.write_str(&faults.collect::<Vec<_>>().join("; "));
        }
        let numbers: Vec<_> = numbers.map(u64::to_string).collect();
        let word = if numbers.len() == 1 { "line" } else { "lines" };
        write!(formatter, "{word} {}", numbers.join(", "))
    }
}

/// `turn 2: only the assistant calls tools`
impl fmt::Display for ToolFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.turn {
            Some(turn) => write!(formatter, "turn {turn}: {}", self.what),
            None => write!(formatter, "{}", self.what),
        }
    }
}

/// `3 skipped: bad_json 2 (lines 4, 9), tool_calls 1 (line 7, turn 2: only the assistant calls tools)`
impl fmt::Display for Skipped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} skipped", self.total())?;
        for (place, (reason, lines)) in self.reasons.iter().enumerate() {
            let before = if place == 0 { ": " } else { ", " };
            let more = u64::try_from(lines.first_lines.len()).is_ok_and(|kept| kept < lines.count);
            let more = if more { ", …" } else { "" };
            write!(
                formatter,
                "{before}{} {} ({lines}{more})",
                reason.name(),
                lines.count
            )?;
        }
        Ok(())
    }
}

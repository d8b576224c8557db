//! An account of records that were drawn and could not be learned: by reason, never with content.

use std::collections::BTreeMap;
use std::fmt;

use super::{Refusal, Refused};

/// Record numbers kept for each reason.
const RECORDS_KEPT: usize = 3;

/// Counts by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    reasons: BTreeMap<&'static str, Counted>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counted {
    count: u64,
    records: Vec<usize>,
    longest: usize,
    advice: Option<&'static str>,
}

impl Refusals {
    /// Counts what was refused while a batch was made; whether a reason among them is new.
    pub fn add(&mut self, refused: &[Refused]) -> bool {
        let before = self.reasons.len();
        for Refused { record, refusal } in refused {
            let counted = self.reasons.entry(refusal.name()).or_default();
            counted.count += 1;
            if counted.records.len() < RECORDS_KEPT && !counted.records.contains(record) {
                counted.records.push(*record);
            }
            counted.advice = refusal.advice();
            if let Refusal::AnswerTooLong { answer, .. } = refusal {
                counted.longest = counted.longest.max(*answer);
            }
        }
        self.reasons.len() > before
    }

    /// Times that a record was refused.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.reasons.values().map(|counted| counted.count).sum()
    }

    /// Each reason with its count.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.reasons
            .iter()
            .map(|(reason, counted)| (*reason, counted.count))
    }
}

/// `answer_too_long 3 times (records 4, 9; at most 212 tokens: use a longer sequence)`
impl fmt::Display for Refusals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (reason, counted)) in self.reasons.iter().enumerate() {
            let Counted {
                count,
                records,
                longest,
                advice,
            } = counted;
            let before = if place == 0 { "" } else { "; " };
            let times = if *count == 1 { "time" } else { "times" };
            let word = if records.len() == 1 {
                "record"
            } else {
                "records"
            };
            let numbers: Vec<String> = records.iter().map(usize::to_string).collect();
            let numbers = numbers.join(", ");
            write!(
                formatter,
                "{before}{reason} {count} {times} ({word} {numbers}"
            )?;
            if *longest > 0 {
                write!(
                    formatter,
                    "; answers have up to {longest} tokens and are never cut: use a longer sequence"
                )?;
            }
            if let Some(advice) = advice {
                write!(formatter, "; {advice}")?;
            }
            formatter.write_str(")")?;
        }
        Ok(())
    }
}

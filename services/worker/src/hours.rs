//! Hours of the day in which a site works, in UTC.

use std::fmt;
use std::str::FromStr;

use domain::time::UnixMillis;
use serde::{Deserialize, Serialize};

/// From one full hour to another, `22-06`; past midnight if the second is smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    from: u64,
    to: u64,
}

/// Why a text is no span of hours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no span of hours: write two different full hours of UTC, such as 22-06")]
pub struct Invalid(String);

impl Hours {
    /// Whether the site works at this moment.
    #[must_use]
    pub const fn contain(self, now: UnixMillis) -> bool {
        let hour = now.0 / 3_600_000 % 24;
        if self.from < self.to {
            self.from <= hour && hour < self.to
        } else {
            self.from <= hour || hour < self.to
        }
    }
}

impl FromStr for Hours {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (from, to) = text.split_once('-')?;
            let (from, to): (u64, u64) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
            (from < 24 && to <= 24 && from != to % 24).then_some(Self { from, to: to % 24 })
        };
        parse().ok_or_else(|| Invalid(text.chars().take(20).collect()))
    }
}

impl TryFrom<String> for Hours {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}-{:02}", self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hours: &str, hour: u64, expected: bool) {
        let hours: Hours = hours.parse().unwrap();
        let now = UnixMillis((24 * 365 + hour) * 3_600_000 + 1);
        assert_eq!(hours.contain(now), expected, "{hours} at {hour}");
    }

    #[test]
    fn a_span_may_pass_midnight() {
        check("08-18", 8, true);
        check("08-18", 17, true);
        check("08-18", 18, false);
        check("22-06", 23, true);
        check("22-06", 0, true);
        check("22-06", 6, false);
        check("20-24", 23, true);
        check("20-24", 0, false);
    }

    #[test]
    fn a_span_of_nothing_is_refused() {
        for text in ["", "8", "8-8", "0-24", "25-3", "3-25", "a-b"] {
            assert!(text.parse::<Hours>().is_err(), "{text}");
        }
    }
}

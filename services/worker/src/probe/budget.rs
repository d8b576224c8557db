//! How long a probe may compute: seconds of this machine's own time, and measured rounds. Pure.
//!
//! Sizes are tried smallest first, so what a budget ends is growth. Of the first mode the sizes without
//! which nothing can be fitted are measured whatever they take, so that these are bounded in rounds and not in
//! seconds; every other mode is measured only as far as time allows, and one that did not get as far as a fit needs
//! is not told.

use super::configurations::NEEDED;

/// Of the budget, what one mode may take before it stops growing: the first, and each further one.
const FIRST_SHARE: f64 = 1.0 / 3.0;
const FURTHER_SHARE: f64 = 0.2;

/// Rounds in all, each of at most eight steps.
const ROUNDS: usize = 96;

/// What was spent so far, in all and in the mode under way.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Seconds of real computing after which no further round is begun.
    pub budget_seconds: f64,
    /// Seconds of the whole probe.
    pub seconds: f64,
    /// Rounds of the whole probe.
    pub rounds: usize,
    /// Modes that were measured before this one.
    pub modes: usize,
    /// Seconds of this mode.
    pub mode_seconds: f64,
    /// Rounds of this mode.
    pub mode_rounds: usize,
}

impl Spent {
    /// Nothing yet, of so many seconds.
    #[must_use]
    pub fn nothing_of(budget_seconds: f64) -> Self {
        Self {
            budget_seconds,
            ..Self::default()
        }
    }

    /// Whether a further round may begin that is expected to take so many seconds.
    #[must_use]
    pub fn allows(self, expected_seconds: f64) -> bool {
        let first = self.modes == 0;
        if self.rounds >= ROUNDS {
            return false;
        }
        if first && self.mode_rounds < NEEDED {
            return true;
        }
        let share = if first { FIRST_SHARE } else { FURTHER_SHARE };
        let own = share * self.budget_seconds;
        let whole = self.seconds + expected_seconds <= self.budget_seconds;
        // A mode that is begun gets as far as a fit needs, if the whole allows it.
        whole && (self.mode_rounds < NEEDED || self.mode_seconds + expected_seconds <= own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: f64, modes: usize, mode_seconds: f64, mode_rounds: usize, expected: bool) {
        let spent = Spent {
            budget_seconds: 60.0,
            seconds,
            rounds: mode_rounds,
            modes,
            mode_seconds,
            mode_rounds,
        };
        assert_eq!(spent.allows(1.0), expected, "{spent:?}");
    }

    #[test]
    fn the_first_mode_gets_what_a_fit_needs_and_stops_growing_when_its_time_is_up() {
        check(1e4, 0, 1e4, NEEDED - 1, true);
        check(18.0, 0, 18.0, NEEDED, true);
        check(19.5, 0, 19.5, NEEDED, false);
    }

    #[test]
    fn a_further_mode_gets_what_the_whole_allows() {
        check(30.0, 1, 13.0, NEEDED - 1, true);
        check(30.0, 1, 10.0, NEEDED, true);
        check(30.0, 1, 11.5, NEEDED, false);
        check(59.5, 1, 0.0, 0, false);
    }

    #[test]
    fn rounds_are_counted_too() {
        let spent = Spent {
            rounds: ROUNDS,
            ..Spent::default()
        };
        assert!(!spent.allows(0.0));
    }
}

//! In which order the steps of one mode are measured: small to large, and where memory ends early, shorter rows first
//! and then as large as these let one hope. Pure: whether a step fits and whether there is time is asked.

use std::collections::VecDeque;

use super::configurations::{Configuration, NEEDED, configurations, shorter};

/// How far a mode has grown.
#[derive(Debug)]
pub struct Growth {
    ahead: VecDeque<Configuration>,
    measured: Vec<Configuration>,
    stretch: Stretch,
    rank_max: u16,
    largest_batch: u16,
    too_large: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stretch {
    /// Of the mode's own sizes.
    Grid,
    /// Of shorter rows, until a cost model can be fitted.
    Shorter,
    /// Of all sizes again: what the shorter rows told allows larger steps than a first one did.
    Again,
}

impl Growth {
    /// Along `grid`, with no more records a step than `largest_batch`.
    #[must_use]
    pub fn along(grid: Vec<Configuration>, rank_max: u16, largest_batch: u16) -> Self {
        Self {
            ahead: grid.into(),
            measured: Vec::new(),
            stretch: Stretch::Grid,
            rank_max,
            largest_batch,
            too_large: None,
        }
    }

    /// The step to measure next, which counts as measured from now on; none if nothing more fits, or time is up.
    /// `beyond` says how many bytes a step would need if there are not so many.
    pub fn next(
        &mut self,
        beyond: impl Fn(Configuration) -> Option<u64>,
        has_time: impl Fn(Configuration) -> bool,
    ) -> Option<Configuration> {
        loop {
            if self.stretch == Stretch::Shorter && self.measured.len() >= NEEDED {
                self.ahead.clear();
            }
            let Some(next) = self.ahead.pop_front() else {
                if self.turn() {
                    continue;
                }
                return None;
            };
            if next.batch > self.largest_batch || self.measured.contains(&next) {
                continue;
            }
            if !has_time(next) {
                self.ahead.clear();
            } else if let Some(bytes) = beyond(next) {
                self.too_large.get_or_insert(bytes);
            } else {
                self.measured.push(next);
                return Some(next);
            }
        }
    }

    /// Goes on to the next stretch, if there is one.
    fn turn(&mut self) -> bool {
        let (stretch, ahead) = match self.stretch {
            Stretch::Grid if self.measured.len() < NEEDED => {
                (Stretch::Shorter, shorter().collect())
            }
            Stretch::Shorter if self.too_large.is_some() => {
                (Stretch::Again, configurations(self.rank_max).into())
            }
            _ => return false,
        };
        (self.stretch, self.ahead) = (stretch, ahead);
        true
    }

    /// Bytes that the first step would have needed that did not fit.
    #[must_use]
    pub const fn too_large(&self) -> Option<u64> {
        self.too_large
    }
}

#[cfg(test)]
mod tests {
    use super::super::configurations::{Need, fewer, predicted};
    use super::*;

    const RANK_MAX: u16 = 16;
    const ROW: usize = 128;
    const PARAMETERS_PER_RANK: f64 = 60_000.0;

    fn need(of: Configuration) -> Need {
        let tokens = f64::from(of.batch) * (ROW / of.part) as f64;
        let parameters = f64::from(of.rank) * PARAMETERS_PER_RANK;
        // A logits row of a large vocabulary, kept twice, beside what does not grow.
        let bytes = 20e6 + 16.0 * parameters + tokens * 400e3;
        Need {
            tokens,
            parameters,
            bytes,
        }
    }

    /// What is measured where a step may need so many bytes.
    fn measured(grid: Vec<Configuration>, limit: f64, largest_batch: u16) -> Vec<Configuration> {
        let mut growth = Growth::along(grid, RANK_MAX, largest_batch);
        let mut found: Vec<Configuration> = Vec::new();
        loop {
            let earlier: Vec<Need> = found.iter().copied().map(need).collect();
            let beyond = |next| {
                let Need {
                    tokens, parameters, ..
                } = need(next);
                let bytes = predicted(&earlier, tokens, parameters);
                (bytes > limit).then_some(bytes as u64)
            };
            match growth.next(beyond, |_| true) {
                Some(next) => found.push(next),
                None => return found,
            }
        }
    }

    fn longest(found: &[Configuration]) -> f64 {
        found.iter().map(|of| need(*of).tokens).fold(0.0, f64::max)
    }

    #[test]
    fn where_memory_is_plenty_the_grid_is_all() {
        for grid in [configurations(RANK_MAX), fewer(RANK_MAX)] {
            assert_eq!(measured(grid.clone(), f64::INFINITY, 32), grid);
        }
        let few = measured(fewer(RANK_MAX), f64::INFINITY, 8);
        assert!(few.iter().all(|of| of.batch <= 8) && few.len() == 5);
    }

    #[test]
    fn where_memory_ends_early_short_rows_lead_to_the_largest_step_that_fits() {
        // By proportion to the first step, of 32 tokens, one of 128 at the highest rank would need 155 MB; it needs 87.
        for (limit, largest) in [(100e6, 128.0), (140e6, 256.0), (60e6, 64.0)] {
            let found = measured(fewer(RANK_MAX), limit, 32);
            assert_eq!(longest(&found), largest, "{limit} {found:?}");
            assert!(found.len() > NEEDED);
            assert!(found.iter().all(|of| need(*of).bytes <= limit));
        }
    }

    #[test]
    fn what_does_not_fit_is_told_and_a_clock_ends_it() {
        let mut growth = Growth::along(fewer(RANK_MAX), RANK_MAX, 32);
        assert_eq!(growth.next(|_| Some(7), |_| true), None);
        assert_eq!(growth.too_large(), Some(7));
        let mut growth = Growth::along(fewer(RANK_MAX), RANK_MAX, 32);
        assert!(growth.next(|_| None, |next| next.part == 4).is_some());
        assert_eq!(growth.next(|_| None, |_| false), None);
        assert_eq!(growth.too_large(), None);
    }
}

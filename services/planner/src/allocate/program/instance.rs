//! What is to be decided, in numbers.

use super::frontier::Frontier;

/// One rank that an item may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// The rank; 0: frozen.
    pub rank: u16,
    /// `φ(rank)`.
    pub gain: f64,
}

/// A weight, or several weights that must have one rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    size: u64,
    levels: Vec<Level>,
}

impl Item {
    /// An item of `size` parameters per unit of rank. `None` unless it has a size and a level, ranks
    /// ascend, and gains are numbers from 0 that do not fall.
    #[must_use]
    pub fn new(size: u64, levels: Vec<Level>) -> Option<Self> {
        let sound = |level: &Level| level.gain.is_finite() && level.gain >= 0.0;
        let ascends = |(low, high): (&Level, &Level)| low.rank < high.rank && low.gain <= high.gain;
        let ordered = levels.iter().zip(levels.iter().skip(1)).all(ascends);
        let legal = size > 0 && !levels.is_empty() && levels.iter().all(sound) && ordered;
        legal.then_some(Self { size, levels })
    }

    /// Its levels, by rank.
    #[must_use]
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Parameters of a level.
    #[must_use]
    pub fn parameters(&self, level: Level) -> u64 {
        self.size * u64::from(level.rank)
    }
}

/// A cost that grows with the adapter's parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// Without an adapter.
    pub fixed: f64,
    /// More for each parameter.
    pub per_parameter: f64,
}

impl Affine {
    /// The cost of so many parameters.
    #[must_use]
    pub fn of(self, parameters: u64) -> f64 {
        self.fixed + self.per_parameter * parameters as f64
    }

    /// The most parameters whose cost is within `limit`; `None` if there is no such number.
    #[must_use]
    pub fn room(self, limit: f64) -> Option<u64> {
        if self.fixed.is_nan() || self.per_parameter.is_nan() || self.fixed > limit {
            return None;
        }
        if self.per_parameter <= 0.0 {
            return Some(u64::MAX);
        }
        // Saturates; rounding may leave it one too large.
        let most = ((limit - self.fixed) / self.per_parameter) as u64;
        Some(if self.of(most) > limit {
            most.saturating_sub(1 + most / (1 << 50))
        } else {
            most
        })
    }
}

/// One batch in one mode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// What it makes of a unit of φ.
    pub factor: f64,
    /// What it is worth whatever is trained.
    pub constant: f64,
    /// Bytes.
    pub memory: Affine,
    /// Seconds of a round.
    pub seconds: Affine,
    /// The longest round that it may take, whatever the instance's budget.
    pub longest: f64,
}

impl Choice {
    /// The most parameters that both budgets leave it.
    #[must_use]
    pub fn room(&self, memory: f64, seconds: f64) -> Option<u64> {
        let seconds = self.seconds.room(seconds.min(self.longest))?;
        Some(self.memory.room(memory)?.min(seconds))
    }

    /// The objective, for ranks of this gain.
    #[must_use]
    pub fn value(&self, gain: f64) -> f64 {
        self.factor * gain + self.constant
    }
}

/// A worker's program.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    /// The weights.
    pub frontier: &'a Frontier,
    /// Every batch and mode.
    pub choices: &'a [Choice],
    /// Bytes that it may use.
    pub memory: f64,
    /// Seconds that a round may take.
    pub seconds: f64,
}

/// A decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// Which of the instance's choices.
    pub choice: usize,
    /// Which level of each item.
    pub levels: Vec<usize>,
    /// Parameters of the adapter.
    pub parameters: u64,
    /// The objective.
    pub value: f64,
}

/// A choice that has room for the smallest adapter, and the most that it can be worth.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    pub choice: usize,
    pub room: u64,
    pub bound: f64,
}

impl Instance<'_> {
    /// The choices with room, the most promising first, the earlier of equals.
    pub(super) fn promises(&self) -> Vec<Promise> {
        let promise = |(choice, of): (usize, &Choice)| {
            let room = of.room(self.memory, self.seconds)?;
            let bound = of.value(self.frontier.bound(room)?);
            Some(Promise {
                choice,
                room,
                bound,
            })
        };
        let choices = self.choices.iter().enumerate();
        let mut promises: Vec<Promise> = choices.filter_map(promise).collect();
        promises.sort_by(|left, right| {
            let order = right.bound.total_cmp(&left.bound);
            order.then(left.choice.cmp(&right.choice))
        });
        promises
    }

    /// The most that any choice can be worth, steps of the frontier taken in part; `None` if no choice has
    /// room for the smallest adapter.
    #[must_use]
    pub fn bound(&self) -> Option<f64> {
        self.promises().first().map(|promise| promise.bound)
    }

    /// The best that `spend` makes of any choice's room.
    pub(super) fn best(
        &self,
        mut spend: impl FnMut(u64) -> Option<super::Selection>,
    ) -> Option<Solution> {
        let mut best: Option<Solution> = None;
        for promise in self.promises() {
            if best
                .as_ref()
                .is_some_and(|best| best.value >= promise.bound)
            {
                break;
            }
            let Some(selection) = spend(promise.room) else {
                continue;
            };
            // Invariant: `promises` counts over `choices`.
            let Some(choice) = self.choices.get(promise.choice) else {
                continue;
            };
            let value = choice.value(selection.gain);
            if best.as_ref().is_none_or(|best| value > best.value) {
                best = Some(Solution {
                    choice: promise.choice,
                    levels: selection.levels,
                    parameters: selection.parameters,
                    value,
                });
            }
        }
        best
    }
}

//! The weights of a job, ordered once by what a parameter of each next rank brings.

use super::instance::{Item, Level};

/// One step along the concave hull of an item's levels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Of which item.
    pub item: usize,
    /// From this level …
    pub from: usize,
    /// … to this one.
    pub to: usize,
    /// Parameters that it adds.
    pub parameters: u64,
    /// Gain that it adds, above 0.
    pub gain: f64,
}

impl Step {
    /// Gain per parameter.
    #[must_use]
    pub fn worth(&self) -> f64 {
        // Invariant: levels of one item differ in rank, and a rank has parameters.
        self.gain / self.parameters as f64
    }
}

/// A level for each item.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Index into each item's levels.
    pub levels: Vec<usize>,
    /// Parameters of the adapter.
    pub parameters: u64,
    /// `Σ φ`.
    pub gain: f64,
}

/// The items and every step from their lowest levels upwards, the best first: the solution of the
/// program without integrality, for every room at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Frontier {
    items: Vec<Item>,
    steps: Vec<Step>,
    /// Parameters and gain after each number of steps; one entry more than `steps`.
    after: Vec<(u64, f64)>,
    /// Parameters of the smallest adapter that trains anything.
    least: u64,
}

impl Frontier {
    /// Orders the steps. `None` if nothing could ever be trained.
    #[must_use]
    pub fn new(items: Vec<Item>) -> Option<Self> {
        let least = least(&items)?;
        let mut steps: Vec<Step> = items.iter().enumerate().flat_map(hull).collect();
        // Equal worths: the smaller step, then the earlier item, so that the order is total.
        steps.sort_by(|left, right| {
            let order = right.worth().total_cmp(&left.worth());
            order
                .then(left.parameters.cmp(&right.parameters))
                .then(left.item.cmp(&right.item))
                .then(left.from.cmp(&right.from))
        });
        let start = items.iter().filter_map(|item| {
            let level = item.levels().first()?;
            Some((item.parameters(*level), level.gain))
        });
        let start = start.fold((0, 0.0), add);
        let mut after = vec![start];
        after.extend(steps.iter().scan(start, |at, step| {
            *at = add(*at, (step.parameters, step.gain));
            Some(*at)
        }));
        Some(Self {
            items,
            steps,
            after,
            least,
        })
    }

    /// The items.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Parameters of the smallest adapter that trains anything.
    #[must_use]
    pub const fn least(&self) -> u64 {
        self.least
    }

    /// Parameters of the largest adapter that gains anything over a smaller one.
    #[must_use]
    pub fn most(&self) -> u64 {
        let most = self.after.last().map_or(0, |(parameters, _)| *parameters);
        most.max(self.least)
    }

    /// `Σ φ` of the largest adapter.
    #[must_use]
    pub fn most_gain(&self) -> f64 {
        self.after.last().map_or(0.0, |(_, gain)| *gain)
    }

    /// Parameters and gain of the whole steps that fit into `room`: what is surely reached. `None` if
    /// nothing that trains fits.
    #[must_use]
    pub fn reached(&self, room: u64) -> Option<(u64, f64)> {
        let steps = self.whole(room)?;
        let (parameters, gain) = self.after.get(steps).copied()?;
        Some((parameters.max(self.least), gain))
    }

    /// An upper bound of the gain in `room`: the last step may be taken in part. `None` as for
    /// [`Frontier::reached`].
    #[must_use]
    pub fn bound(&self, room: u64) -> Option<f64> {
        let steps = self.whole(room)?;
        let (parameters, gain) = self.after.get(steps).copied()?;
        // Invariant: `whole` counts steps that fit, so the difference is not negative.
        let left = room.saturating_sub(parameters) as f64;
        let part = self.steps.get(steps);
        Some(gain + part.map_or(0.0, |step| step.gain.min(left * step.worth())))
    }

    /// What a parameter is worth at the end of `room`.
    pub(super) fn price(&self, room: u64) -> f64 {
        let next = self.whole(room).and_then(|steps| self.steps.get(steps));
        next.map_or(0.0, Step::worth)
    }

    /// The steps in order of their worth, as far as they fit, leaping over those that do not.
    #[must_use]
    pub fn greedy(&self, room: u64) -> Option<Selection> {
        let whole = self.whole(room)?;
        let mut levels = vec![0; self.items.len()];
        let (mut parameters, mut gain) = self.after.get(whole).copied()?;
        for (index, step) in self.steps.iter().enumerate() {
            let Some(level) = levels.get_mut(step.item) else {
                continue;
            };
            if index < whole {
                *level = step.to;
            } else if *level == step.from && step.parameters <= room.saturating_sub(parameters) {
                *level = step.to;
                parameters += step.parameters;
                gain += step.gain;
            }
        }
        let selection = Selection {
            levels,
            parameters,
            gain,
        };
        if parameters > 0 {
            return Some(selection);
        }
        self.smallest()
    }

    /// The step with the best worth that leads on from `levels` and does not fit into `room` with them: the
    /// parameters and gain it adds, and the rank it leads to.
    #[must_use]
    pub fn next(&self, levels: &[usize], room: u64) -> Option<(u64, f64, u16)> {
        let taken = self.selection(levels.to_vec())?.parameters;
        self.steps.iter().find_map(|step| {
            let (item, now) = (self.items.get(step.item)?, levels.get(step.item)?);
            let (from, to) = (item.levels().get(*now)?, item.levels().get(step.to)?);
            let adds = item.parameters(*to).checked_sub(item.parameters(*from))?;
            let fits = adds <= room.saturating_sub(taken);
            (*now < step.to && !fits).then_some((adds, to.gain - from.gain, to.rank))
        })
    }

    /// Levels with what they cost and gain; `None` if an item has no such level.
    pub(super) fn selection(&self, levels: Vec<usize>) -> Option<Selection> {
        let (mut parameters, mut gain) = (0, 0.0);
        for (item, level) in self.items.iter().zip(&levels) {
            let level = item.levels().get(*level)?;
            parameters += item.parameters(*level);
            gain += level.gain;
        }
        Some(Selection {
            levels,
            parameters,
            gain,
        })
    }

    /// The smallest adapter that trains anything.
    fn smallest(&self) -> Option<Selection> {
        let mut levels = vec![0; self.items.len()];
        for (index, item) in self.items.iter().enumerate() {
            for (at, level) in item.levels().iter().enumerate() {
                if item.parameters(*level) == self.least && level.rank > 0 {
                    *levels.get_mut(index)? = at;
                    return Some(Selection {
                        levels,
                        parameters: self.least,
                        gain: level.gain,
                    });
                }
            }
        }
        None
    }

    /// How many of the first steps fit into `room`.
    fn whole(&self, room: u64) -> Option<usize> {
        if room < self.least {
            return None;
        }
        let fit = self
            .after
            .partition_point(|(parameters, _)| *parameters <= room);
        fit.checked_sub(1)
    }
}

fn add(left: (u64, f64), right: (u64, f64)) -> (u64, f64) {
    (left.0 + right.0, left.1 + right.1)
}

/// Parameters of the smallest choice of levels that trains anything: all of the lowest ones if that is
/// something, else the smallest single rank. `None` if no item has a rank.
fn least(items: &[Item]) -> Option<u64> {
    let lowest = items.iter().filter_map(|item| {
        let level = item.levels().first()?;
        Some(item.parameters(*level))
    });
    let lowest: u64 = lowest.sum();
    if lowest > 0 {
        return Some(lowest);
    }
    let ranked = items.iter().flat_map(|item| {
        let sizes = item.levels().iter().map(|level| item.parameters(*level));
        sizes.filter(|parameters| *parameters > 0)
    });
    ranked.min()
}

/// The steps of one item's upper concave hull, from its lowest level on. Levels below the hull are in no
/// step; levels that add nothing are not reached.
fn hull((index, item): (usize, &Item)) -> Vec<Step> {
    let mut corners: Vec<(usize, Level)> = Vec::new();
    let worth = |low: &Level, high: &Level| {
        (high.gain - low.gain) / f64::from(high.rank.saturating_sub(low.rank).max(1))
    };
    for (at, level) in item.levels().iter().enumerate() {
        while let [.., (_, before), (_, last)] = corners.as_slice()
            && worth(before, last) <= worth(before, level)
        {
            corners.pop();
        }
        corners.push((at, *level));
    }
    let pairs = corners.iter().zip(corners.iter().skip(1));
    let steps = pairs.map(|((from, low), (to, high))| Step {
        item: index,
        from: *from,
        to: *to,
        parameters: item.parameters(*high) - item.parameters(*low),
        gain: high.gain - low.gain,
    });
    steps.filter(|step| step.gain > 0.0).collect()
}

//! Zeroth-order steps done again from their scalars, by whoever holds the adapter they began with.
//!
//! Promises: the same bytes as the training itself left, on any machine and any number of threads, tensor by
//! tensor: one tensor of the adapter is in memory at a time, and the model is not needed at all.

use domain::adapter::WeightName;
use domain::job::mezo::Distribution;
use domain::zeroth::{Scalars, Steps};

use super::emphasis::{self, Emphasis};
use crate::normal::Normals;

/// One of the two factors of a weight's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Factor {
    A,
    B,
}

/// The number of a tensor in every direction: which others are adapted does not change its numbers.
pub(super) const fn tensor(name: WeightName, factor: Factor) -> u32 {
    let weight = 16 * name.layer() as u32 + name.projection() as u32;
    2 * weight + factor as u32
}

/// What a direction is multiplied by: `−η/P·g`, where P is how many the step took. The one place where P divides.
pub(super) fn factor(how: &Steps, taken: usize, scalar: f32) -> f32 {
    // The rate has 32 bits everywhere, as a first-order step's.
    let rate = f64::from(how.rate as f32) / taken.max(1) as f64;
    (-rate * f64::from(scalar)) as f32
}

/// The directions of consecutive steps and what each is multiplied by; a skipped step has none.
pub(super) fn streams(how: &Steps, first_step: u64, scalars: &Scalars) -> Vec<(Normals, f32)> {
    let directions = Directions::of(how);
    let steps = (first_step..).zip(scalars.taken(how.perturbations));
    let each = steps.flat_map(|(step, taken)| {
        let numbered = (0..).zip(taken);
        let finite = numbered.filter(|(_, scalar)| scalar.is_finite());
        finite.map(move |(number, scalar)| {
            let factor = factor(how, taken.len(), *scalar);
            (directions.stream(step, number), factor)
        })
    });
    each.collect()
}

/// The directions that steps are made along.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directions {
    seed: u64,
    distribution: Distribution,
}

impl Directions {
    pub(super) const fn of(how: &Steps) -> Self {
        Self {
            seed: how.seed,
            distribution: how.distribution,
        }
    }

    /// Direction `number` of step `step`.
    pub(super) fn stream(self, step: u64, number: u32) -> Normals {
        match self.distribution {
            Distribution::Gaussian => Normals::direction(self.seed, step, number),
            Distribution::Rademacher => Normals::signs(self.seed, step, number),
        }
    }
}

/// Steps that can be done again: a round's, or those of several rounds one after the other.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    legs: Vec<Leg>,
}

/// Steps whose directions are multiplied by the same.
#[derive(Debug, Clone)]
struct Leg {
    streams: Vec<(Normals, f32)>,
    emphasis: Emphasis,
}

impl Replay {
    /// No steps.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Followed by steps made as `how` says, the first of which has the number `first_step`; a skipped one
    /// moves nothing.
    #[must_use]
    pub fn then(self, how: &Steps, first_step: u64, scalars: &Scalars) -> Self {
        self.then_by(how, first_step, scalars, Emphasis::default())
    }

    /// As [`Replay::then`], the numbers of the directions multiplied by these.
    #[must_use]
    pub fn then_by(
        mut self,
        how: &Steps,
        first_step: u64,
        scalars: &Scalars,
        emphasis: Emphasis,
    ) -> Self {
        let streams = streams(how, first_step, scalars);
        self.legs.push(Leg { streams, emphasis });
        self
    }

    /// Random numbers that each value of an adapter takes.
    #[must_use]
    pub fn numbers(&self) -> usize {
        let each = |leg: &Leg| leg.streams.len() + leg.emphasis.numbers();
        self.legs.iter().map(each).sum()
    }

    /// Does the steps to one tensor of an adapter, named by PEFT's key. Says whether there is such a tensor.
    pub fn apply(&self, key: &str, values: &mut [f32]) -> bool {
        let Some(tensor) = emphasis::tensor(key) else {
            return false;
        };
        for Leg { streams, emphasis } in &self.legs {
            match emphasis.of(tensor, values.len()) {
                None => Normals::add_all(streams, tensor, values),
                Some(scale) => Normals::add_scaled(streams, tensor, values, &scale),
            }
        }
        true
    }
}

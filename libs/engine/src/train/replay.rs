//! Zeroth-order steps done again from their scalars, by whoever holds the adapter they began with.
//!
//! Promises: the same bytes as the training itself left, on any machine and any number of threads, tensor by
//! tensor: one tensor of the adapter is in memory at a time, and the model is not needed at all.

use domain::adapter::WeightName;
use domain::job::mezo::Distribution;
use domain::zeroth::{Scalars, Steps};

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

/// What a direction is multiplied by: `−η/P·g`. The one place where P divides.
pub(super) fn factor(how: &Steps, scalar: f32) -> f32 {
    // The rate has 32 bits everywhere, as a first-order step's.
    let rate = f64::from(how.rate as f32) / f64::from(how.perturbations);
    (-rate * f64::from(scalar)) as f32
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
    streams: Vec<(Normals, f32)>,
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
    pub fn then(mut self, how: &Steps, first_step: u64, scalars: &Scalars) -> Self {
        let directions = Directions::of(how);
        let steps = scalars
            .values()
            .chunks(usize::from(how.perturbations).max(1));
        for (step, scalars) in (first_step..).zip(steps) {
            let finite = (0..).zip(scalars).filter(|(_, scalar)| scalar.is_finite());
            self.streams.extend(
                finite.map(|(number, scalar)| {
                    (directions.stream(step, number), factor(how, *scalar))
                }),
            );
        }
        self
    }

    /// Random numbers that each value of an adapter takes.
    #[must_use]
    pub fn numbers(&self) -> usize {
        self.streams.len()
    }

    /// Does the steps to one tensor of an adapter, named by PEFT's key. Says whether there is such a tensor.
    pub fn apply(&self, key: &str, values: &mut [f32]) -> bool {
        let Some((name, is_a)) = WeightName::from_peft(key) else {
            return false;
        };
        let factor = if is_a { Factor::A } else { Factor::B };
        Normals::add_all(&self.streams, tensor(name, factor), values);
        true
    }
}

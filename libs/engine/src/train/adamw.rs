//! AdamW with decoupled weight decay, as PyTorch computes it.
//!
//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.

use super::Options;
use crate::compute::Changes;

/// Moments of every factor.
#[derive(Debug)]
pub(crate) struct AdamW {
    first: Changes,
    second: Changes,
    steps: u64,
}

impl AdamW {
    pub(crate) fn new(like: &Changes) -> Self {
        Self {
            first: like.zeros_like(),
            second: like.zeros_like(),
            steps: 0,
        }
    }

    /// Counts from here on, as after so many steps.
    pub(super) const fn resume(&mut self, steps: u64) {
        self.steps = steps;
    }

    pub(super) const fn moments(&self) -> [&Changes; 2] {
        [&self.first, &self.second]
    }

    pub(super) const fn moments_mut(&mut self) -> [&mut Changes; 2] {
        [&mut self.first, &mut self.second]
    }

    /// The smoothed gradients, and what they are to be divided by because they started at zero.
    pub(crate) fn first_moments(&self, options: &Options) -> (&Changes, f64) {
        let power = f64::from(options.betas.0).powf(self.steps as f64);
        (&self.first, 1.0 - power)
    }

    /// Moves `values` against `gradient`, which is multiplied by `factor` first.
    pub(crate) fn step(
        &mut self,
        values: &mut Changes,
        gradient: &Changes,
        factor: f32,
        rate: f32,
        options: &Options,
    ) {
        self.steps += 1;
        let (beta1, beta2) = options.betas;
        let power = |beta: f32| f64::from(beta).powf(self.steps as f64);
        let correction1 = 1.0 - power(beta1);
        let step_size = (f64::from(rate) / correction1) as f32;
        let correction2 = (1.0 - power(beta2)).sqrt() as f32;
        let decay = 1.0 - rate * options.weight_decay;
        let moments = self.first.slices_mut().zip(self.second.slices_mut());
        let is_a = values.which_are_a();
        let slices = values.slices_mut().zip(gradient.slices()).zip(moments);
        for (((values, gradient), (first, second)), is_a) in slices.zip(is_a) {
            if is_a && options.b_alone {
                // Not even decayed.
                continue;
            }
            for (((value, g), m), v) in values.iter_mut().zip(gradient).zip(first).zip(second) {
                let g = g * factor;
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                *value =
                    *value * decay - step_size * (*m / (v.sqrt() / correction2 + options.epsilon));
            }
        }
    }
}

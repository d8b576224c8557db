//! Stochastic gradient descent with momentum, as PyTorch computes it: decay is added to the gradient.

use super::Options;
use crate::compute::Changes;

/// The momentum of every factor, where there is one.
#[derive(Debug)]
pub(crate) struct Sgd {
    momentum: f32,
    velocity: Option<Changes>,
}

impl Sgd {
    pub(crate) fn new(like: &Changes, momentum: f32) -> Self {
        Self {
            momentum,
            velocity: (momentum > 0.0).then(|| like.zeros_like()),
        }
    }

    pub(crate) fn moments(&self) -> Vec<&Changes> {
        self.velocity.iter().collect()
    }

    pub(crate) fn moments_mut(&mut self) -> Vec<&mut Changes> {
        self.velocity.iter_mut().collect()
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
        let (momentum, decay) = (self.momentum, options.weight_decay);
        let is_a = values.which_are_a();
        let velocities = self.velocity.iter_mut().flat_map(Changes::slices_mut);
        let mut velocities = velocities.map(Some).chain(std::iter::repeat_with(|| None));
        let slices = values.slices_mut().zip(gradient.slices());
        for ((values, gradient), is_a) in slices.zip(is_a) {
            let velocity = velocities.next().flatten();
            if is_a && options.b_alone {
                continue;
            }
            let wanted = |value: f32, g: f32| g * factor + decay * value;
            match velocity {
                Some(velocity) => {
                    for ((value, g), v) in values.iter_mut().zip(gradient).zip(velocity) {
                        *v = momentum * *v + wanted(*value, *g);
                        *value -= rate * *v;
                    }
                }
                None => {
                    for (value, g) in values.iter_mut().zip(gradient) {
                        *value -= rate * wanted(*value, *g);
                    }
                }
            }
        }
    }
}

//! The first-order optimizers behind one door.

use super::adamw::AdamW;
use super::sgd::Sgd;
use super::{Options, Rule};
use crate::compute::Changes;

/// An optimizer and how many steps it made.
#[derive(Debug)]
pub(super) struct Optimizer {
    steps: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    AdamW(AdamW),
    Sgd(Sgd),
}

impl Optimizer {
    pub(super) fn new(like: &Changes, rule: Rule) -> Self {
        let kind = match rule {
            Rule::AdamW => Kind::AdamW(AdamW::new(like)),
            Rule::Sgd { momentum } => Kind::Sgd(Sgd::new(like, momentum)),
        };
        Self { steps: 0, kind }
    }

    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn step(
        &mut self,
        values: &mut Changes,
        (gradient, factor): (&Changes, f32),
        rate: f32,
        options: &Options,
    ) {
        self.steps += 1;
        match &mut self.kind {
            Kind::AdamW(adamw) => adamw.step(values, gradient, factor, rate, options),
            Kind::Sgd(sgd) => sgd.step(values, gradient, factor, rate, options),
        }
    }

    /// The smoothed gradients, if it has any, and what they are to be divided by.
    pub(super) fn first_moments(&self, options: &Options) -> Option<(&Changes, f64)> {
        match &self.kind {
            Kind::AdamW(adamw) => Some(adamw.first_moments(options)),
            Kind::Sgd(_) => None,
        }
    }

    /// What it keeps of the adapter's size, in a fixed order.
    pub(super) fn moments(&self) -> Vec<&Changes> {
        match &self.kind {
            Kind::AdamW(adamw) => adamw.moments().into(),
            Kind::Sgd(sgd) => sgd.moments(),
        }
    }

    /// Goes on from another's steps and moments; false if that one was of another kind.
    pub(super) fn resume(&mut self, steps: u64, moments: Vec<Changes>) -> bool {
        let own: Vec<&mut Changes> = match &mut self.kind {
            Kind::AdamW(adamw) => adamw.moments_mut().into(),
            Kind::Sgd(sgd) => sgd.moments_mut(),
        };
        let fits = own.len() == moments.len();
        if fits {
            own.into_iter()
                .zip(moments)
                .for_each(|(own, moment)| *own = moment);
            self.steps = steps;
            if let Kind::AdamW(adamw) = &mut self.kind {
                adamw.resume(steps);
            }
        }
        fits
    }
}

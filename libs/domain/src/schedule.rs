//! How the learning rate changes from step to step.
//!
//! A function of the step alone, counted through all rounds of a job: a schedule spans them, whoever trains which.

use serde::{Deserialize, Serialize};

/// What comes after warming up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// The same to the end.
    #[default]
    Constant,
    /// Down to 0 in a straight line.
    Linear,
    /// Down to 0 along half a cosine.
    Cosine,
}

/// A schedule over a number of steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// After warming up.
    pub shape: Shape,
    /// Steps in which the rate rises to its full height in a straight line; the last of them has it. A share of all
    /// steps need not be a whole number of them.
    pub warmup: f64,
    /// Steps of all rounds together.
    pub steps: u64,
}

impl Schedule {
    /// What the learning rate is multiplied by in a step, counted from 0; from 0 to 1.
    #[must_use]
    pub fn factor(&self, step: u64) -> f64 {
        let Self {
            shape,
            warmup,
            steps,
        } = *self;
        let (step, steps) = (step as f64, steps as f64);
        if step < warmup {
            return ((step + 1.0) / warmup).min(1.0);
        }
        let left = (steps - warmup).max(1.0);
        let progress = ((step - warmup) / left).min(1.0);
        match shape {
            Shape::Constant => 1.0,
            Shape::Linear => 1.0 - progress,
            Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: Shape, warmup: u32, steps: u64, want: &[f64]) {
        let schedule = Schedule {
            shape,
            warmup: warmup.into(),
            steps,
        };
        for (step, want) in (0..).zip(want) {
            let got = schedule.factor(step);
            assert!(
                (got - want).abs() < 1e-12,
                "{shape:?} {step}: {got}, {want}"
            );
        }
    }

    #[test]
    fn a_rate_warms_up_and_then_has_its_shape() {
        check(Shape::Constant, 0, 3, &[1.0, 1.0, 1.0, 1.0]);
        check(Shape::Constant, 2, 4, &[0.5, 1.0, 1.0, 1.0]);
        check(Shape::Linear, 0, 4, &[1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
        check(Shape::Linear, 2, 4, &[0.5, 1.0, 1.0, 0.5, 0.0]);
        let half = 0.5f64.sqrt();
        check(
            Shape::Cosine,
            1,
            5,
            &[1.0, 1.0, 0.5 * (1.0 + half), 0.5, 0.5 * (1.0 - half), 0.0],
        );
    }

    #[test]
    fn a_warmup_beyond_the_end_only_rises() {
        check(Shape::Cosine, 10, 3, &[0.1, 0.2, 0.3]);
        check(Shape::Linear, 0, 0, &[1.0, 0.0]);
    }
}

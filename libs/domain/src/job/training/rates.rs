//! Learning rates: what a job that gives none has, and what a step has in its place among the job's.

use super::Training;
use crate::schedule::{Schedule, Shape};

/// Of steps by gradients.
const FIRST_ORDER: f64 = 1e-3;

/// Where every site trains zeroth-order: a scalar scales a whole direction, and at ten times as much the loss was seen
/// to blow up after few steps.
const ZEROTH_ORDER: f64 = 1e-4;

/// What zeroth-order steps beside steps by gradients have of the rate of these, which is of another unit.
const SHARE_BESIDE: f64 = 0.1;

impl Training {
    /// The job's learning rate, at its full height: as it gives it, or what it has without.
    #[must_use]
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate.unwrap_or(if self.is_zeroth_order() {
            ZEROTH_ORDER
        } else {
            FIRST_ORDER
        })
    }

    /// η of zeroth-order steps. Beside first-order sites it is a tenth of theirs, unless the job gives it.
    #[must_use]
    pub fn zeroth_order_rate(&self) -> f64 {
        let usual = if self.is_zeroth_order() {
            self.learning_rate()
        } else {
            SHARE_BESIDE * self.learning_rate()
        };
        self.mezo.learning_rate.unwrap_or(usual)
    }

    /// The learning rate of a first-order step, counted from 0 within its round, for a site that makes
    /// `local_steps` in each of the job's `rounds`. It follows from these alone: a site that joins late or does a
    /// round again has the rate that it would have had, and sites of different step counts are equally far in a
    /// round after the same share of it. `rounds` of 0 are not known, and the rate stays at its full height.
    #[must_use]
    pub fn rate(&self, (round, step): (u32, u32), local_steps: u32, rounds: u32) -> f64 {
        let each = u64::from(local_steps);
        let steps = u64::from(rounds) * each;
        let schedule = Schedule {
            shape: if steps == 0 {
                Shape::Constant
            } else {
                self.schedule
            },
            warmup: self.warmup_ratio * steps as f64,
            steps,
        };
        let step = u64::from(round.saturating_sub(1)) * each + u64::from(step);
        self.learning_rate() * schedule.factor(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training(json: &str) -> Training {
        serde_json::from_str(json).expect(json)
    }

    /// A walk at 1e-3, the rate of AdamW, blows up: where none is given, each kind of step has its own.
    #[test]
    fn a_job_that_gives_no_rate_has_that_of_its_steps() {
        for (json, own, zeroth_order) in [
            (r#"{"optimizer":"mezo"}"#, 1e-4, 1e-4),
            (r#"{"optimizer":"mezo","learning_rate":1e-3}"#, 1e-3, 1e-3),
            (r#"{"optimizer":"auto"}"#, 1e-3, 1e-4),
            (r#"{"optimizer":"auto","learning_rate":2e-2}"#, 2e-2, 2e-3),
            (
                r#"{"optimizer":"auto","mezo":{"learning_rate":5e-5}}"#,
                1e-3,
                5e-5,
            ),
            (r#"{"optimizer":"adamw"}"#, 1e-3, 1e-4),
            (r#"{"optimizer":"sgd"}"#, 1e-3, 1e-4),
        ] {
            let asked = training(json);
            assert_eq!(asked.learning_rate(), own, "{json}");
            let difference = (asked.zeroth_order_rate() - zeroth_order).abs();
            assert!(difference < 1e-12, "{json}");
            assert_eq!(asked.rate((1, 0), 8, 3), own, "{json}");

            // The job as it is stored and shown says what was said.
            let text = serde_json::to_string(&asked).expect("JSON");
            let given = json.contains("learning_rate");
            assert_eq!(text.contains("learning_rate"), given, "{text}");
            assert_eq!(training(&text), asked);

            // A site is told a number, and has the same rates by it.
            let told = asked.told(8);
            assert_eq!(told.learning_rate, Some(own), "{json}");
            assert_eq!(told.zeroth_order_rate(), asked.zeroth_order_rate());
        }
    }

    #[test]
    fn a_schedule_spans_rounds_and_does_not_ask_who_trains_which() {
        let cosine = training(r#"{"schedule":"cosine","warmup_ratio":0.25,"learning_rate":2}"#);
        let rates = |local_steps: u32| -> Vec<f64> {
            let steps = (1..=4).flat_map(|round| (0..local_steps).map(move |step| (round, step)));
            steps.map(|at| cosine.rate(at, local_steps, 4)).collect()
        };
        let four = rates(4);
        let whole = Schedule {
            shape: Shape::Cosine,
            warmup: 4.0,
            steps: 16,
        };
        for (step, rate) in (0..).zip(&four) {
            assert_eq!(*rate, 2.0 * whole.factor(step), "step {step}");
        }
        // Half as many steps a round: at the same share of a round the same rate.
        let two = rates(2);
        for (at, rate) in two.iter().enumerate().skip(2) {
            assert!((rate - four[2 * at]).abs() < 1e-12, "{two:?} {four:?}");
        }
        assert_eq!(
            four[3], 2.0,
            "at its full height with the last of the warm-up"
        );
    }

    #[test]
    fn where_rounds_are_not_known_the_rate_stays() {
        let linear = training(r#"{"schedule":"linear","learning_rate":0.5}"#);
        assert_eq!(linear.rate((7, 3), 8, 0), 0.5);
        assert_eq!(linear.rate((1, 0), 4, 1), 0.5);
        assert_eq!(linear.rate((1, 2), 4, 1), 0.25);
    }
}

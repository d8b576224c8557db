//! The time of a step.

use domain::profile::Sample;

use super::squares::{nonnegative, relative_error, separable};
use super::{SAMPLES, Term};

/// How much slower than the others explain a step must be to count as disturbed.
const DISTURBED: f64 = 1.25;

/// Samples from which attention is told apart: more than the terms, so that it is not made of noise.
const SQUARE_SAMPLES: usize = 5;

/// Seconds of a step, by what they grow with.
pub(super) struct Time {
    pub fixed: f64,
    pub per_token: f64,
    pub per_parameter: f64,
    pub per_square: f64,
    pub derived: Vec<Term>,
}

impl Time {
    pub(super) fn fit(samples: &[&Sample], derived_rate: f64) -> Self {
        let columns = columns(samples);
        let terms = Terms::of(samples, &columns);
        let [tokens, one, product, squares] = columns;
        let mut derived = Vec::new();
        let mut known = 0.0;
        if !terms.parameters {
            derived.push(Term::TimePerParameter);
            // `product` is the derived part of each step's time per unit of rate.
            known = bounded(derived_rate, &product);
        }
        if !terms.squares {
            derived.push(Term::TimePerSquare);
        }
        if !terms.fixed {
            derived.push(Term::TimeFixed);
        }
        let target: Vec<f64> = product.iter().map(|part| 1.0 - known * part).collect();
        let [per_token, fixed, per_parameter, per_square] = nonnegative(
            &[
                Some(tokens),
                terms.fixed.then_some(one),
                terms.parameters.then_some(product),
                terms.squares.then_some(squares),
            ],
            &target,
        );
        Self {
            fixed,
            per_token,
            per_parameter: known + per_parameter,
            per_square,
            derived,
        }
    }

    /// The model with a given time per token and parameter.
    fn with_rate(samples: &[&Sample], rate: f64) -> Self {
        let [tokens, one, product, _] = columns(samples);
        let rate = bounded(rate, &product);
        let target: Vec<f64> = product.iter().map(|part| 1.0 - rate * part).collect();
        let [per_token, fixed] = nonnegative(&[Some(tokens), Some(one)], &target);
        Self {
            fixed,
            per_token,
            per_parameter: rate,
            per_square: 0.0,
            derived: Vec::new(),
        }
    }

    pub(super) fn seconds(&self, sample: &Sample) -> f64 {
        let per_token = self.per_token + self.per_parameter * sample.parameters as f64;
        self.fixed + f64::from(sample.tokens) * per_token + self.per_square * sample.squares
    }
}

/// A derived rate, kept at no more than half of any step.
fn bounded(rate: f64, product: &[f64]) -> f64 {
    let most = product.iter().copied().fold(0.0, f64::max);
    if most > 0.0 {
        rate.min(0.5 / most)
    } else {
        rate
    }
}

/// Which terms the samples tell apart, beside that of the tokens.
#[derive(PartialEq, Eq)]
struct Terms {
    fixed: bool,
    parameters: bool,
    squares: bool,
}

impl Terms {
    fn of(samples: &[&Sample], columns: &[Vec<f64>; 4]) -> Self {
        let [fixed, parameters, squares] = separable(columns);
        Self {
            fixed,
            parameters,
            squares: squares && samples.len() >= SQUARE_SAMPLES,
        }
    }
}

/// Tokens, 1, tokens times parameters, and squares of each sample, each divided by the sample's seconds.
fn columns(samples: &[&Sample]) -> [Vec<f64>; 4] {
    let column = |figure: fn(&Sample) -> f64| -> Vec<f64> {
        samples.iter().map(|s| figure(s) / s.step_seconds).collect()
    };
    [
        column(|s| f64::from(s.tokens)),
        column(|_| 1.0),
        column(|s| f64::from(s.tokens) * s.parameters as f64),
        column(|s| s.squares),
    ]
}

/// The one step that took longer than the others explain. With four samples the time per parameter is
/// taken as derived, since three steps would explain three terms exactly, whatever they are.
pub(super) fn disturbed(samples: &[&Sample], derived_rate: f64) -> Option<usize> {
    if samples.len() <= SAMPLES {
        return None;
    }
    // Whether attention is told apart does not matter to whether a step was disturbed.
    let terms = |samples: &[&Sample]| {
        let terms = Terms::of(samples, &columns(samples));
        (terms.fixed, terms.parameters)
    };
    let needed = terms(samples);
    let mut best: Option<(usize, f64)> = None;
    for (index, suspect) in samples.iter().enumerate() {
        let others = samples.iter().enumerate().filter(|(i, _)| *i != index);
        let others: Vec<&Sample> = others.map(|(_, sample)| *sample).collect();
        if terms(&others) != needed {
            continue;
        }
        let model = if others.len() > SAMPLES {
            Time::fit(&others, derived_rate)
        } else {
            Time::with_rate(&others, derived_rate)
        };
        let error = |s: &&Sample| relative_error(model.seconds(s), s.step_seconds);
        let error = others.iter().map(error).fold(0.0, f64::max);
        let ratio = suspect.step_seconds / model.seconds(suspect).max(f64::MIN_POSITIVE);
        let outside = ratio > DISTURBED && ratio - 1.0 > 4.0 * error;
        if outside && best.is_none_or(|(_, least)| error < least) {
            best = Some((index, error));
        }
    }
    best.map(|(index, _)| index)
}

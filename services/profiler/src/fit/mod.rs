//! Fits a worker's cost model to the rounds it measured.
//!
//! Two models, each linear with coefficients that are never negative:
//! `seconds = fixed + tokens · (per_token + per_token_parameter · parameters)` and
//! `bytes = fixed + per_token · tokens + per_parameter · parameters`. Errors are relative, so that small
//! and large steps count alike. A prediction is therefore never negative. Time goes by the tokens of the
//! step that was timed, memory by those of the round's longest. Scoring has a memory model of its own,
//! `bytes = fixed + per_token · tokens`, for the merged adapter whose rank the job fixes.
//!
//! What the samples cannot tell apart is not guessed from noise (see [`Term`]):
//! - the same parameters in every sample: the time per token and parameter is 6 flop (2 forward, 4
//!   backward) at the flop rate of the worker's own forward passes, and at most half of any step;
//! - the same tokens in every sample: nothing is fixed, all is charged to the tokens;
//! - memory is never less than the loaded base and 16 bytes per trainable parameter (its weight, its
//!   gradient and AdamW's two moments, 4 bytes each); only what is measured beyond that is fitted.
//!
//! With four samples or more, one step that was disturbed (it took longer than the others explain) is
//! left out of the time model, if the others still tell all terms apart. A peak of memory is never
//! left out: it did happen. How far memory may be above the model is measured, too: each peak is
//! predicted from the other samples alone, and the worst that it was above that is the model's error.

mod squares;

#[cfg(test)]
mod tests;

use domain::id::WorkerName;
use domain::profile::{CostModel, Measurement, Profile, Sample};
use squares::{nonnegative, relative_error, separable};

/// Samples that a fit needs at least.
pub const SAMPLES: usize = 3;

/// Bytes that a trainable parameter takes at least: weight, gradient and two moments in 32 bits.
pub const PARAMETER_BYTES: f64 = 16.0;

/// Floating point operations per token and adapter parameter: 2 forward, 4 backward.
const PARAMETER_FLOP: f64 = 6.0;

/// How much slower than the others explain a step must be to count as disturbed.
const DISTURBED: f64 = 1.25;

/// Why nothing can be fitted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// Fewer samples than [`SAMPLES`].
    #[error("{found} steps were measured, a cost model needs at least {SAMPLES}")]
    TooFew {
        /// How many there are.
        found: usize,
    },
    /// A figure that is not a positive number.
    #[error("the measured {figure} is {value}, which is not a positive number")]
    Figure {
        /// Which figure.
        figure: &'static str,
        /// Its value.
        value: f64,
    },
}

/// A coefficient that the samples could not tell apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// Seconds of a step whatever its size; taken as 0.
    TimeFixed,
    /// Seconds per token and parameter; derived from the flop rate.
    TimePerParameter,
    /// Bytes whatever the step's size; taken as the base's.
    MemoryFixed,
    /// Bytes per parameter; taken as [`PARAMETER_BYTES`].
    MemoryPerParameter,
}

/// A fitted cost model and how well it explains the samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The model.
    pub cost: CostModel,
    /// Largest relative error of the step time over the samples that were used.
    pub time_error: f64,
    /// How far a peak was above what the other samples predict of it, relative, at the worst; where
    /// the others could not tell all terms apart: above the model fitted to all.
    pub memory_error: f64,
    /// Index of the sample that was left out of the time model, if any.
    pub ignored: Option<usize>,
    /// Coefficients that were derived and not measured.
    pub derived: Vec<Term>,
}

/// Fits the cost model to a worker's measurement.
///
/// # Errors
/// With fewer than three samples, or if a figure is not a positive number.
pub fn fit(measurement: &Measurement) -> Result<Fit, Error> {
    let samples = &measurement.samples;
    if samples.len() < SAMPLES {
        let found = samples.len();
        return Err(Error::TooFew { found });
    }
    for sample in samples {
        positive("step time", sample.step_seconds)?;
        positive("number of tokens", f64::from(sample.tokens))?;
        positive("peak of memory", sample.peak_memory_bytes as f64)?;
    }
    for pass in &measurement.scoring {
        positive("peak of scoring", pass.peak_memory_bytes as f64)?;
    }
    let all: Vec<&Sample> = samples.iter().collect();
    let derived_rate = seconds_per_token_parameter(measurement);
    let ignored = disturbed(&all, derived_rate);
    let without = |index| all.iter().enumerate().filter(move |(i, _)| *i != index);
    let used = match ignored {
        None => all.clone(),
        Some(index) => without(index).map(|(_, sample)| *sample).collect(),
    };
    let time = Time::fit(&used, derived_rate);
    let base = measurement.base_memory_bytes as f64;
    let memory = Memory::fit(&all, base);
    let (scoring_fixed, scoring_per_token) = scoring(&measurement.scoring, base);
    let cost = CostModel {
        seconds_fixed: time.fixed,
        seconds_per_token: time.per_token,
        seconds_per_token_parameter: time.per_parameter,
        memory_fixed: memory.fixed,
        memory_per_token: memory.per_token,
        memory_per_parameter: memory.per_parameter,
        scoring_memory_fixed: scoring_fixed,
        scoring_memory_per_token: scoring_per_token,
    };
    let mut derived = time.derived;
    derived.extend(&memory.derived);
    let seconds = |sample: &&Sample| {
        let predicted = cost.step_seconds(f64::from(sample.tokens), sample.parameters);
        relative_error(predicted, sample.step_seconds)
    };
    Ok(Fit {
        time_error: used.iter().map(seconds).fold(0.0, f64::max),
        memory_error: memory_error(&all, &memory, base),
        cost,
        ignored,
        derived,
    })
}

/// Fits and wraps: a worker's profile.
///
/// # Errors
/// As [`fit`].
pub fn profile(worker: WorkerName, measurement: Measurement) -> Result<Profile, Error> {
    let fit = fit(&measurement)?;
    Ok(Profile {
        worker,
        measurement,
        cost: fit.cost,
        fit_error: fit.time_error,
        memory_error: fit.memory_error,
    })
}

fn positive(figure: &'static str, value: f64) -> Result<(), Error> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(Error::Figure { figure, value })
    }
}

/// 6 flop at the rate of the forward passes, which take 2 flop per token and weight. The weights are
/// the adaptable ones alone, so the rate is, if anything, too low and the figure too high.
fn seconds_per_token_parameter(measurement: &Measurement) -> f64 {
    let weights = measurement.weights.iter();
    let weights: f64 = weights.map(|w| w.out as f64 * w.inp as f64).sum();
    let flop_rate = 2.0 * weights * measurement.forward_tokens_per_second;
    if flop_rate.is_finite() && flop_rate > 0.0 {
        PARAMETER_FLOP / flop_rate
    } else {
        0.0
    }
}

struct Time {
    fixed: f64,
    per_token: f64,
    per_parameter: f64,
    derived: Vec<Term>,
}

impl Time {
    fn fit(samples: &[&Sample], derived_rate: f64) -> Self {
        let [tokens, one, product] = time_columns(samples);
        let (has_fixed, has_parameters) = separable(&tokens, &one, &product);
        let mut derived = Vec::new();
        let mut known = 0.0;
        if !has_parameters {
            derived.push(Term::TimePerParameter);
            // `product` is the derived part of each step's time per unit of rate.
            let most = product.iter().copied().fold(0.0, f64::max);
            known = if most > 0.0 {
                derived_rate.min(0.5 / most)
            } else {
                derived_rate
            };
        }
        if !has_fixed {
            derived.push(Term::TimeFixed);
        }
        let target: Vec<f64> = product.iter().map(|part| 1.0 - known * part).collect();
        let [per_token, fixed, per_parameter] = nonnegative(
            &[
                Some(tokens),
                has_fixed.then_some(one),
                has_parameters.then_some(product),
            ],
            &target,
        );
        Self {
            fixed,
            per_token,
            per_parameter: known + per_parameter,
            derived,
        }
    }
}

/// Tokens, 1, and tokens times parameters of each sample, each divided by the sample's seconds.
fn time_columns(samples: &[&Sample]) -> [Vec<f64>; 3] {
    let column = |figure: fn(&Sample) -> f64| -> Vec<f64> {
        samples.iter().map(|s| figure(s) / s.step_seconds).collect()
    };
    [
        column(|s| f64::from(s.tokens)),
        column(|_| 1.0),
        column(|s| f64::from(s.tokens) * s.parameters as f64),
    ]
}

struct Memory {
    fixed: f64,
    per_token: f64,
    per_parameter: f64,
    derived: Vec<Term>,
}

impl Memory {
    fn fit(samples: &[&Sample], base: f64) -> Self {
        let column = |figure: &dyn Fn(&Sample) -> f64| -> Vec<f64> {
            let relative = |s: &&Sample| figure(s) / s.peak_memory_bytes as f64;
            samples.iter().map(relative).collect()
        };
        let tokens = column(&Sample::peak_tokens);
        let one = column(&|_| 1.0);
        let parameters = column(&|s| s.parameters as f64);
        let (has_fixed, has_parameters) = separable(&tokens, &one, &parameters);
        let mut derived = Vec::new();
        if !has_parameters {
            derived.push(Term::MemoryPerParameter);
        }
        if !has_fixed {
            derived.push(Term::MemoryFixed);
        }
        let known = |s: &Sample| base + PARAMETER_BYTES * s.parameters as f64;
        let target = column(&|s| (s.peak_memory_bytes as f64 - known(s)).max(0.0));
        let [per_token, fixed, per_parameter] = nonnegative(
            &[
                Some(tokens),
                has_fixed.then_some(one),
                has_parameters.then_some(parameters),
            ],
            &target,
        );
        Self {
            fixed: base + fixed,
            per_token,
            per_parameter: PARAMETER_BYTES + per_parameter,
            derived,
        }
    }
}

impl Memory {
    /// By how much a sample's peak is above the model, relative; 0 if it is below.
    fn above(&self, sample: &Sample) -> f64 {
        let predicted = self.fixed
            + self.per_token * sample.peak_tokens()
            + self.per_parameter * sample.parameters as f64;
        (sample.peak_memory_bytes as f64 / predicted - 1.0).max(0.0)
    }
}

/// The worst that a sample is above what the others predict of it, where they still tell all terms
/// apart; and never less than above the model of all.
fn memory_error(samples: &[&Sample], model: &Memory, base: f64) -> f64 {
    let apart = (0..samples.len()).filter_map(|index| {
        let others = samples.iter().enumerate().filter(|(i, _)| *i != index);
        let others: Vec<&Sample> = others.map(|(_, sample)| *sample).collect();
        let without = Memory::fit(&others, base);
        let comparable = others.len() >= SAMPLES && without.derived == model.derived;
        let sample = samples.get(index).filter(|_| comparable)?;
        Some(without.above(sample))
    });
    let within = samples.iter().map(|sample| model.above(sample));
    within.chain(apart).fold(0.0, f64::max)
}

/// Bytes of scoring whatever the tokens, and per token: the line through the smallest and the largest
/// pass. With one pass alone everything beyond the base is charged to its tokens.
fn scoring(passes: &[Sample], base: f64) -> (f64, f64) {
    let by_tokens = |a: &&Sample, b: &&Sample| a.peak_tokens().total_cmp(&b.peak_tokens());
    let smallest = passes.iter().min_by(by_tokens);
    let largest = passes.iter().max_by(by_tokens);
    let (Some(small), Some(large)) = (smallest, largest) else {
        return (0.0, 0.0);
    };
    let bytes = |pass: &Sample| pass.peak_memory_bytes as f64;
    let more = large.peak_tokens() - small.peak_tokens();
    let per_token = if more > 0.0 {
        ((bytes(large) - bytes(small)) / more).max(0.0)
    } else {
        (bytes(large) - base).max(0.0) / large.peak_tokens().max(1.0)
    };
    let fixed = (bytes(large) - per_token * large.peak_tokens()).max(base);
    (fixed, per_token)
}

/// The one step that took longer than the others explain. With four samples the time per parameter is
/// taken as derived, since three steps would explain three terms exactly, whatever they are.
fn disturbed(samples: &[&Sample], derived_rate: f64) -> Option<usize> {
    if samples.len() <= SAMPLES {
        return None;
    }
    let terms = |samples: &[&Sample]| {
        let [tokens, one, product] = time_columns(samples);
        separable(&tokens, &one, &product)
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

impl Time {
    /// The model with a given time per token and parameter.
    fn with_rate(samples: &[&Sample], rate: f64) -> Self {
        let [tokens, one, product] = time_columns(samples);
        let most = product.iter().copied().fold(0.0, f64::max);
        let rate = if most > 0.0 {
            rate.min(0.5 / most)
        } else {
            rate
        };
        let target: Vec<f64> = product.iter().map(|part| 1.0 - rate * part).collect();
        let [per_token, fixed, _] = nonnegative(&[Some(tokens), Some(one), None], &target);
        Self {
            fixed,
            per_token,
            per_parameter: rate,
            derived: Vec::new(),
        }
    }

    fn seconds(&self, sample: &Sample) -> f64 {
        let per_token = self.per_token + self.per_parameter * sample.parameters as f64;
        self.fixed + f64::from(sample.tokens) * per_token
    }
}

//! Fits a worker's cost models, one for each mode, to the rounds it measured.
//!
//! Two models, each linear with coefficients that are never negative:
//! `seconds = fixed + tokens · (per_token + per_token_parameter · parameters) + per_square · Σ rows²` and
//! `bytes = fixed + per_token · tokens + per_block_token · min(tokens, block) + per_parameter · parameters`, where the
//! logits of no more than a block of tokens exist together. Errors are relative, so that small
//! and large steps count alike. A prediction is therefore never negative. Time goes by the tokens of the
//! step that was timed, memory by those of the round's longest. Scoring has a memory model of its own,
//! `bytes = fixed + per_token · tokens`, for the merged adapter whose rank the job fixes.
//!
//! What the samples cannot tell apart is not guessed from noise (see [`Term`]):
//! - the same parameters in every sample: the time per token and parameter follows from the flop rate of
//!   the worker's own forward passes, and is at most half of any step;
//! - the same tokens in every sample: nothing is fixed, all is charged to the tokens;
//! - rows of one length, or no more samples than terms: attention is charged to the tokens;
//! - steps on one side of the block alone, or no more samples than terms: logits are charged to the tokens;
//! - memory is never less than the loaded base and what a trainable parameter takes at least (first-order
//!   16 bytes: its weight, its gradient and AdamW's two moments; zeroth-order 4: its weight); only what
//!   is measured beyond that is fitted.
//!
//! With four samples or more, one step that was disturbed (it took longer than the others explain) is
//! left out of the time model, if the others still tell all terms apart. A peak of memory is never
//! left out: it did happen. How far memory may be above the model is measured, too: each peak is
//! predicted from the other samples alone, and the worst that it was above that is the model's error.

mod memory;
mod squares;
mod time;

#[cfg(test)]
mod tests;

use domain::figure::is_number;
use domain::id::WorkerName;
use domain::job::spec::Optimizer;
use domain::profile::{
    CostModel, Measurement, Mode, ModeMeasurement, ModeProfile, Profile, Sample,
};
use memory::{Memory, memory_error, scoring};
use squares::relative_error;
use time::{Time, disturbed};

/// Samples that a fit needs at least.
pub const SAMPLES: usize = 3;

/// Why nothing can be fitted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// No mode at all, as in reports of before there were any.
    #[error("nothing was measured in a way that this version knows")]
    Nothing,
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
    /// Samples so far apart that no number expresses what follows from them.
    #[error(
        "a cost model with {value} in it follows from what was measured, which nothing can be planned with"
    )]
    Unbounded {
        /// A coefficient of the model, or an error of it.
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
    /// Seconds per square of a row's tokens; charged to the tokens.
    TimePerSquare,
    /// Bytes whatever the step's size; taken as the base's.
    MemoryFixed,
    /// Bytes per parameter; taken as what a parameter takes at least.
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

/// Fits the cost model of one mode of a worker's measurement.
///
/// # Errors
/// With fewer than three samples, if a figure is not a positive number, or if no model that can be stored follows.
pub fn fit(measurement: &Measurement, mode: &ModeMeasurement) -> Result<Fit, Error> {
    let samples = &mode.samples;
    if samples.len() < SAMPLES {
        let found = samples.len();
        return Err(Error::TooFew { found });
    }
    for sample in samples {
        positive("step time", sample.step_seconds)?;
        positive("number of tokens", f64::from(sample.tokens))?;
        positive("peak of memory", sample.peak_memory_bytes as f64)?;
    }
    for pass in &mode.scoring {
        positive("peak of scoring", pass.peak_memory_bytes as f64)?;
    }
    let all: Vec<&Sample> = samples.iter().collect();
    let derived_rate = seconds_per_token_parameter(measurement, &mode.mode);
    let ignored = disturbed(&all, derived_rate);
    let without = |index| all.iter().enumerate().filter(move |(i, _)| *i != index);
    let used = match ignored {
        None => all.clone(),
        Some(index) => without(index).map(|(_, sample)| *sample).collect(),
    };
    let time = Time::fit(&used, derived_rate);
    let floor = memory::Floor {
        base: mode.base_memory_bytes as f64,
        per_parameter: parameter_bytes(&mode.mode),
    };
    let memory = Memory::fit(&all, floor);
    let (scoring_fixed, scoring_per_token) = scoring(&mode.scoring, floor.base);
    let cost = CostModel {
        seconds_fixed: time.fixed,
        seconds_per_token: time.per_token,
        seconds_per_token_parameter: time.per_parameter,
        seconds_per_square: time.per_square,
        memory_fixed: memory.fixed,
        memory_per_token: memory.per_token,
        memory_per_block_token: memory.per_block_token,
        memory_per_parameter: memory.per_parameter,
        scoring_memory_fixed: scoring_fixed,
        scoring_memory_per_token: scoring_per_token,
    };
    let seconds = |sample: &&Sample| relative_error(time.seconds(sample), sample.step_seconds);
    let mut derived = time.derived.clone();
    derived.extend(&memory.derived);
    let time_error = used.iter().map(seconds).fold(0.0, f64::max);
    let memory_error = memory_error(&all, &memory, floor);
    let mut fitted = cost.coefficients().into_iter();
    let mut errors = [time_error, memory_error].into_iter();
    let beyond = |value: &f64| !is_number(*value);
    if let Some(value) = fitted.find(beyond).or_else(|| errors.find(beyond)) {
        return Err(Error::Unbounded { value });
    }
    Ok(Fit {
        time_error,
        memory_error,
        cost,
        ignored,
        derived,
    })
}

/// Fits every mode and wraps them: a worker's profile.
///
/// # Errors
/// As [`fit`], for any mode; and if none was measured.
pub fn profile(worker: WorkerName, measurement: Measurement) -> Result<Profile, Error> {
    if measurement.modes.is_empty() {
        return Err(Error::Nothing);
    }
    let fitted = measurement.modes.iter().map(|mode| {
        let fit = fit(&measurement, mode)?;
        Ok(ModeProfile {
            mode: mode.mode.clone(),
            cost: fit.cost,
            fit_error: fit.time_error,
            memory_error: fit.memory_error,
            observations: 0,
        })
    });
    let modes = fitted.collect::<Result<_, _>>()?;
    Ok(Profile {
        worker,
        measurement,
        modes,
        refined_to: 0,
        settled_to: 0,
        weighed_to: 0,
    })
}

fn positive(figure: &'static str, value: f64) -> Result<(), Error> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(Error::Figure { figure, value })
    }
}

/// Bytes that a trainable parameter takes at least, in 32 bits: with gradients it, its gradient and two
/// moments (SGD has none, or one); without, itself.
#[must_use]
pub fn parameter_bytes(mode: &Mode) -> f64 {
    match mode.optimizer {
        Optimizer::Mezo => 4.0,
        // Without momentum its one buffer of the adapter's size stays empty.
        Optimizer::Sgd => 8.0,
        Optimizer::Adamw | Optimizer::Auto => 16.0,
    }
}

/// Floating point operations per token and adapter parameter: 2 each forward, 4 backward.
fn parameter_flop(mode: &Mode) -> f64 {
    match (mode.optimizer, mode.checkpoint) {
        (Optimizer::Mezo, _) => 4.0,
        (_, false) => 6.0,
        (_, true) => 8.0,
    }
}

/// Those operations at the rate of the forward passes, which take 2 flop per token and weight. The
/// weights are the adaptable ones alone, so the rate is, if anything, too low and the figure too high.
fn seconds_per_token_parameter(measurement: &Measurement, mode: &Mode) -> f64 {
    let weights = measurement.weights.iter();
    let weights: f64 = weights.map(|w| w.out as f64 * w.inp as f64).sum();
    let flop_rate = 2.0 * weights * measurement.forward_tokens_per_second;
    if flop_rate.is_finite() && flop_rate > 0.0 {
        parameter_flop(mode) / flop_rate
    } else {
        0.0
    }
}

//! Keeps a fitted model true: each undisturbed round's observation scales it. Nothing calls it yet:
//! plans of a running job do not change in this version.

use domain::profile::{CostModel, Profile};
use domain::round::UpdateMetrics;

/// Share of an observation's ratio that is taken over; the rest is what was known before.
const TRUST: f64 = 0.3;

/// The same for memory that turned out smaller than predicted.
const TRUST_LESS_MEMORY: f64 = 0.1;

/// The most that one observation may claim to differ, either way.
const LARGEST_RATIO: f64 = 2.0;

/// What a round showed of one worker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// Mean tokens of a step.
    pub tokens: f64,
    /// Tokens of the longest step possible: records of a step times tokens of a record at most.
    pub longest_tokens: f64,
    /// Trainable parameters.
    pub parameters: u64,
    /// Mean seconds of a step.
    pub step_seconds: f64,
    /// Peak of the heap, in bytes.
    pub peak_memory_bytes: u64,
}

impl Observation {
    /// From a worker's figures of a round; `None` if it made no step.
    #[must_use]
    pub fn of(metrics: &UpdateMetrics, parameters: u64, longest_tokens: f64) -> Option<Self> {
        let steps = f64::from(metrics.steps);
        (metrics.steps > 0).then(|| Self {
            tokens: metrics.tokens as f64 / steps,
            longest_tokens,
            parameters,
            step_seconds: metrics.compute_seconds / steps,
            peak_memory_bytes: metrics.peak_memory_bytes,
        })
    }
}

/// The profile after a round: time and memory are scaled by a power of observed over predicted (an
/// exponentially weighted mean of the ratios), the fit's error follows in the same way. Memory goes up
/// at once, because a worker that passes its limit dies, and down slowly. Which step made the peak is
/// not known, so memory goes up only if the peak is above what the longest step explains, and down only
/// if it is below what a mean step does. The time's shape, what is fixed and what goes by tokens, stays
/// as it was measured. An observation that is not a positive number changes nothing.
#[must_use]
pub fn refine(profile: &Profile, observation: &Observation) -> Profile {
    let mut refined = profile.clone();
    let cost = &profile.cost;
    let (tokens, parameters) = (observation.tokens, observation.parameters);
    let seconds = cost.step_seconds(tokens, parameters);
    if let Some(ratio) = ratio(observation.step_seconds, seconds) {
        let scale = ratio.powf(TRUST);
        refined.cost.seconds_fixed *= scale;
        refined.cost.seconds_per_token *= scale;
        refined.cost.seconds_per_token_parameter *= scale;
        let error = (ratio - 1.0).abs();
        refined.fit_error = (1.0 - TRUST) * profile.fit_error + TRUST * error;
    }
    let peak = observation.peak_memory_bytes as f64;
    let longest = observation.longest_tokens.max(tokens);
    let above = ratio(peak, cost.peak_memory_bytes(longest, parameters));
    let below = ratio(peak, cost.peak_memory_bytes(tokens, parameters));
    match (above, below) {
        (Some(ratio), _) if ratio > 1.0 => scale_memory(&mut refined.cost, ratio),
        (_, Some(ratio)) if ratio < 1.0 => {
            scale_memory(&mut refined.cost, ratio.powf(TRUST_LESS_MEMORY));
        }
        _ => {}
    }
    refined
}

fn scale_memory(cost: &mut CostModel, scale: f64) {
    cost.memory_fixed *= scale;
    cost.memory_per_token *= scale;
    cost.memory_per_parameter *= scale;
}

fn ratio(observed: f64, predicted: f64) -> Option<f64> {
    let ratio = observed / predicted;
    let sound = observed > 0.0 && predicted > 0.0 && ratio.is_finite();
    sound.then(|| ratio.clamp(1.0 / LARGEST_RATIO, LARGEST_RATIO))
}

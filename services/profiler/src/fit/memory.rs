//! The peak of memory, of training and of scoring.

use domain::profile::{SCORED_PARAMETER_BYTES, Sample, block_tokens};

use super::squares::{nonnegative, separable};
use super::{SAMPLES, Term};

/// What no prediction goes below: only what is measured beyond it is fitted.
#[derive(Clone, Copy)]
pub(super) struct Floor {
    /// Bytes of the loaded base.
    pub base: f64,
    /// Bytes of a trainable parameter.
    pub per_parameter: f64,
}

/// Bytes of a round, by what they grow with.
pub(super) struct Memory {
    pub fixed: f64,
    pub per_token: f64,
    pub per_block_token: f64,
    pub per_parameter: f64,
    pub derived: Vec<Term>,
}

impl Memory {
    pub(super) fn fit(samples: &[&Sample], floor: Floor) -> Self {
        let column = |figure: &dyn Fn(&Sample) -> f64| -> Vec<f64> {
            let relative = |s: &&Sample| figure(s) / s.peak_memory_bytes as f64;
            samples.iter().map(relative).collect()
        };
        let columns = [
            column(&Sample::peak_tokens),
            column(&|_| 1.0),
            column(&|s| s.parameters as f64),
            column(&|s| block_tokens(s.peak_tokens())),
        ];
        let [has_fixed, has_parameters, has_block] = separable(&columns);
        let [tokens, one, parameters, block] = columns;
        let mut derived = Vec::new();
        if !has_parameters {
            derived.push(Term::MemoryPerParameter);
        }
        if !has_fixed {
            derived.push(Term::MemoryFixed);
        }
        let known = |s: &Sample| floor.base + floor.per_parameter * s.parameters as f64;
        let target = column(&|s| (s.peak_memory_bytes as f64 - known(s)).max(0.0));
        let [per_token, fixed, per_parameter, per_block_token] = nonnegative(
            &[
                Some(tokens),
                has_fixed.then_some(one),
                has_parameters.then_some(parameters),
                has_block.then_some(block),
            ],
            &target,
        );
        Self {
            fixed: floor.base + fixed,
            per_token,
            per_block_token,
            per_parameter: floor.per_parameter + per_parameter,
            derived,
        }
    }

    /// By how much a sample's peak is above the model, relative; 0 if it is below.
    fn above(&self, sample: &Sample) -> f64 {
        let predicted = self.fixed
            + self.per_token * sample.peak_tokens()
            + self.per_block_token * block_tokens(sample.peak_tokens())
            + self.per_parameter * sample.parameters as f64;
        (sample.peak_memory_bytes as f64 / predicted - 1.0).max(0.0)
    }
}

/// The worst that a sample is above what the others predict of it, where they still tell all terms
/// apart; and never less than above the model of all.
pub(super) fn memory_error(samples: &[&Sample], model: &Memory, floor: Floor) -> f64 {
    let apart = (0..samples.len()).filter_map(|index| {
        let others = samples.iter().enumerate().filter(|(i, _)| *i != index);
        let others: Vec<&Sample> = others.map(|(_, sample)| *sample).collect();
        let without = Memory::fit(&others, floor);
        let comparable = others.len() >= SAMPLES && without.derived == model.derived;
        let sample = samples.get(index).filter(|_| comparable)?;
        Some(without.above(sample))
    });
    let within = samples.iter().map(|sample| model.above(sample));
    within.chain(apart).fold(0.0, f64::max)
}

/// Bytes of scoring whatever the tokens, and per token: the line through the smallest and the largest
/// pass. With one pass alone everything beyond the base and the adapter that it holds is charged to its tokens.
pub(super) fn scoring(passes: &[Sample], base: f64) -> (f64, f64) {
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
        let held = SCORED_PARAMETER_BYTES * large.parameters as f64;
        (bytes(large) - base - held).max(0.0) / large.peak_tokens().max(1.0)
    };
    let fixed = (bytes(large) - per_token * large.peak_tokens()).max(base);
    (fixed, per_token)
}

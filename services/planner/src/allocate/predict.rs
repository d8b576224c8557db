//! What a choice of rank and batch costs at one worker, by its cost model.

use domain::adapter::{RankTable, WeightShape};
use domain::job::spec::{Base, Optimizer, Spec};
use domain::plan::{Prediction, scoring_rows};
use domain::profile::{Measurement, ModeProfile, Profile};

/// Least share of time kept free, however well the fit explains its samples: they are few, and a fit
/// with as many coefficients as samples has no error to show.
const LEAST_TIME_MARGIN: f64 = 0.05;

/// Least share of memory kept free, for the same reason. What counts against a limit changes by whole
/// stacks of threads that come and go, which no sample may have met.
const LEAST_MEMORY_MARGIN: f64 = 0.02;

/// Bytes that a tensor's entry takes in the header of its file, about.
const HEADER_ENTRY_BYTES: u64 = 160;

/// Bytes of the file of an adapter with these ranks: 4 per parameter, and the header.
#[must_use]
pub fn adapter_bytes(ranks: &RankTable, weights: &[WeightShape]) -> u64 {
    let tensors = 2 * ranks.trained().count() as u64;
    4 * ranks.parameters(weights) + HEADER_ENTRY_BYTES * tensors
}

/// The mode that is planned: first-order without checkpointing, the fastest of those that the job allows;
/// the first of equals. With `auto` bases that is among the bases that were measured.
pub(super) fn mode<'a>(profile: &'a Profile, spec: &Spec) -> Option<&'a ModeProfile> {
    let measured = &profile.measurement;
    let allowed = profile.modes.iter().filter(|fitted| {
        let mode = &fitted.mode;
        let base = matches!(spec.precision.base, Base::Auto) || spec.precision.base == mode.base;
        base && !mode.checkpoint && mode.optimizer == Optimizer::Adamw
    });
    let seconds = |fitted: &ModeProfile| step_seconds(measured, fitted, spec, 4, 0);
    allowed.min_by(|left, right| seconds(left).total_cmp(&seconds(right)))
}

/// Seconds of a step over so many records of the mean length.
fn step_seconds(
    measured: &Measurement,
    mode: &ModeProfile,
    spec: &Spec,
    batch: u16,
    parameters: u64,
) -> f64 {
    let (batch, longest) = (f64::from(batch), f64::from(spec.training.sequence_length));
    let mean = measured.mean_tokens.min(longest);
    let squares = measured.mean_squares().min(longest * longest);
    let cost = &mode.cost;
    cost.step_seconds(batch * mean, batch * squares, parameters)
}

/// The cost of training `ranks` with `batch` records a step, and of scoring if the job asks for it. Time
/// goes by the mean record; memory goes by the longest batch possible, whose records all have the job's
/// sequence length, and by the larger of training and scoring. A transfer whose
/// rate was not measured counts as no time.
pub(super) fn predict(
    measured: &Measurement,
    mode: &ModeProfile,
    spec: &Spec,
    ranks: &RankTable,
    batch: u16,
    download_bytes: u64,
) -> Prediction {
    let parameters = ranks.parameters(&measured.weights);
    let upload_bytes = adapter_bytes(ranks, &measured.weights);
    let longest = f64::from(spec.training.sequence_length);
    let step_seconds = step_seconds(measured, mode, spec, batch, parameters);
    let training = mode
        .cost
        .peak_memory_bytes(f64::from(batch) * longest, parameters);
    let scoring = spec.evaluation.as_ref().map_or(0.0, |evaluation| {
        let rows = scoring_rows(batch, evaluation.choices.len()) as f64;
        mode.cost.scoring_memory_bytes(rows * longest)
    });
    let peak = training.max(scoring);
    let transfer = |bytes: u64, rate: f64| if rate > 0.0 { bytes as f64 / rate } else { 0.0 };
    Prediction {
        step_seconds,
        round_seconds: f64::from(spec.training.local_steps) * step_seconds
            + transfer(upload_bytes, measured.upload_bytes_per_second)
            + transfer(download_bytes, measured.download_bytes_per_second)
            + 2.0 * measured.round_trip_ms.max(0.0) / 1000.0,
        peak_memory_bytes: peak.ceil() as u64,
        upload_bytes,
    }
}

/// Share of memory kept free: how far a measured peak was above what the other measurements predict
/// of it, at least 2 %.
pub(super) const fn memory_margin(mode: &ModeProfile) -> f64 {
    mode.memory_error.max(LEAST_MEMORY_MARGIN)
}

/// Share of time kept free before a deadline: the fit's own error, at least 5 %.
pub(super) const fn time_margin(mode: &ModeProfile) -> f64 {
    mode.fit_error.max(LEAST_TIME_MARGIN)
}

/// Bytes that a worker must have for a predicted peak.
pub(super) fn needed_bytes(prediction: &Prediction, margin: f64) -> f64 {
    prediction.peak_memory_bytes as f64 * (1.0 + margin)
}

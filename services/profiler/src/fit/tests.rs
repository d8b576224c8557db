use domain::adapter::{Encoder, Projection, WeightName, WeightShape};
use domain::job::spec::Base;
use domain::profile::SCORED_PARAMETER_BYTES;

use super::*;

const MIB: f64 = 1024.0 * 1024.0;

fn truth() -> CostModel {
    CostModel {
        seconds_fixed: 0.08,
        seconds_per_token: 5e-3,
        seconds_per_token_parameter: 4e-10,
        seconds_per_square: 0.0,
        memory_fixed: 700.0 * MIB,
        memory_per_token: 1.5 * MIB,
        memory_per_block_token: 0.0,
        memory_per_parameter: 20.0,
        scoring_memory_fixed: 0.0,
        scoring_memory_per_token: 0.0,
    }
}

/// The samples that `cost` would give, each time multiplied by its noise.
fn measured(cost: &CostModel, shapes: &[(u16, u64)], noise: &[f64]) -> Measurement {
    let sample = |((batch, parameters), noise): (&(u16, u64), &f64)| {
        let tokens = u32::from(*batch) * 100;
        Sample {
            batch: *batch,
            tokens,
            squares: f64::from(*batch) * 1e4,
            longest_tokens: 0,
            parameters: *parameters,
            step_seconds: cost.step_seconds(f64::from(tokens), 0.0, *parameters) * noise,
            peak_memory_bytes: cost.peak_memory_bytes(f64::from(tokens), *parameters) as u64,
        }
    };
    Measurement {
        model: None,
        weights: vec![WeightShape {
            name: WeightName::new(0, Projection::Q),
            out: 10_000,
            inp: 10_000,
        }],
        encoder: Encoder::Bert,
        layers: 1,
        memory_limit_bytes: 4 << 30,
        threads: 1,
        modes: vec![ModeMeasurement {
            mode: mode(Optimizer::Adamw),
            base_memory_bytes: (600.0 * MIB) as u64,
            samples: shapes.iter().zip(noise).map(sample).collect(),
            scoring: Vec::new(),
            loss: None,
        }],
        noise: None,
        importance: None,
        // 2 · 1e8 · 75 flop a second, so 6 flop take 4e-10 seconds.
        forward_tokens_per_second: 75.0,
        upload_bytes_per_second: 1e7,
        download_bytes_per_second: 1e7,
        round_trip_ms: 1.0,
        records: 100,
        held_out: 10,
        skipped: 0,
        mean_tokens: 100.0,
        mean_squares: 1e4,
    }
}

fn mode(optimizer: Optimizer) -> Mode {
    Mode {
        base: Base::Source,
        kernel: "test".to_owned(),
        checkpoint: false,
        optimizer,
    }
}

/// Fits the only mode of a measurement.
fn fit(measurement: &Measurement) -> Result<Fit, Error> {
    super::fit(measurement, &measurement.modes[0])
}

const M: u64 = 1_000_000;
const THREE: [(u16, u64); 3] = [(1, M), (8, M), (4, 20 * M)];
const SIX: [(u16, u64); 6] = [
    (1, M),
    (2, M),
    (8, M),
    (1, 20 * M),
    (4, 20 * M),
    (8, 20 * M),
];

fn close(found: f64, expected: f64, within: f64) {
    let off = (found - expected).abs() / expected.abs();
    assert!(off <= within, "{found} instead of {expected}");
}

/// Compares predictions over the whole range, inside and outside the samples.
fn check(found: &CostModel, within: f64) {
    let expected = truth();
    for batch in [1.0, 4.0, 32.0] {
        for parameters in [M, 5 * M, 40 * M] {
            let tokens = batch * 100.0;
            let seconds = found.step_seconds(tokens, batch * 1e4, parameters);
            close(
                seconds,
                expected.step_seconds(tokens, 0.0, parameters),
                within,
            );
            let bytes = found.peak_memory_bytes(tokens, parameters);
            close(
                bytes,
                expected.peak_memory_bytes(tokens, parameters),
                within,
            );
        }
    }
}

#[test]
fn three_clean_samples_give_the_truth() {
    let fit = fit(&measured(&truth(), &THREE, &[1.0; 3])).expect("fits");
    check(&fit.cost, 1e-3);
    assert!(fit.time_error < 1e-9 && fit.memory_error < 1e-6, "{fit:?}");
    assert_eq!(
        (fit.ignored, fit.derived.as_slice()),
        (None, &[Term::TimePerSquare][..])
    );
}

#[test]
fn small_noise_gives_nearly_the_truth_and_is_reported() {
    let noise = [1.02, 0.98, 1.01, 0.99, 1.02, 0.98];
    let fit = fit(&measured(&truth(), &SIX, &noise)).expect("fits");
    check(&fit.cost, 0.06);
    assert!((0.005..0.04).contains(&fit.time_error), "{fit:?}");
    assert_eq!(fit.ignored, None);
}

#[test]
fn one_disturbed_step_of_six_is_left_out() {
    for disturbed in 0..6 {
        let mut noise = [1.01, 0.99, 1.0, 1.01, 0.99, 1.0];
        noise[disturbed] = 2.0;
        let fit = fit(&measured(&truth(), &SIX, &noise)).expect("fits");
        assert_eq!(fit.ignored, Some(disturbed));
        check(&fit.cost, 0.06);
    }
}

#[test]
fn one_disturbed_step_of_four_is_left_out_if_the_others_tell_all_terms_apart() {
    let shapes = [(1, M), (8, M), (1, 20 * M), (8, 20 * M)];
    for disturbed in 0..4 {
        let mut noise = [1.0; 4];
        noise[disturbed] = 1.8;
        let fit = fit(&measured(&truth(), &shapes, &noise)).expect("fits");
        assert_eq!(fit.ignored, Some(disturbed));
        check(&fit.cost, 0.01);
    }
}

#[test]
fn the_only_step_that_shows_the_cost_of_parameters_is_never_left_out() {
    let mut cost = truth();
    cost.seconds_per_token_parameter = 2e-9;
    let shapes = [(1, M), (4, M), (8, M), (4, 20 * M)];
    let fit = fit(&measured(&cost, &shapes, &[1.0; 4])).expect("fits");
    assert_eq!(fit.ignored, None);
    close(fit.cost.seconds_per_token_parameter, 2e-9, 1e-6);
}

#[test]
fn one_rank_in_all_samples_leaves_the_cost_of_parameters_to_what_is_known_of_it() {
    let shapes = [(1, 2 * M), (4, 2 * M), (8, 2 * M)];
    let fit = fit(&measured(&truth(), &shapes, &[1.0; 3])).expect("fits");
    assert_eq!(
        fit.derived,
        [
            Term::TimePerParameter,
            Term::TimePerSquare,
            Term::MemoryPerParameter
        ]
    );
    close(fit.cost.seconds_per_token_parameter, 4e-10, 1e-9);
    close(fit.cost.memory_per_parameter, 16.0, 1e-9);
    close(fit.cost.seconds_per_token, truth().seconds_per_token, 1e-6);
    assert!(fit.time_error < 1e-9);
}

#[test]
fn a_flop_rate_that_cannot_be_true_never_makes_the_rest_negative() {
    let shapes = [(1, 2 * M), (4, 2 * M), (8, 2 * M)];
    let mut measurement = measured(&truth(), &shapes, &[1.0; 3]);
    measurement.forward_tokens_per_second = 1e-6;
    let fit = fit(&measurement).expect("fits");
    assert!(
        fit.cost.seconds_per_token > 0.0 && fit.time_error < 0.5,
        "{fit:?}"
    );
}

#[test]
fn one_size_in_all_samples_charges_everything_to_the_tokens() {
    let shapes = [(4, M), (4, 5 * M), (4, 20 * M)];
    let fit = fit(&measured(&truth(), &shapes, &[1.0; 3])).expect("fits");
    assert_eq!(
        fit.derived,
        [Term::TimePerSquare, Term::TimeFixed, Term::MemoryFixed]
    );
    assert_eq!(fit.cost.seconds_fixed, 0.0);
    assert!(fit.time_error < 1e-9, "{fit:?}");
}

#[test]
fn memory_is_never_predicted_below_the_base_and_the_parameters_own() {
    let mut cost = truth();
    cost.memory_per_parameter = 3.0;
    let fit = fit(&measured(&cost, &SIX, &[1.0; 6])).expect("fits");
    assert!(fit.cost.memory_per_parameter >= 16.0);
    assert!(fit.cost.memory_fixed >= 600.0 * MIB);
}

#[test]
fn whatever_was_measured_no_coefficient_is_negative() {
    let mut state = 1u64;
    let mut draw = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    for count in (3..9).cycle().take(300) {
        let mut measurement = measured(&truth(), &SIX, &[1.0; 6]);
        measurement.modes[0].samples = (0..count)
            .map(|_| Sample {
                batch: 1,
                tokens: 1 + (draw() * 4000.0) as u32,
                squares: draw() * 1e6,
                longest_tokens: (draw() * 8000.0) as u32,
                parameters: (draw() * 5e7) as u64,
                step_seconds: 1e-3 + 100.0 * draw(),
                peak_memory_bytes: 1 + (draw() * 4e9) as u64,
            })
            .collect();
        let cost = fit(&measurement).expect("fits").cost;
        for coefficient in cost.coefficients() {
            assert!(coefficient.is_finite() && coefficient >= 0.0, "{cost:?}");
        }
        assert!(cost.step_seconds(1.0, 1.0, 1) > 0.0, "{cost:?}");
    }
}

#[test]
fn too_few_samples_and_figures_that_are_no_numbers_are_refused() {
    let mut measurement = measured(&truth(), &THREE, &[1.0; 3]);
    measurement.modes[0].samples[1].step_seconds = f64::NAN;
    assert!(matches!(
        fit(&measurement),
        Err(Error::Figure {
            figure: "step time",
            ..
        })
    ));
    measurement.modes[0].samples.truncate(2);
    assert_eq!(fit(&measurement), Err(Error::TooFew { found: 2 }));
}

/// Each figure is a number that may be taken in; what a unit of one costs of another is not.
#[test]
fn a_model_that_no_plan_can_be_computed_with_is_refused() {
    let mut measurement = measured(&truth(), &SIX, &[1.0; 6]);
    let times = [1.0, 3.0, 2.0, 5.0, 4.0, 6.0];
    for (sample, seconds) in measurement.modes[0].samples.iter_mut().zip(times) {
        sample.step_seconds = seconds;
        sample.squares = 1e-100 * seconds;
    }
    assert_eq!(measurement.illegal(), None);
    let found = fit(&measurement);
    assert!(matches!(found, Err(Error::Unbounded { .. })), "{found:?}");
}

#[test]
fn memory_goes_by_the_longest_step_and_time_by_the_one_that_was_timed() {
    let (expected, mut measurement) = (truth(), measured(&truth(), &SIX, &[1.0; 6]));
    for sample in &mut measurement.modes[0].samples {
        sample.longest_tokens = 2 * sample.tokens;
        let peak = expected.peak_memory_bytes(2.0 * f64::from(sample.tokens), sample.parameters);
        sample.peak_memory_bytes = peak as u64;
    }
    check(&fit(&measurement).expect("fits").cost, 1e-3);
}

#[test]
fn a_peak_that_the_others_did_not_announce_is_the_models_error() {
    let mut measurement = measured(&truth(), &SIX, &[1.0; 6]);
    assert!(fit(&measurement).expect("fits").memory_error < 1e-6);
    let last = measurement.modes[0].samples.last_mut().expect("six");
    last.peak_memory_bytes = last.peak_memory_bytes / 10 * 11;
    let error = fit(&measurement).expect("fits").memory_error;
    assert!((0.08..0.15).contains(&error), "{error}");
    // What was below the model endangers nobody.
    let mut measurement = measured(&truth(), &THREE, &[1.0; 3]);
    measurement.modes[0].samples[1].peak_memory_bytes /= 2;
    let error = fit(&measurement).expect("fits").memory_error;
    assert!(error < 0.5, "{error}");
}

#[test]
fn scoring_has_a_line_of_its_own_that_starts_no_lower_than_the_base() {
    let pass = |tokens: u32, peak: f64| Sample {
        batch: 1,
        tokens,
        squares: 0.0,
        longest_tokens: 0,
        parameters: M,
        step_seconds: 1.0,
        peak_memory_bytes: (peak * MIB) as u64,
    };
    let mut measurement = measured(&truth(), &THREE, &[1.0; 3]);
    let cost = |measurement: &Measurement| fit(measurement).expect("fits").cost;
    assert_eq!(cost(&measurement).scoring_memory_bytes(100.0), 0.0);
    measurement.modes[0].scoring = vec![pass(100, 650.0), pass(400, 680.0)];
    close(
        cost(&measurement).scoring_memory_bytes(1000.0),
        740.0 * MIB,
        1e-6,
    );
    measurement.modes[0].scoring.truncate(1);
    close(
        cost(&measurement).scoring_memory_bytes(200.0),
        700.0 * MIB - SCORED_PARAMETER_BYTES * M as f64,
        1e-6,
    );
}

#[test]
fn attention_is_told_from_the_tokens_by_rows_of_unequal_length() {
    let mut expected = truth();
    expected.seconds_per_square = 4e-6;
    let mut measurement = measured(&expected, &SIX, &[1.0; 6]);
    for (sample, rows) in measurement.modes[0]
        .samples
        .iter_mut()
        .zip([1, 1, 4, 2, 8, 1])
    {
        let tokens = f64::from(sample.tokens);
        sample.squares = tokens * tokens / f64::from(rows);
        sample.step_seconds = expected.step_seconds(tokens, sample.squares, sample.parameters);
    }
    let found = fit(&measurement).expect("fits");
    assert_eq!((found.derived.len(), found.ignored), (0, None), "{found:?}");
    close(found.cost.seconds_per_square, 4e-6, 1e-6);
    close(found.cost.seconds_per_token, 5e-3, 1e-6);
    // As few steps as terms would make it of noise.
    measurement.modes[0].samples.truncate(4);
    let few = fit(&measurement).expect("fits");
    assert!(few.derived.contains(&Term::TimePerSquare), "{few:?}");
}

#[test]
fn without_gradients_a_parameter_takes_itself_and_two_passes() {
    let shapes = [(1, 2 * M), (4, 2 * M), (8, 2 * M)];
    let mut measurement = measured(&truth(), &shapes, &[1.0; 3]);
    measurement.modes[0].mode = mode(Optimizer::Mezo);
    let found = fit(&measurement).expect("fits");
    close(found.cost.memory_per_parameter, 4.0, 1e-9);
    close(
        found.cost.seconds_per_token_parameter,
        4e-10 * 4.0 / 6.0,
        1e-9,
    );
}

#[test]
fn a_profile_has_a_model_for_each_mode_and_none_of_nothing() {
    let mut measurement = measured(&truth(), &THREE, &[1.0; 3]);
    let mut second = measurement.modes[0].clone();
    second.mode.checkpoint = true;
    for sample in &mut second.samples {
        sample.step_seconds *= 1.3;
    }
    measurement.modes.push(second.clone());
    let worker: WorkerName = "w".parse().expect("legal");
    let profile = profile(worker.clone(), measurement.clone()).expect("fits");
    assert_eq!(profile.modes.len(), 2);
    let seconds = |mode: &Mode| {
        let fitted = profile.mode(mode).expect("fitted");
        fitted.cost.step_seconds(400.0, 0.0, M)
    };
    let ratio = seconds(&second.mode) / seconds(&mode(Optimizer::Adamw));
    close(ratio, 1.3, 1e-6);
    measurement.modes.clear();
    assert_eq!(super::profile(worker, measurement), Err(Error::Nothing));
}

/// Steps of SmolLM2-135M with recomputed activations as a probe measured them, in MiB: the larger half is predicted from the
/// smaller, across the block beyond which logits take turns.
#[test]
fn memory_beyond_a_block_of_logits_grows_slower_than_up_to_it() {
    let (low, high) = (2_442_240, 9_768_960);
    let steps = [
        (32, low, 269.2),
        (128, high, 440.2),
        (256, low, 338.0),
        (512, high, 511.4),
    ];
    let mut measurement = measured(&truth(), &SIX, &[1.0; 6]);
    let mode = &mut measurement.modes[0];
    mode.base_memory_bytes = (113.0 * MIB) as u64;
    let sample = |(tokens, parameters, peak): (u32, u64, f64)| Sample {
        batch: 1,
        tokens,
        squares: 0.0,
        longest_tokens: tokens,
        parameters,
        step_seconds: 0.01 * f64::from(tokens),
        peak_memory_bytes: (peak * MIB) as u64,
    };
    mode.samples = steps.map(sample).to_vec();
    let cost = fit(&measurement).expect("fits").cost;
    close(cost.peak_memory_bytes(1024.0, low) / MIB, 431.2, 0.05);
    close(cost.peak_memory_bytes(4096.0, low) / MIB, 802.2, 0.05);
    // Without a larger step nothing tells where the growth ends, and all of it is the tokens'.
    measurement.modes[0].samples.pop();
    let cost = fit(&measurement).expect("fits").cost;
    assert_eq!(cost.memory_per_block_token, 0.0);
    assert!(cost.peak_memory_bytes(1024.0, low) / MIB > 500.0);
}

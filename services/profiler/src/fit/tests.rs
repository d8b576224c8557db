use domain::adapter::{Projection, WeightName, WeightShape};

use super::*;

const MIB: f64 = 1024.0 * 1024.0;

fn truth() -> CostModel {
    CostModel {
        seconds_fixed: 0.08,
        seconds_per_token: 5e-3,
        seconds_per_token_parameter: 4e-10,
        memory_fixed: 700.0 * MIB,
        memory_per_token: 1.5 * MIB,
        memory_per_parameter: 20.0,
    }
}

/// The samples that `cost` would give, each time multiplied by its noise.
fn measured(cost: &CostModel, shapes: &[(u16, u64)], noise: &[f64]) -> Measurement {
    let sample = |((batch, parameters), noise): (&(u16, u64), &f64)| {
        let tokens = u32::from(*batch) * 100;
        Sample {
            batch: *batch,
            tokens,
            parameters: *parameters,
            step_seconds: cost.step_seconds(f64::from(tokens), *parameters) * noise,
            peak_memory_bytes: cost.peak_memory_bytes(f64::from(tokens), *parameters) as u64,
        }
    };
    Measurement {
        model: None,
        kernel: "test".to_owned(),
        weights: vec![WeightShape {
            name: WeightName::new(0, Projection::Q),
            out: 10_000,
            inp: 10_000,
        }],
        layers: 1,
        base_memory_bytes: (600.0 * MIB) as u64,
        memory_limit_bytes: 4 << 30,
        threads: 1,
        samples: shapes.iter().zip(noise).map(sample).collect(),
        // 2 · 1e8 · 75 flop a second, so 6 flop take 4e-10 seconds.
        forward_tokens_per_second: 75.0,
        upload_bytes_per_second: 1e7,
        download_bytes_per_second: 1e7,
        round_trip_ms: 1.0,
        records: 100,
        held_out: 10,
        skipped: 0,
        mean_tokens: 100.0,
    }
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
            let seconds = found.step_seconds(tokens, parameters);
            close(seconds, expected.step_seconds(tokens, parameters), within);
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
    assert_eq!((fit.ignored, fit.derived.len()), (None, 0));
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
        [Term::TimePerParameter, Term::MemoryPerParameter]
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
    assert_eq!(fit.derived, [Term::TimeFixed, Term::MemoryFixed]);
    assert_eq!(fit.cost.seconds_fixed, 0.0);
    assert!(fit.time_error < 1e-9, "{fit:?}");
}

#[test]
fn memory_is_never_predicted_below_the_base_and_the_parameters_own() {
    let mut cost = truth();
    cost.memory_per_parameter = 3.0;
    let fit = fit(&measured(&cost, &SIX, &[1.0; 6])).expect("fits");
    assert!(fit.cost.memory_per_parameter >= PARAMETER_BYTES);
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
        measurement.samples = (0..count)
            .map(|_| Sample {
                batch: 1,
                tokens: 1 + (draw() * 4000.0) as u32,
                parameters: (draw() * 5e7) as u64,
                step_seconds: 1e-3 + 100.0 * draw(),
                peak_memory_bytes: 1 + (draw() * 4e9) as u64,
            })
            .collect();
        let cost = fit(&measurement).expect("fits").cost;
        for coefficient in [
            cost.seconds_fixed,
            cost.seconds_per_token,
            cost.seconds_per_token_parameter,
            cost.memory_fixed,
            cost.memory_per_token,
            cost.memory_per_parameter,
        ] {
            assert!(coefficient.is_finite() && coefficient >= 0.0, "{cost:?}");
        }
        assert!(cost.step_seconds(1.0, 1) > 0.0, "{cost:?}");
    }
}

#[test]
fn too_few_samples_and_figures_that_are_no_numbers_are_refused() {
    let mut measurement = measured(&truth(), &THREE, &[1.0; 3]);
    measurement.samples[1].step_seconds = f64::NAN;
    assert!(matches!(
        fit(&measurement),
        Err(Error::Figure {
            figure: "step time",
            ..
        })
    ));
    measurement.samples.truncate(2);
    assert_eq!(fit(&measurement), Err(Error::TooFew { found: 2 }));
}

fn observe(profile: &Profile, time: f64, memory: f64) -> Observation {
    let (tokens, parameters) = (400.0, M);
    Observation {
        tokens,
        longest_tokens: tokens,
        parameters,
        step_seconds: time * profile.cost.step_seconds(tokens, parameters),
        peak_memory_bytes: (memory * profile.cost.peak_memory_bytes(tokens, parameters)) as u64,
    }
}

fn profiled() -> Profile {
    let worker = "w".parse().expect("legal");
    profile(worker, measured(&truth(), &SIX, &[1.0; 6])).expect("fits")
}

#[test]
fn observations_that_agree_change_nothing() {
    let before = profiled();
    let after = refine(&before, &observe(&before, 1.0, 1.0));
    close(
        after.cost.seconds_per_token,
        before.cost.seconds_per_token,
        1e-9,
    );
    close(
        after.cost.memory_per_token,
        before.cost.memory_per_token,
        1e-6,
    );
}

#[test]
fn a_site_that_became_slower_is_learned_in_a_few_rounds() {
    let start = profiled();
    let seen = observe(&start, 1.6, 1.0);
    let mut profile = start.clone();
    let mut errors = Vec::new();
    for _ in 0..10 {
        profile = refine(&profile, &seen);
        errors.push(profile.fit_error);
    }
    close(profile.cost.step_seconds(400.0, M), seen.step_seconds, 0.02);
    assert!(errors[0] > 0.1 && errors[9] < errors[0], "{errors:?}");
}

#[test]
fn memory_goes_up_at_once_and_down_slowly() {
    let start = profiled();
    let up = refine(&start, &observe(&start, 1.0, 1.2));
    close(up.cost.memory_fixed, 1.2 * start.cost.memory_fixed, 1e-6);
    let down = refine(&start, &observe(&start, 1.0, 0.8));
    assert!(down.cost.memory_fixed > 0.97 * start.cost.memory_fixed);
    assert!(down.cost.memory_fixed < start.cost.memory_fixed);
}

#[test]
fn a_peak_that_the_longest_step_explains_changes_nothing() {
    let start = profiled();
    let mut seen = observe(&start, 1.0, 1.1);
    seen.longest_tokens = 800.0;
    assert_eq!(
        refine(&start, &seen).cost.memory_fixed,
        start.cost.memory_fixed
    );
}

#[test]
fn an_observation_that_is_no_number_changes_nothing() {
    let start = profiled();
    for wrong in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
        let mut seen = observe(&start, 1.0, 1.0);
        seen.step_seconds = wrong;
        seen.peak_memory_bytes = 0;
        assert_eq!(refine(&start, &seen), start);
    }
}

#[test]
fn an_observation_is_read_from_a_rounds_figures() {
    let metrics = domain::round::UpdateMetrics {
        records: 32,
        tokens: 3200,
        loss: 1.0,
        steps: 8,
        compute_seconds: 16.0,
        tokens_per_second: 200.0,
        peak_memory_bytes: 5,
        bytes_up: 0,
        bytes_down: 0,
        control_bytes_up: 0,
    };
    let seen = Observation::of(&metrics, M, 512.0).expect("made steps");
    assert_eq!((seen.tokens, seen.step_seconds), (400.0, 2.0));
    let idle = domain::round::UpdateMetrics {
        steps: 0,
        ..metrics
    };
    assert_eq!(Observation::of(&idle, M, 512.0), None);
}

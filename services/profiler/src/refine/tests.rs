use domain::adapter::{Encoder, Projection, RankTable, WeightName, WeightShape};
use domain::artifact::{ArtifactRef, Digest};
use domain::drift::Moved;
use domain::id::JobId;
use domain::job::spec::{Base, Optimizer, Training};
use domain::plan::{Plan, Prediction};
use domain::profile::{Importance, ImportanceMethod, Measurement, Mode, WeightImportance};
use domain::round::Summary;

use super::*;
use crate::learn::{from_rounds, weigh};

const MIB: f64 = 1024.0 * 1024.0;

fn mode(checkpoint: bool) -> Mode {
    Mode {
        base: Base::Source,
        kernel: "k".to_owned(),
        checkpoint,
        optimizer: Optimizer::Adamw,
    }
}

/// Two modes; a step of 4 records of 50 tokens takes 1 second in the first and 1.5 in the second.
fn profile() -> Profile {
    let fitted = |checkpoint, seconds: f64| ModeProfile {
        mode: mode(checkpoint),
        cost: CostModel {
            seconds_fixed: 0.2 * seconds,
            seconds_per_token: 0.004 * seconds,
            seconds_per_token_parameter: 0.0,
            seconds_per_square: 0.0,
            memory_fixed: 100.0 * MIB,
            memory_per_token: MIB,
            memory_per_block_token: 0.0,
            memory_per_parameter: 0.0,
            scoring_memory_fixed: 0.0,
            scoring_memory_per_token: 0.0,
        },
        fit_error: 0.0,
        memory_error: 0.0,
        observations: 0,
    };
    Profile {
        worker: "w".parse().expect("legal"),
        measurement: Measurement {
            model: None,
            weights: vec![WeightShape {
                name: WeightName::new(0, Projection::Q),
                out: 10,
                inp: 10,
            }],
            encoder: Encoder::Bert,
            layers: 1,
            memory_limit_bytes: 4 << 30,
            threads: 1,
            modes: Vec::new(),
            noise: None,
            importance: None,
            forward_tokens_per_second: 1.0,
            upload_bytes_per_second: 1.0,
            download_bytes_per_second: 1.0,
            round_trip_ms: 1.0,
            records: 10,
            held_out: 0,
            skipped: 0,
            mean_tokens: 50.0,
            mean_squares: 2500.0,
        },
        modes: vec![fitted(false, 1.0), fitted(true, 1.5)],
        refined_to: 0,
        settled_to: 0,
        weighed_to: 0,
    }
}

fn plan() -> WorkerPlan {
    WorkerPlan {
        ranks: RankTable::default(),
        base: Base::Source,
        kernel: "k".to_owned(),
        threads: 1,
        batch: 4,
        accumulate: 1,
        local_steps: 10,
        sequence_length: 100,
        checkpoint: false,
        abreast: 1,
        optimizer: Optimizer::Adamw,
        predicted: Prediction {
            step_seconds: 1.0,
            round_seconds: 11.0,
            peak_memory_bytes: (500.0 * MIB) as u64,
            upload_bytes: 1,
        },
        why: serde_json::from_str(r#"{"text":"","binding":"nothing","rejected":[]}"#)
            .expect("an explanation"),
    }
}

/// The same of a site whose first mode trains zeroth-order, and the plan of that.
fn zeroth_order() -> (Profile, WorkerPlan) {
    let (mut profile, mut plan) = (profile(), plan());
    profile.modes[0].mode.optimizer = Optimizer::Mezo;
    plan.optimizer = Optimizer::Mezo;
    (profile, plan)
}

/// The settings of its job.
fn training(proximal: f64) -> Training {
    Training {
        sequence_length: 100,
        proximal,
        ..Training::default()
    }
}

/// A round of 10 steps of 200 tokens.
fn metrics(seconds: f64, peak_mib: f64) -> UpdateMetrics {
    UpdateMetrics {
        records: 40,
        tokens: 2000,
        loss: 1.0,
        steps: 10,
        skipped_steps: 0,
        refused_records: 0,
        compute_seconds: seconds,
        tokens_per_second: 1.0,
        peak_memory_bytes: (peak_mib * MIB) as u64,
        bytes_up: 0,
        bytes_down: 0,
        control_bytes_up: 0,
        energies: domain::energy::EnergyTable::default(),
    }
}

fn step(profile: &Profile, checkpoint: bool) -> f64 {
    let fitted = profile.mode(&mode(checkpoint)).expect("fitted");
    fitted.cost.step_seconds(200.0, 10_000.0, 0)
}

fn close(found: f64, expected: f64) {
    let off = (found / expected - 1.0).abs();
    assert!(off < 1e-9, "{found} instead of {expected}");
}

fn tell(
    profile: &mut Profile,
    round: u32,
    metrics: &UpdateMetrics,
    then: fn(&mut Profile, Observed<'_>),
) {
    let plan = plan();
    then(
        profile,
        Observed {
            round,
            plan: &plan,
            metrics,
            side: &RankTable::default(),
            training: &training(0.0),
        },
    );
}

#[test]
fn rounds_draw_the_mode_that_computed_them_to_what_they_took() {
    let mut profile = profile();
    for (round, expected) in [(1, 1.44f64.sqrt()), (2, 1.44f64.powf(0.75))] {
        tell(&mut profile, round, &metrics(14.4, 400.0), refine);
        close(step(&profile, false), expected);
    }
    close(step(&profile, true), 1.5);
    let observations: Vec<u32> = profile.modes.iter().map(|mode| mode.observations).collect();
    assert_eq!(observations, [2, 0]);
}

#[test]
fn a_round_that_is_told_twice_counts_once() {
    let mut profile = profile();
    tell(&mut profile, 3, &metrics(14.4, 700.0), refine);
    let once = profile.clone();
    tell(&mut profile, 3, &metrics(14.4, 700.0), refine);
    tell(&mut profile, 2, &metrics(14.4, 700.0), refine);
    assert_eq!(profile, once);
    tell(&mut profile, 3, &metrics(14.4, 700.0), settle);
    let settled = profile.clone();
    tell(&mut profile, 3, &metrics(14.4, 700.0), settle);
    assert_eq!(profile, settled);
}

#[test]
fn a_site_that_drifted_is_another_machine_in_all_its_modes() {
    let mut profile = profile();
    tell(&mut profile, 1, &metrics(40.0, 400.0), refine);
    tell(&mut profile, 2, &metrics(40.0, 400.0), settle);
    close(step(&profile, false), 4.0);
    close(step(&profile, true), 6.0);
}

#[test]
fn memory_rises_to_the_peak_that_was_seen_and_never_falls() {
    let mut profile = profile();
    let peak = |profile: &Profile| {
        let fitted = profile.mode(&mode(false)).expect("fitted");
        fitted.cost.peak_memory_bytes(400.0, 0) / MIB
    };
    close(peak(&profile), 500.0);
    tell(&mut profile, 1, &metrics(10.0, 600.0), refine);
    close(peak(&profile), 600.0);
    tell(&mut profile, 2, &metrics(10.0, 200.0), refine);
    close(peak(&profile), 600.0);
    // No more than the site may use at all.
    tell(&mut profile, 3, &metrics(10.0, 1e9), refine);
    close(peak(&profile), 4096.0);
}

#[test]
fn a_round_that_may_have_spared_directions_makes_no_mode_faster() {
    let (before, plan) = zeroth_order();
    let taught = |variance, seconds, then: fn(&mut Profile, Observed<'_>)| {
        let (mut profile, mut training) = (before.clone(), training(0.0));
        training.mezo.variance = variance;
        let observed = Observed {
            round: 1,
            plan: &plan,
            metrics: &metrics(seconds, 400.0),
            side: &RankTable::default(),
            training: &training,
        };
        then(&mut profile, observed);
        [0, 1].map(|index| {
            let cost = &profile.modes[index].cost;
            cost.step_seconds(200.0, 10_000.0, 0)
        })
    };
    let check = |found: [f64; 2], expected: [f64; 2]| {
        close(found[0], expected[0]);
        close(found[1], expected[1]);
    };
    // 10 seconds are predicted. What takes 3 of them may have taken 3 directions of 10, and what takes 20 did not take more
    // than all.
    check(taught(0.5, 3.0, settle), [1.0, 1.5]);
    check(taught(0.5, 14.4, refine), [1.0, 1.5]);
    check(taught(0.5, 20.0, settle), [2.0, 3.0]);
    // Without a bound every step takes all.
    check(taught(0.0, 3.0, settle), [0.3, 0.45]);
    check(taught(0.0, 14.4, refine), [1.2, 1.5]);
}

#[test]
fn passes_that_are_computed_as_one_are_not_taken_for_the_modes_own_memory() {
    let (mut profile, mut plan) = zeroth_order();
    plan.abreast = 4;
    // Four times the 400 tokens of a batch, each of which takes 1 MiB, beside 100 MiB.
    for (round, peak, expected) in [(1, 1700.0, 100.0), (2, 1720.0, 120.0)] {
        let observed = Observed {
            round,
            plan: &plan,
            metrics: &metrics(10.0, peak),
            side: &RankTable::default(),
            training: &training(0.0),
        };
        refine(&mut profile, observed);
        close(profile.modes[0].cost.memory_fixed / MIB, expected);
    }
}

#[test]
fn what_a_rule_holds_beside_is_not_taken_for_the_modes_own() {
    let (mut profile, mut plan) = (profile(), plan());
    plan.ranks = RankTable::uniform(&[Projection::Q], 1, 1000);
    let side = RankTable::uniform(&[Projection::Q], 1, 30_000);
    // 30 000 slices of 10 + 10 numbers beside, and 1000 in the copy.
    let beside = 31_000.0 * 20.0 * 4.0 / MIB;
    let memory = |profile: &Profile| {
        let fitted = profile.mode(&mode(false)).expect("fitted");
        fitted.cost.memory_fixed / MIB
    };
    let mut told = |round, peak| {
        let metrics = metrics(10.0, peak);
        let observed = Observed {
            round,
            plan: &plan,
            metrics: &metrics,
            side: &side,
            training: &training(0.5),
        };
        refine(&mut profile, observed);
        memory(&profile)
    };
    close(told(1, 500.0 + beside), 100.0);
    assert!((told(2, 520.0 + beside) - 120.0).abs() < 1e-3);
}

#[test]
fn figures_that_cannot_be_change_no_time() {
    let mut profile = profile();
    let mut nothing = metrics(0.0, 400.0);
    nothing.steps = 0;
    tell(&mut profile, 1, &nothing, settle);
    close(step(&profile, false), 1.0);
    tell(&mut profile, 2, &metrics(1e12, 400.0), settle);
    assert!(step(&profile, true) <= 1.5 * FARTHEST);
}

/// A committed round in which an update of the site counts, trained in this round or an earlier one.
fn summary(round: u32, trained_in: Option<u32>) -> Summary {
    let artifact = ArtifactRef {
        key: String::new(),
        sha256: Digest::from_bytes(&[0; 32]),
        bytes: 0,
    };
    let artifact = serde_json::to_value(&artifact).expect("JSON");
    let summary = serde_json::json!({
        "round": round, "global": artifact, "opened_at": 0, "committed_at": 0, "seconds": 0.0,
        "overhead_seconds": 0.0, "dropped_energy": 0.0, "missing": [],
        "workers": [{
            "worker": "w", "rank": 1, "batch": 4, "weight": 1.0, "trained_in": trained_in,
            "update": artifact, "metrics": metrics(14.4, 400.0),
        }],
    });
    serde_json::from_value(summary).expect("a summary")
}

#[test]
fn a_late_update_teaches_nothing_of_the_plan_under_which_it_counts() {
    let second = serde_json::json!({
        "job": JobId::from_bits(1), "version": 2, "parent": 1, "replayed_from": null, "from_round": 2,
        "round_seconds": 11.0, "deadline_seconds": 60, "global": {}, "workers": { "w": plan() },
        "excluded": [],
    });
    let second: Plan = serde_json::from_value(second).expect("a plan");
    let (mut taught, training) = (profile(), Training::default());
    from_rounds(&mut taught, &second, &training, &[summary(2, Some(1))]);
    assert_eq!(taught, profile());
    from_rounds(&mut taught, &second, &training, &[summary(2, None)]);
    close(step(&taught, false), 1.2);
}

#[test]
fn importance_follows_what_the_fleet_saw_grow_once_for_each_round() {
    let gate = |layer| WeightName::new(layer, Projection::Gate);
    let weight = |layer| WeightImportance {
        name: gate(layer),
        energies: vec![2.0, 1.0],
    };
    let mut profile = profile();
    profile.measurement.importance = Some(Importance {
        method: ImportanceMethod::Sketch,
        weights: vec![weight(0), weight(1)],
        agreement: 0.9,
        records: 8,
    });
    let moved = Moved {
        since: 1,
        last: 4,
        agreement: 0.1,
        grown: vec![(gate(1), 3.0)],
    };
    let energies = |profile: &Profile| -> Vec<Vec<f32>> {
        let importance = profile.measurement.importance.iter();
        let weights = importance.flat_map(|importance| &importance.weights);
        weights.map(|weight| weight.energies.clone()).collect()
    };
    for _ in 0..2 {
        weigh(&mut profile, &moved);
        assert_eq!(energies(&profile), [[2.0, 1.0], [6.0, 3.0]]);
    }
    // What a site tells of its weights is at most the largest number, and none beyond it is stored.
    let told = profile.measurement.importance.as_mut().expect("importance");
    told.weights[1].energies = vec![f32::MAX, 1.0];
    let last = moved.last + 1;
    weigh(&mut profile, &Moved { last, ..moved });
    assert_eq!(energies(&profile)[1], [f32::MAX, 3.0]);
}

#[test]
fn no_time_grows_beyond_the_largest_figure_however_often_a_site_tells_of_longer_rounds() {
    let mut cost = profile().modes[0].cost.clone();
    for _ in 0..100 {
        stretch(&mut cost, f64::MAX);
    }
    assert_eq!(
        (cost.seconds_fixed, cost.seconds_per_token),
        (LARGEST, LARGEST)
    );
}

use domain::adapter::{Encoder, Projection, RankTable, WeightName, WeightShape};
use domain::cause::Trouble;
use domain::job::choice::Choice;
use domain::job::spec::{Base, Optimizer};
use domain::plan::{Binding, Change, RankBasis};
use domain::profile::{
    CostModel, GradientNoise, Importance, ImportanceMethod, Measurement, Mode, ModeMeasurement,
    ModeProfile, Sample, WeightImportance,
};
use proptest::prelude::*;

use std::collections::BTreeSet;

use super::*;

mod fixture;
mod fleet;
mod importance;
mod linter;
mod modes;
mod noise;
mod remedies;
mod replan;
mod replay;
mod scoring;
mod settings;
mod sides;
mod steps;
mod zeroth;

use fixture::{mode, site};

const GIB: u64 = 1 << 30;
const LAYERS: u16 = 3;

fn spec() -> Spec {
    let text = r#"{"name":"j","model":{"source":"file:///m"},"data":{"dataset":"mail"}}"#;
    serde_json::from_str(text).expect("legal")
}

fn plan(spec: &Spec, sites: &[(WorkerName, Profile)], least_sites: usize) -> Result<Plan, Cause> {
    let profiles = sites.iter().cloned().collect();
    let job = JobId::from_bits(1);
    allocate(&Request {
        job: &job,
        spec,
        profiles: &profiles,
        parent: None,
        least_sites,
    })
}

fn of<'a>(plan: &'a Plan, name: &str) -> &'a WorkerPlan {
    plan.workers
        .get(&name.parse::<WorkerName>().expect("legal"))
        .expect("planned")
}

#[test]
fn three_unequal_sites_finish_together_and_the_faster_train_more() {
    let sites = [
        site("a", 1.0, 8 * GIB),
        site("b", 2.0, 8 * GIB),
        site("c", 4.0, 8 * GIB),
    ];
    let plan = plan(&spec(), &sites, 3).expect("possible");
    for (name, worker) in &plan.workers {
        let share = worker.predicted.round_seconds / plan.round_seconds;
        assert!(share > 0.85, "{name} waits: {share}");
    }
    let worth = |name| {
        let (rank, batch) = (of(&plan, name).ranks.max(), of(&plan, name).batch);
        f64::from(rank).ln_1p() * noise::noise(None).worth(batch)
    };
    assert!(worth("a") < worth("b") && worth("b") < worth("c"));
    assert!(
        of(&plan, "a").batch > 1,
        "the whole fleet crawls along with the slowest"
    );
    assert_eq!(
        plan.global,
        RankTable::uniform(&Projection::ALL, LAYERS, 32)
    );
    assert_eq!((plan.version, plan.parent), (PlanVersion(1), None));
    assert_eq!(
        plan.deadline_seconds,
        (3.0 * plan.round_seconds + 30.0).ceil() as u64
    );
}

/// Speeds 1, 1/2, 1/4, 1/8 as in the ablation's fleet: the slowest has the choice of very few batches.
#[test]
fn sites_of_an_eighth_of_the_speed_leave_nobody_waiting_long() {
    let sites = [
        site("a", 1.0, 8 * GIB),
        site("b", 0.5, 8 * GIB),
        site("c", 0.25, 8 * GIB),
        site("d", 0.125, 8 * GIB),
    ];
    let plan = plan(&spec(), &sites, 4).expect("possible");
    for (name, worker) in &plan.workers {
        let share = worker.predicted.round_seconds / plan.round_seconds;
        assert!(share > 0.92, "{name} waits: {share}");
    }
}

#[test]
fn a_small_memory_binds_and_the_explanation_says_what_more_would_take() {
    let small = (0.5 * GIB as f64 * 1.05) as u64 + 200_000_000;
    let sites = [site("a", 1.0, small), site("b", 1.0, 8 * GIB)];
    let plan = plan(&spec(), &sites, 2).expect("possible");
    let worker = of(&plan, "a");
    assert_eq!(worker.why.binding, Binding::Memory);
    assert!(worker.predicted.peak_memory_bytes as f64 * 1.05 <= small as f64);
    assert!(
        worker.why.text.contains("Memory is what limits it"),
        "{}",
        worker.why.text
    );
    assert!(!worker.why.rejected.is_empty());
    for rejected in &worker.why.rejected {
        assert!(rejected.rank > worker.ranks.max() || rejected.batch > worker.batch);
        let because = &rejected.because;
        assert!(
            because.contains("more than the worker may use")
                || because.contains("finishes in")
                || because.contains("it leaves room for")
        );
        assert!(worker.why.text.contains(because.as_str()));
    }
}

#[test]
fn a_model_that_was_too_low_somewhere_keeps_more_memory_free() {
    let (name, mut profile) = site("a", 1.0, GIB / 5 * 6);
    let before = plan(&spec(), &[(name.clone(), profile.clone())], 1).expect("possible");
    profile.modes[0].memory_error = 0.5;
    let after = plan(&spec(), &[(name, profile)], 1).expect("possible");
    let peak = |plan: &Plan| of(plan, "a").predicted.peak_memory_bytes;
    assert!(peak(&before) > peak(&after));
    assert!(peak(&after) as f64 * 1.499 <= 1.2 * GIB as f64);
    let text = &of(&after, "a").why.text;
    assert!(text.contains("50.0 % for the error"), "{text}");
}

#[test]
fn what_the_job_fixes_is_kept() {
    let mut spec = spec();
    spec.adapter.rank = Choice::Fixed(5);
    spec.training.batch = Choice::Fixed(3);
    spec.adapter.targets = Choice::Fixed(vec![Projection::Q, Projection::V]);
    spec.rounds.deadline = Choice::Fixed(77);
    let plan = plan(
        &spec,
        &[site("a", 1.0, 8 * GIB), site("b", 3.0, 4 * GIB)],
        2,
    );
    let plan = plan.expect("possible");
    for worker in plan.workers.values() {
        let expected = RankTable::uniform(&[Projection::Q, Projection::V], LAYERS, 5);
        assert_eq!((&worker.ranks, worker.batch), (&expected, 3));
        assert_eq!(worker.why.binding, Binding::Job);
        assert!(
            worker
                .why
                .text
                .contains("The job fixes the rank. The job fixes the batch.")
        );
    }
    assert_eq!(plan.deadline_seconds, 77);
    assert_eq!(plan.global.max(), 32);
}

#[test]
fn a_fixed_rank_that_does_not_fit_excludes_the_site_with_figures() {
    let mut spec = spec();
    spec.adapter.rank = Choice::Fixed(32);
    spec.training.batch = Choice::Fixed(32);
    let sites = [site("a", 1.0, GIB), site("b", 1.0, 8 * GIB)];
    let plan_of_one = plan(&spec, &sites, 1).expect("possible");
    assert_eq!(plan_of_one.workers.len(), 1);
    let [excluded] = plan_of_one.excluded.as_slice() else {
        panic!("{:?}", plan_of_one.excluded)
    };
    assert_eq!(excluded.worker.as_str(), "a");
    assert_eq!(excluded.trouble, Trouble::OutOfMemory);
    assert!(excluded.detail.contains("needs 2."), "{}", excluded.detail);
    assert!(
        excluded.detail.contains("may use 1.00 GiB"),
        "{}",
        excluded.detail
    );

    let cause = plan(&spec, &sites, 2).expect_err("impossible");
    assert_eq!(cause.kind, CauseKind::PlanImpossible);
    assert_eq!(cause.sites.len(), 1);
    assert!(
        cause
            .message
            .contains("1 of 2 sites can take part, 2 must; a: "),
        "{}",
        cause.message
    );
    assert!(cause.message.contains("are missing"), "{}", cause.message);
}

#[test]
fn a_refusal_says_what_to_do_next_by_what_the_job_fixes_and_what_is_in_the_way() {
    let next = |spec: &Spec, sites: &[(WorkerName, Profile)], least: usize| {
        let cause = plan(spec, sites, least).expect_err("impossible");
        let (_, next) = cause.message.split_once("; next: ").expect("a next step");
        next.to_owned()
    };
    let mut fixed = spec();
    fixed.adapter.rank = Choice::Fixed(32);
    fixed.training.batch = Choice::Fixed(32);
    fixed.rounds.quorum = domain::job::Quorum::Fixed(2);
    let sites = [site("a", 1.0, GIB), site("b", 1.0, 8 * GIB)];
    assert_eq!(
        next(&fixed, &sites, 2),
        "leave adapter.rank, training.batch to auto; shorten training.sequence_length; \
         or lower rounds.quorum to 1, or to auto"
    );
    assert_eq!(
        next(&spec(), &[site("a", 1.0, GIB / 4)], 1),
        "shorten training.sequence_length"
    );
    let mut hurried = spec();
    hurried.rounds.deadline = Choice::Fixed(1);
    assert_eq!(
        next(&hurried, &[site("a", 0.1, 8 * GIB)], 1),
        "raise rounds.deadline or deadline_seconds, or lower training.local_steps"
    );
}

#[test]
fn a_deadline_that_cannot_be_met_is_refused_with_figures() {
    let mut spec = spec();
    spec.rounds.deadline = Choice::Fixed(1);
    let cause = plan(&spec, &[site("a", 0.1, 8 * GIB)], 1).expect_err("impossible");
    assert_eq!(cause.sites[0].trouble, Trouble::TooLate);
    assert!(
        cause.message.contains("deadlines leave 952.4 ms")
            || cause.message.contains("deadlines leave 1.0 s"),
        "{}",
        cause.message
    );
}

#[test]
fn the_jobs_own_deadline_limits_the_rounds() {
    let mut spec = spec();
    spec.rounds.count = 10;
    let free = plan(&spec, &[site("a", 1.0, 8 * GIB)], 1).expect("possible");
    spec.deadline_seconds = (10.0 * free.round_seconds / 2.0) as u64;
    let tight = plan(&spec, &[site("a", 1.0, 8 * GIB)], 1).expect("possible");
    assert!(10.0 * tight.round_seconds <= spec.deadline_seconds as f64);
    let why = &of(&tight, "a").why;
    assert_eq!(why.binding, Binding::Time, "{}", why.text);
    assert!(
        why.text.contains(", and the job's deadlines leave"),
        "{}",
        why.text
    );
}

#[test]
fn where_nothing_else_may_be_trained_nothing_limits_it() {
    let mut spec = spec();
    spec.adapter.rank_max = 1;
    spec.training.batch = Choice::Fixed(2);
    let plan = plan(&spec, &[site("a", 1.0, 8 * GIB)], 1).expect("possible");
    let why = &of(&plan, "a").why;
    assert_eq!(why.binding, Binding::Nothing, "{}", why.text);
    assert!(
        why.text.contains("Nothing larger would gain"),
        "{}",
        why.text
    );
}

#[test]
fn sites_that_cannot_train_at_all_are_excluded_by_cause() {
    let (a, mut no_data) = site("a", 1.0, 8 * GIB);
    no_data.measurement.records = 0;
    let (b, mut other_model) = site("b", 1.0, 8 * GIB);
    other_model.measurement.weights.pop();
    let (c, mut nonsense) = site("c", 1.0, 8 * GIB);
    nonsense.modes[0].cost.seconds_per_token = f64::NAN;
    let sites = [
        (a, no_data),
        (b, other_model),
        (c, nonsense),
        site("d", 1.0, 8 * GIB),
    ];
    let plan = plan(&spec(), &sites, 1).expect("possible");
    let troubles: Vec<_> = plan.excluded.iter().map(|t| t.trouble).collect();
    let expected = [
        Trouble::DataUnusable,
        Trouble::ModelUnusable,
        Trouble::Internal,
    ];
    assert_eq!(troubles, expected);
    assert_eq!(plan.workers.len(), 1);
}

#[test]
fn a_target_that_the_model_lacks_is_refused_by_name() {
    let mut sites = [site("a", 1.0, 8 * GIB)];
    sites[0]
        .1
        .measurement
        .weights
        .retain(|w| w.name.projection() != Projection::Gate);
    // What a job leaves open is what the model has; what it names must be there.
    let mut spec = spec();
    spec.adapter.targets = Choice::Fixed(Projection::ALL.to_vec());
    let cause = plan(&spec, &sites, 1).expect_err("impossible");
    assert!(
        cause.message.contains("model.layers.0.mlp.gate_proj"),
        "{}",
        cause.message
    );
}

#[test]
fn no_site_is_no_plan() {
    let cause = plan(&spec(), &[], 0).expect_err("impossible");
    assert_eq!(
        cause.message,
        "0 of 0 sites can take part, 1 must; next: see with `fedpipe fleet` which sites run and have the data set"
    );
}

#[test]
fn a_batch_never_repeats_a_record_within_a_step() {
    let (name, mut profile) = site("a", 1.0, 8 * GIB);
    profile.measurement.records = 5;
    let plan = plan(&spec(), &[(name, profile)], 1).expect("possible");
    assert!(of(&plan, "a").batch <= 5);
}

#[test]
fn a_round_averages_enough_records_that_no_site_must_refuse_it() {
    let mut spec = spec();
    spec.training.local_steps = Choice::Fixed(3);
    let (name, mut profile) = site("a", 1.0, 8 * GIB);
    // However little a larger batch teaches.
    profile.measurement.noise = Some(GradientNoise {
        signal: 1.0,
        variance: 0.0,
        records: 21,
    });
    let plan = plan(&spec, &[(name, profile)], 1).expect("possible");
    assert_eq!(of(&plan, "a").batch, 3);
}

#[test]
fn a_plan_that_replaces_another_names_it() {
    let sites = [site("a", 1.0, 8 * GIB)];
    let first = plan(&spec(), &sites, 1).expect("possible");
    let profiles = sites.iter().cloned().collect();
    let job = JobId::from_bits(1);
    let request = Request {
        job: &job,
        spec: &spec(),
        profiles: &profiles,
        parent: Some(&first),
        least_sites: 1,
    };
    let second = allocate(&request).expect("possible");
    assert_eq!(
        (second.version, second.parent),
        (PlanVersion(2), Some(PlanVersion(1)))
    );
}

#[test]
fn a_replayed_plan_is_the_same_plan_and_needs_the_same_workers() {
    let sites = [site("a", 1.0, 8 * GIB), site("b", 2.0, 2 * GIB)];
    let original = plan(&spec(), &sites, 2).expect("possible");
    let job = JobId::from_bits(9);
    let mut here: BTreeSet<WorkerName> = original.workers.keys().cloned().collect();
    here.insert("z".parse().expect("legal"));
    let replayed = replay(&original, &job, &here).expect("all are here");
    assert_eq!(replayed.workers, original.workers);
    assert_eq!(replayed.global, original.global);
    assert_eq!(replayed.replayed_from.as_ref(), Some(&original.job));
    assert_eq!(replayed.job, job);
    assert_eq!(replayed.excluded.len(), 1);
    here.remove(&"b".parse().expect("legal"));
    let cause = replay(&original, &job, &here).expect_err("b is not here");
    assert_eq!(cause.sites[0].worker.as_str(), "b");
}

prop_compose! {
    fn any_site()(
        speed in 0.05f64..20.0,
        memory in GIB / 4..16 * GIB,
        records in 0u64..5000,
        mean_tokens in 1.0f64..400.0,
        upload in 0.0f64..1e8,
        fit_error in 0.0f64..0.5,
        per_token in 0.0f64..2e6,
        fixed in 0.0f64..5.0,
    ) -> Profile {
        let (_, mut profile) = site("x", speed, memory);
        profile.measurement.records = records;
        profile.measurement.mean_tokens = mean_tokens;
        profile.measurement.upload_bytes_per_second = upload;
        profile.modes[0].fit_error = fit_error;
        profile.modes[0].cost.memory_per_token = per_token;
        profile.modes[0].cost.seconds_fixed = fixed;
        profile
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_the_fleet_a_plan_is_legal_and_the_same_every_time(
        profiles in prop::collection::vec(any_site(), 1..12),
        rank_max in 1u16..=256,
        local_steps in prop::option::of(1u32..50),
        sequence_length in 2u32..1024,
        deadline in prop::option::of(1u32..2000),
    ) {
        let sites: Vec<(WorkerName, Profile)> = profiles.into_iter().enumerate().map(|(i, mut p)| {
            let name: WorkerName = format!("w{i}").parse().expect("legal");
            p.worker = name.clone();
            (name, p)
        }).collect();
        let mut spec = spec();
        spec.adapter.rank_max = rank_max;
        spec.training.local_steps = local_steps.map_or(Choice::Auto, Choice::Fixed);
        spec.training.sequence_length = sequence_length;
        spec.rounds.deadline = deadline.map_or(Choice::Auto, Choice::Fixed);
        // `allocate` lints; an illegal plan comes back as `Internal`.
        let first = plan(&spec, &sites, 1);
        let second = plan(&spec, &sites, 1);
        let bytes = |plan: &Result<Plan, Cause>| match plan {
            Ok(plan) => serde_json::to_vec(plan).expect("serializes"),
            Err(cause) => serde_json::to_vec(cause).expect("serializes"),
        };
        prop_assert_eq!(bytes(&first), bytes(&second));
        match first {
            Err(cause) => {
                prop_assert_eq!(cause.kind, CauseKind::PlanImpossible, "{}", cause.message);
                prop_assert_eq!(cause.sites.len(), sites.len());
            }
            Ok(plan) => {
                prop_assert_eq!(plan.workers.len() + plan.excluded.len(), sites.len());
                for (name, worker) in &plan.workers {
                    let profile = &sites.iter().find(|(n, _)| n == name).expect("its site").1;
                    let tokens = f64::from(worker.batch) * f64::from(sequence_length);
                    let parameters = worker.ranks.parameters(&profile.measurement.weights);
                    let peak = profile.modes[0].cost.peak_memory_bytes(tokens, parameters);
                    prop_assert!(peak <= profile.measurement.memory_limit_bytes as f64);
                }
            }
        }
    }
}

#[test]
fn a_batch_far_beyond_what_was_measured_is_not_planned() {
    let largest = |measured: u16| {
        let (name, mut profile) = site("a", 4.0, 8 * GIB);
        for mode in &mut profile.measurement.modes {
            mode.samples.retain(|sample| sample.batch <= measured);
        }
        let plan = plan(&spec(), &[(name, profile)], 1).expect("possible");
        of(&plan, "a").batch
    };
    // Steps of 200 tokens were measured, so 800 are planned at most: six records of 128.
    let small = largest(2);
    assert!(small <= 6, "{small}");
    assert!(largest(16) > 6);
}

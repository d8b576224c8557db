use super::*;

/// Adds a mode to a site: its step takes `slower` times as long, its base `smaller` of the memory.
pub(super) fn add(
    profile: &mut Profile,
    change: impl Fn(&mut Mode),
    slower: f64,
    smaller: f64,
    loss: f64,
) {
    let (mut measured, mut fitted) = (
        profile.measurement.modes[0].clone(),
        profile.modes[0].clone(),
    );
    let mut mode = mode();
    change(&mut mode);
    let cost = &mut fitted.cost;
    cost.seconds_per_token *= slower;
    cost.memory_fixed *= smaller;
    cost.memory_per_token *= smaller;
    (measured.mode, fitted.mode) = (mode.clone(), mode);
    measured.loss = Some(loss);
    profile.measurement.modes.push(measured);
    profile.modes.push(fitted);
}

/// A site of one gigabyte whose base came in f32 at a loss of 2.
pub(super) fn measured(memory: u64) -> (WorkerName, Profile) {
    let (name, mut profile) = site("a", 1.0, memory);
    profile.measurement.modes[0].loss = Some(2.0);
    (name, profile)
}

#[test]
fn a_faster_base_is_taken_if_its_rounding_costs_less_than_it_gains_and_the_job_allows_it() {
    for (loss, expected) in [(2.001, Base::Int8), (3.9, Base::Source)] {
        let (name, mut profile) = measured(8 * GIB);
        add(&mut profile, |mode| mode.base = Base::Int8, 0.5, 1.0, loss);
        let sites = [(name, profile)];
        let plan = plan(&spec(), &sites, 1).expect("possible");
        let worker = of(&plan, "a");
        assert_eq!(worker.base, expected, "{}", worker.why.text);
        let other = worker.why.rejected.iter();
        let other: Vec<_> = other
            .filter(|other| other.change == Some(Change::Base))
            .collect();
        let [other] = other.as_slice() else {
            panic!("{:?}", worker.why.rejected)
        };
        let mode = other.mode.as_ref().expect("another mode");
        assert_ne!(mode.base, expected);
        if expected == Base::Source {
            let because = &other.because;
            assert!(
                because.contains("its rounding raises the measured loss by 1.900"),
                "{because}"
            );
        }
        assert!(worker.why.text.contains(&other.because));
    }
}

#[test]
fn the_base_that_the_job_fixes_is_never_changed() {
    let (name, mut profile) = measured(8 * GIB);
    add(&mut profile, |mode| mode.base = Base::Int8, 0.5, 0.5, 2.0);
    add(&mut profile, |mode| mode.base = Base::Bf16, 0.7, 0.7, 2.0);
    let sites = [(name, profile)];
    let mut spec = spec();
    spec.precision.base = Base::Bf16;
    let chosen = plan(&spec, &sites, 1).expect("possible");
    assert_eq!(of(&chosen, "a").base, Base::Bf16);
    spec.precision.base = Base::Nf4;
    let cause = plan(&spec, &sites, 1).expect_err("not measured");
    assert_eq!(cause.sites[0].trouble, Trouble::PlanUnsupported);
    for words in [
        "the job asks for precision.base nf4, and it measured the base as it came with portable by adamw; ",
        "an int8 base with portable by adamw",
        "; next: leave precision.base to auto",
    ] {
        assert!(cause.message.contains(words), "{words}: {}", cause.message);
    }
}

#[test]
fn the_arithmetic_that_the_job_fixes_is_never_changed() {
    let (name, mut profile) = measured(8 * GIB);
    add(
        &mut profile,
        |mode| mode.kernel = "amx-bf16-2".to_owned(),
        0.3,
        1.0,
        2.0,
    );
    add(
        &mut profile,
        |mode| mode.kernel = "avx2-f32-2".to_owned(),
        0.9,
        1.0,
        2.0,
    );
    let sites = [(name, profile)];
    let mut spec = spec();
    assert_eq!(
        of(&plan(&spec, &sites, 1).expect("possible"), "a").kernel,
        "amx-bf16-2"
    );
    spec.precision.compute = domain::job::spec::Compute::F32;
    assert_eq!(
        of(&plan(&spec, &sites, 1).expect("possible"), "a").kernel,
        "avx2-f32-2"
    );
}

#[test]
fn activations_are_recomputed_where_memory_holds_too_few_otherwise() {
    let recompute = |mode: &mut Mode| mode.checkpoint = true;
    for (memory, expected) in [(8 * GIB, false), (GIB * 7 / 10, true)] {
        let (name, mut profile) = measured(memory);
        add(&mut profile, recompute, 1.3, 1.0, 2.0);
        profile.modes[1].cost.memory_per_token = 50_000.0;
        let plan = plan(&spec(), &[(name, profile)], 1).expect("possible");
        let worker = of(&plan, "a");
        assert_eq!(worker.checkpoint, expected, "{}", worker.why.text);
        let other = worker.why.rejected.iter();
        let other: Vec<_> = other
            .filter(|other| other.change == Some(Change::Checkpoint))
            .collect();
        assert_eq!(other.len(), 1, "{:?}", worker.why.rejected);
    }
}

#[test]
fn a_base_that_fits_is_taken_where_the_exact_one_does_not() {
    let (name, mut profile) = measured(GIB * 4 / 10);
    add(&mut profile, |mode| mode.base = Base::Nf4, 1.5, 0.2, 2.4);
    let plan = plan(&spec(), &[(name, profile)], 1).expect("possible");
    let worker = of(&plan, "a");
    assert_eq!(worker.base, Base::Nf4);
    let other = &worker.why.rejected;
    let other = other
        .iter()
        .find(|other| other.change == Some(Change::Base));
    let other = other.expect("the base as it came");
    assert!(
        other.because.contains("more than the worker may use"),
        "{}",
        other.because
    );
    assert!(other.memory_bytes.expect("known") > GIB * 4 / 10);
    assert!(other.round_seconds.expect("known") > 0.0);
}

/// Recomputing would fit, and was measured with so few tokens that a step of eight records cannot be told: the figure is
/// another mode's, and says so.
#[test]
fn a_mode_that_was_not_measured_far_enough_is_named_beside_the_figure_of_another() {
    let mut spec = spec();
    spec.training.local_steps = Choice::Fixed(1);
    let (name, mut profile) = measured(GIB * 7 / 10);
    add(&mut profile, |mode| mode.checkpoint = true, 1.3, 1.0, 2.0);
    profile.modes[1].cost.memory_per_token = 50_000.0;
    let sites = [(name, profile)];
    assert!(plan(&spec, &sites, 1).is_ok());
    let [(name, mut profile)] = sites;
    let samples = &mut profile.measurement.modes[1].samples;
    samples.retain(|sample| sample.batch <= 2);
    let mut larger = profile.clone();
    let cause = plan(&spec, &[(name.clone(), profile)], 1).expect_err("impossible");
    assert_eq!(cause.sites[0].trouble, Trouble::OutOfMemory);
    let detail = &cause.sites[0].detail;
    for words in [
        "(rank 1, 8 records a step of up to 128 tokens, the base as it came with portable) needs ",
        "with portable, activations recomputed was measured up to 200 tokens a step, too few to plan one of 1024",
    ] {
        assert!(detail.contains(words), "{words}: {detail}");
    }
    assert!(!detail.contains("which by these"), "{detail}");

    // What is hoped for of it is told where that would not fit either.
    larger.modes[1].cost.memory_per_token = 2e6;
    let cause = plan(&spec, &[(name, larger)], 1).expect_err("impossible");
    let detail = &cause.sites[0].detail;
    let words = "too few to plan one of 1024, which by these would take about ";
    assert!(detail.contains(words), "{detail}");
}

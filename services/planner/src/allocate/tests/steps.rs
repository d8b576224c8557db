//! Steps that a job leaves to the plan.

use domain::job::planner::Solver;
use domain::job::training::AUTO_STEPS_LIMIT;
use domain::plan::Rejected;

use super::importance::narrow;
use super::modes::{add, measured};
use super::*;

fn open() -> Spec {
    let mut spec = spec();
    spec.training.local_steps = Choice::Auto;
    spec.aggregation.normalize = domain::job::aggregation::Normalize::Fednova;
    assert_eq!(spec.check(), Ok(()));
    spec
}

/// Steps alone are open.
fn of_one_rank_and_batch() -> Spec {
    let mut spec = open();
    spec.adapter.rank = Choice::Fixed(8);
    spec.training.batch = Choice::Fixed(4);
    spec
}

fn unequal() -> [(WorkerName, Profile); 3] {
    [
        site("a", 1.0, 8 * GIB),
        site("b", 2.0, 8 * GIB),
        site("c", 4.0, 8 * GIB),
    ]
}

#[test]
fn a_slower_site_makes_fewer_steps_and_all_finish_together() {
    let plan = plan(&of_one_rank_and_batch(), &unequal(), 3).expect("possible");
    let steps = |name| of(&plan, name).local_steps;
    let all = [steps("a"), steps("b"), steps("c")];
    assert!(1 < all[0] && all[0] < all[1] && all[1] < all[2], "{all:?}");
    assert!(all[2] <= AUTO_STEPS_LIMIT, "{all:?}");
    for (name, worker) in &plan.workers {
        let share = worker.predicted.round_seconds / plan.round_seconds;
        assert!(share > 0.85, "{name} waits: {share}");
        let steps = f64::from(worker.local_steps) * worker.predicted.step_seconds;
        assert!(worker.predicted.round_seconds > steps);
        assert_eq!((worker.batch, worker.ranks.max()), (4, 8));
        let text = &worker.why.text;
        let says = format!("a round of {} steps", worker.local_steps);
        assert!(text.contains(&says), "{text}");
        assert!(text.contains("leaves the steps open, 1 to 64"), "{text}");
        assert_ne!(worker.why.binding, Binding::Job, "{text}");
    }
}

#[test]
fn steps_that_the_job_gives_are_every_sites() {
    let mut spec = of_one_rank_and_batch();
    for steps in [1, 12, 100] {
        spec.training.local_steps = Choice::Fixed(steps);
        let plan = plan(&spec, &unequal(), 3).expect("possible");
        for worker in plan.workers.values() {
            assert_eq!(worker.local_steps, steps);
            assert!(!worker.why.text.contains("leaves the steps open"));
        }
    }
}

#[test]
fn open_steps_beside_open_batches_and_ranks_are_planned_too() {
    let plan = plan(&open(), &unequal(), 3).expect("possible");
    for (name, worker) in &plan.workers {
        let share = worker.predicted.round_seconds / plan.round_seconds;
        assert!(share > 0.85, "{name} waits: {share}");
        assert!(worker.local_steps.is_power_of_two());
        let seen = u64::from(worker.local_steps) * u64::from(worker.batch);
        assert!(seen <= 500, "more than the site's records: {seen}");
    }
    let seen = |name| u64::from(of(&plan, name).local_steps) * u64::from(of(&plan, name).batch);
    assert!(seen("a") < seen("c"), "{} and {}", seen("a"), seen("c"));
}

#[test]
fn another_mode_that_would_make_other_steps_says_how_many() {
    let (name, mut profile) = measured(8 * GIB);
    add(&mut profile, |mode| mode.base = Base::Int8, 4.0, 1.0, 2.0);
    let plan = plan(&of_one_rank_and_batch(), &[(name, profile)], 1).expect("possible");
    let worker = of(&plan, "a");
    assert_eq!(worker.base, Base::Source, "{}", worker.why.text);
    let mut rejected = worker.why.rejected.iter();
    let other = rejected.find(|other| other.change == Some(Change::Base));
    let because = &other.expect("it was measured").because;
    let steps = number(because, "in rounds of ", " steps it fits");
    assert!(steps < worker.local_steps, "{because}");
    assert!(worker.why.text.contains(because), "{}", worker.why.text);
}

/// The next more and the next fewer steps, as far as they are told.
fn other_steps(worker: &WorkerPlan) -> Vec<&Rejected> {
    let rejected = worker.why.rejected.iter();
    rejected.filter(|other| other.change.is_none()).collect()
}

/// The number between these words, which a reason begins with.
fn number(because: &str, before: &str, after: &str) -> u32 {
    because
        .strip_prefix(before)
        .and_then(|words| words.split_once(after))
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or_else(|| panic!("no steps: {because}"))
}

#[test]
fn the_next_more_and_the_next_fewer_steps_are_named_with_what_they_lack() {
    let plan = plan(&of_one_rank_and_batch(), &unequal(), 3).expect("possible");
    // Its steps lie between those of the others, which it could make too.
    let worker = of(&plan, "b");
    let other = other_steps(worker);
    let [more, fewer] = other.as_slice() else {
        panic!("{:?}", worker.why.rejected)
    };
    let because = &more.because;
    assert!(number(because, "a round of ", " steps takes ") > worker.local_steps);
    assert!(
        because.contains(" more than the fleet, which finishes in "),
        "{because}"
    );
    assert!(
        because.contains("; it would lower the loss by "),
        "{because}"
    );
    let because = &fewer.because;
    let words = " steps it fits, and lowers the loss by ";
    assert!(number(because, "in rounds of ", words) < worker.local_steps);
    assert!(more.gain > Some(0.0) && fewer.gain < Some(0.0));
    assert!(more.round_seconds > Some(plan.round_seconds));
    assert!(fewer.round_seconds < Some(worker.predicted.round_seconds));
    for other in [more, fewer] {
        assert_eq!((other.rank, other.batch, &other.mode), (8, 4, &None));
        let says = format!(
            "Another number of steps at rank 8 with 4 records was rejected: {}.",
            other.because
        );
        assert!(worker.why.text.contains(&says), "{}", worker.why.text);
    }
}

#[test]
fn of_steps_that_the_job_gives_no_other_number_is_named() {
    let plan = plan(&spec(), &unequal(), 3).expect("possible");
    for worker in plan.workers.values() {
        assert!(!worker.why.rejected.is_empty());
        assert_eq!(other_steps(worker), Vec::<&Rejected>::new());
    }
}

#[test]
fn the_linter_knows_what_open_steps_may_be() {
    let (spec, sites) = (of_one_rank_and_batch(), unequal());
    let good = plan(&spec, &sites, 3).expect("possible");
    let profiles = sites.into();
    for steps in [0, AUTO_STEPS_LIMIT + 1] {
        let mut plan = good.clone();
        for worker in plan.workers.values_mut() {
            worker.local_steps = steps;
        }
        let findings = lint(&plan, &profiles, &spec).expect_err("beyond what auto means");
        let named = |one: &Finding| one.problem == "its steps are not the job's";
        assert!(findings.iter().any(named), "{findings:?}");
    }
    // Other steps are legal as such, and then take another time.
    let mut plan = good;
    for worker in plan.workers.values_mut() {
        worker.local_steps = AUTO_STEPS_LIMIT;
    }
    let findings = lint(&plan, &profiles, &spec).expect_err("it takes longer");
    let of_steps = |one: &Finding| one.problem.contains("steps");
    assert!(!findings.iter().any(of_steps), "{findings:?}");
    let of_time = |one: &Finding| one.problem.contains("its round takes");
    assert!(findings.iter().any(of_time), "{findings:?}");
}

#[test]
fn more_steps_are_worth_more_and_each_less_than_the_one_before() {
    let profiles = BTreeMap::from([site("a", 1.0, 8 * GIB)]);
    let (worth, fixed) = (Worth::of(&open(), &profiles), Worth::of(&spec(), &profiles));
    let gain = |steps| worth.factor(&mode(), (8, steps));
    let (mut before, mut last) = (0.0, f64::INFINITY);
    for steps in 1..=AUTO_STEPS_LIMIT {
        let more = gain(steps) - before;
        assert!(more > 0.0 && more < last, "{steps}: {more}");
        (before, last) = (gain(steps), more);
    }
    // No more than all of it, which is what a round of the steps that a job gives is held for.
    let all = fixed.factor(&mode(), (8, 1));
    assert_eq!(all, fixed.factor(&mode(), (8, 100)));
    assert!((gain(1) - all / 32.0).abs() < 1e-12);
    assert!(gain(AUTO_STEPS_LIMIT) < all && gain(AUTO_STEPS_LIMIT) > 0.8 * all);
}

#[test]
fn what_is_open_goes_through_a_sites_records_once_and_averages_enough_of_them() {
    let mut spec = open();
    let of = |spec: &Spec, records| sizes::sizes(spec, Optimizer::Adamw, (records, 64.0));
    let open = of(&spec, 40);
    let seen = |(batch, steps): &(u16, u32)| u64::from(*batch) * u64::from(*steps);
    assert!(open.iter().all(|size| (8..=40).contains(&seen(size))));
    assert!(open.contains(&(1, 32)) && open.contains(&(32, 1)));
    spec.training.batch = Choice::Fixed(4);
    let steps = |spec: &Spec, records| -> Vec<u32> {
        let sizes = of(spec, records).into_iter();
        sizes.map(|(_, steps)| steps).collect()
    };
    assert_eq!(steps(&spec, 40), [2, 3, 4, 6, 8]);
    assert_eq!(steps(&spec, 500).last(), Some(&AUTO_STEPS_LIMIT));
    // A site of so few records refuses, or has consented.
    assert_eq!(steps(&spec, 3), [1]);
    spec.training.local_steps = Choice::Fixed(100);
    assert_eq!(of(&spec, 3), [(4, 100)]);
}

#[test]
fn exact_and_fast_agree_where_steps_are_open() {
    let sites = [narrow("a", Some(0.9)), narrow("b", Some(0.9))];
    let worth = |solver| {
        let mut spec = open();
        spec.planner.solver = solver;
        let plan = plan(&spec, &sites, 2).expect("possible");
        plan.basis.expect("it was planned").expected_decrease
    };
    let (exact, fast) = (worth(Solver::Exact), worth(Solver::Fast));
    assert!(
        fast <= exact + 1e-9 && fast >= 0.99 * exact,
        "{fast} of {exact}"
    );
}

#[test]
fn a_plan_of_open_steps_is_found_again_and_stays() {
    let (spec, sites) = (of_one_rank_and_batch(), unequal());
    let parent = plan(&spec, &sites, 3).expect("possible");
    let profiles = sites.into();
    let again = replan(&Request {
        job: &parent.job,
        spec: &spec,
        profiles: &profiles,
        parent: Some(&parent),
        least_sites: 3,
    });
    let again = again.expect("possible");
    assert!(matches!(again, Replanned::Kept(_)), "{again:?}");
}

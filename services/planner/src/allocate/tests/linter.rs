//! What the linter finds: each check is broken once.

use super::zeroth::{tiny, walking};
use super::*;

/// A legal plan of two sites, and what it was made from.
struct Bench {
    spec: Spec,
    profiles: BTreeMap<WorkerName, Profile>,
    good: Plan,
}

impl Bench {
    fn of(spec: Spec) -> Self {
        let sites = [site("a", 1.0, GIB), site("b", 2.0, 8 * GIB)];
        let good = plan(&spec, &sites, 2).expect("possible");
        Self {
            spec,
            profiles: sites.into(),
            good,
        }
    }

    fn check(&self, expected: &str, spoil: impl Fn(&mut Plan)) {
        let mut plan = self.good.clone();
        spoil(&mut plan);
        let findings = lint(&plan, &self.profiles, &self.spec).expect_err(expected);
        assert_finds(&findings, expected);
    }

    /// The same, where the first worker's plan is spoiled.
    fn worker(&self, expected: &str, spoil: impl Fn(&mut WorkerPlan)) {
        self.check(expected, |plan| first(plan, &spoil));
    }

    fn replayed(&self, expected: &str, spoil: impl Fn(&mut Plan)) {
        let mut plan = self.good.clone();
        spoil(&mut plan);
        let findings = lint_replayed(&plan, &self.profiles, &self.spec).expect_err(expected);
        assert_finds(&findings, expected);
    }
}

fn first(plan: &mut Plan, spoil: impl Fn(&mut WorkerPlan)) {
    spoil(plan.workers.values_mut().next().expect("a worker"));
}

fn assert_finds(findings: &[Finding], expected: &str) {
    let texts: Vec<String> = findings.iter().map(Finding::to_string).collect();
    let found = texts.iter().any(|text| text.contains(expected));
    assert!(found, "{expected}: {texts:?}");
}

fn stranger(plan: &mut Plan) {
    let worker = plan.workers.values().next().expect("a worker").clone();
    let name = "stranger".parse().expect("legal");
    plan.workers.insert(name, worker);
}

#[test]
fn a_plan_that_does_not_fit_its_sites_is_found() {
    let bench = Bench::of(spec());
    bench.check("no workers", |plan| plan.workers.clear());
    bench.worker("bytes and may use", |w| w.batch = 1000);
    bench.worker("trains nothing", |w| w.ranks = RankTable::default());
    bench.worker("has no weight", |w| {
        w.ranks = RankTable::uniform(&[Projection::Q], 9, 1);
    });
    bench.worker("above the merged", |w| {
        w.ranks = RankTable::uniform(&[Projection::Q], 1, 64);
    });
    bench.worker("another number of threads", |w| w.threads = 64);
    bench.worker("not measured in its plan's mode", |w| {
        w.kernel = "abacus".to_owned();
    });
    bench.worker("cost model's", |w| w.predicted.step_seconds *= 0.5);
    bench.check("its round takes", |plan| plan.round_seconds *= 0.5);
    bench.check("deadline is shorter", |plan| plan.deadline_seconds = 0);
    bench.check("not measured", stranger);
    bench.check("rank is not rank_max", |plan| {
        plan.global = RankTable::uniform(&Projection::ALL, LAYERS, 16);
    });
    bench.check("both planned and excluded", |plan| {
        plan.excluded.push(SiteTrouble {
            worker: "a".parse().expect("legal"),
            trouble: Trouble::OutOfMemory,
            detail: String::new(),
        });
    });
}

#[test]
fn what_is_left_to_a_worker_or_is_not_the_jobs_is_found() {
    let bench = Bench::of(spec());
    bench.worker("steps are not the job's", |w| w.local_steps = 1);
    bench.worker("steps are not the job's", |w| w.accumulate = 2);
    bench.worker("sequence length is not", |w| w.sequence_length = 1);
    bench.worker("left open", |w| w.optimizer = Optimizer::Auto);
    bench.worker("base is left open", |w| w.base = Base::Auto);
    bench.worker("batch is not the job's", |w| w.batch = 0);
    bench.worker("more passes at once", |w| w.abreast = 2);
    bench.worker("more passes at once", |w| w.abreast = 0);
    bench.worker("rounds away", |w| {
        w.optimizer = Optimizer::Mezo;
        w.kernel = "portable-bf16-2".to_owned();
    });
}

#[test]
fn what_the_job_fixes_and_the_plan_does_not_keep_is_found() {
    let mut fixed = spec();
    fixed.adapter.rank = Choice::Fixed(5);
    fixed.adapter.targets = Choice::Fixed(vec![Projection::Q, Projection::V]);
    fixed.training.batch = Choice::Fixed(3);
    fixed.training.optimizer = Optimizer::Adamw;
    fixed.precision.base = Base::Source;
    fixed.rounds.deadline = Choice::Fixed(777);
    let bench = Bench::of(fixed);
    let ranks = |targets: &[Projection], rank| RankTable::uniform(targets, LAYERS, rank);
    let asked = [Projection::Q, Projection::V];
    bench.worker("is not the job's", |w| w.ranks = ranks(&asked, 4));
    bench.worker("targets are not the job's", |w| {
        w.ranks = ranks(&Projection::ALL, 5);
    });
    bench.worker("nothing of a target", |w| {
        w.ranks = ranks(&[Projection::Q], 5);
    });
    bench.worker("leaves a weight frozen", |w| {
        let all_but_the_last = RankTable::uniform(&asked, LAYERS - 1, 5);
        w.ranks = RankTable::of(&asked, LAYERS, all_but_the_last.trained());
    });
    bench.worker("batch is not the job's", |w| w.batch = 4);
    bench.worker("base is not the job's", |w| w.base = Base::F32);
    bench.worker("arithmetic or optimizer", |w| w.optimizer = Optimizer::Sgd);
    bench.check("deadline is not the job's", |plan| {
        plan.deadline_seconds += 1;
    });
}

#[test]
fn a_replayed_plan_must_be_one_that_the_job_can_train() {
    let bench = Bench::of(spec());
    let sound = lint_replayed(&bench.good, &bench.profiles, &bench.spec);
    assert_eq!(sound, Ok(()));
    bench.replayed("no workers", |plan| plan.workers.clear());
    bench.replayed("not measured", stranger);
    bench.replayed("the job's rank_max is 32", |plan| {
        plan.global = RankTable::uniform(&Projection::ALL, LAYERS, 16);
    });
    let first_is = |expected: &str, spoil: &dyn Fn(&mut WorkerPlan)| {
        bench.replayed(expected, |plan| first(plan, spoil));
    };
    first_is("trains nothing", &|w| w.ranks = RankTable::default());
    first_is("has no weight", &|w| {
        w.ranks = RankTable::uniform(&[Projection::Q], 9, 1);
    });
    first_is("above the merged", &|w| {
        w.ranks = RankTable::uniform(&[Projection::Q], 1, 64);
    });
    first_is("base is left open", &|w| w.base = Base::Auto);
    // What it costs, and what this job would have chosen, is not asked.
    let mut other = bench.good.clone();
    first(&mut other, |w| w.batch = 1000);
    for worker in other.workers.values_mut() {
        worker.local_steps = 1;
    }
    let found = lint_replayed(&other, &bench.profiles, &bench.spec);
    assert_eq!(found, Ok(()));
    // Unequal steps are, for what they do to the merge.
    let fewer = |w: &mut WorkerPlan| w.local_steps = 1;
    first_is("set aggregation.normalize to fednova", &fewer);
    let mut normalized = bench.spec.clone();
    normalized.aggregation.normalize = domain::job::aggregation::Normalize::Fednova;
    let mut uneven = bench.good.clone();
    first(&mut uneven, fewer);
    let found = lint_replayed(&uneven, &bench.profiles, &normalized);
    assert_eq!(found, Ok(()));
    let mut plan = bench.good.clone();
    plan.replayed_from = Some(JobId::from_bits(7));
    first(&mut plan, |w| w.ranks = RankTable::default());
    let cause = admissible(plan, &bench.profiles, &bench.spec).expect_err("illegal");
    assert_eq!(cause.kind, CauseKind::InputUnusable);
    let names = format!("the plan of {} cannot be replayed", JobId::from_bits(7));
    assert!(cause.message.starts_with(&names), "{}", cause.message);
    assert!(
        cause.message.contains("a: it trains nothing"),
        "{}",
        cause.message
    );
}

/// The server and whoever catches up count directions by the job's steps, a worker by its plan's: others than were
/// measured would be walked.
#[test]
fn a_plan_replayed_where_all_sites_train_zeroth_order_must_walk_as_the_job_counts() {
    let asked = walking("shared", "scalars");
    let sites = [tiny(8 * GIB)];
    let good = plan(&asked, &sites, 1).expect("possible");
    let bench = Bench {
        spec: asked,
        profiles: sites.into(),
        good,
    };
    let sound = lint_replayed(&bench.good, &bench.profiles, &bench.spec);
    assert_eq!(sound, Ok(()));
    let first_is = |expected: &str, spoil: &dyn Fn(&mut WorkerPlan)| {
        bench.replayed(expected, |plan| first(plan, spoil));
    };
    first_is("a: it trains by gradients, and the job by", &|w| {
        w.optimizer = Optimizer::Adamw;
    });
    first_is("give training.local_steps as the job", &|w| {
        w.local_steps += 1;
    });
    first_is("does not train the whole merged adapter", &|w| {
        w.ranks = RankTable::uniform(&Projection::ALL, LAYERS, 4);
    });
    // Where each site walks its own way, its steps are counted by its plan.
    let mut own = bench.good.clone();
    first(&mut own, |w| w.local_steps += 1);
    let apart = walking("per-worker", "scalars");
    assert_eq!(lint_replayed(&own, &bench.profiles, &apart), Ok(()));
    // Where each site may train its own way, none of it is asked.
    let beside = Spec {
        training: spec().training,
        ..bench.spec.clone()
    };
    let mut other = bench.good.clone();
    first(&mut other, |w| {
        w.local_steps += 1;
        w.ranks = RankTable::uniform(&Projection::ALL, LAYERS, 4);
    });
    let found = lint_replayed(&other, &bench.profiles, &beside);
    assert_eq!(found, Ok(()));
}

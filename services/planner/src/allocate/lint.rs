//! Whether a plan is legal for a job and its sites, checked independently of how it was made.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use domain::adapter::Projection;
use domain::id::WorkerName;
use domain::job::aggregation::Normalize;
use domain::job::choice::Choice;
use domain::job::spec::{Base, Optimizer, Spec};
use domain::plan::{Plan, WorkerPlan};
use domain::profile::Profile;

use super::mode;
use super::predict::{Conditions, Size, memory_margin, most_seconds, needed_bytes, time_margin};

/// Relative difference of two figures that is put down to rounding.
const ROUNDING: f64 = 1e-9;

/// One thing that is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// At which worker; `None`: with the plan as a whole.
    pub worker: Option<WorkerName>,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.worker {
            Some(worker) => write!(f, "{worker}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

/// Checks a plan: it has workers; every worker fits its memory and the round; weights are known, ranks
/// legal, what the job fixes is as fixed; nothing is left to the worker.
///
/// # Errors
/// Everything that is wrong.
pub fn lint(
    plan: &Plan,
    profiles: &BTreeMap<WorkerName, Profile>,
    spec: &Spec,
) -> Result<(), Vec<Finding>> {
    let mut findings = Vec::new();
    let mut find = |worker: Option<&WorkerName>, problem: String| {
        findings.push(Finding {
            worker: worker.cloned(),
            problem,
        });
    };
    if plan.workers.is_empty() {
        find(None, "the plan has no workers".to_owned());
    }
    if plan.global.max() != spec.adapter.rank_max {
        find(None, "the merged adapter's rank is not rank_max".to_owned());
    }
    if (plan.deadline_seconds as f64) < plan.round_seconds {
        find(None, "the deadline is shorter than the round".to_owned());
    }
    if let Choice::Fixed(seconds) = spec.rounds.deadline
        && plan.deadline_seconds != u64::from(seconds)
    {
        find(None, "the deadline is not the job's".to_owned());
    }
    for trouble in &plan.excluded {
        if plan.workers.contains_key(&trouble.worker) {
            let problem = "it is both planned and excluded".to_owned();
            find(Some(&trouble.worker), problem);
        }
    }
    for (name, worker) in &plan.workers {
        match profiles.get(name) {
            None => find(Some(name), "it was not measured".to_owned()),
            Some(profile) => {
                for problem in problems(plan, worker, profile, (spec, profiles.len())) {
                    find(Some(name), problem);
                }
            }
        }
    }
    if findings.is_empty() {
        Ok(())
    } else {
        Err(findings)
    }
}

fn problems(
    plan: &Plan,
    worker: &WorkerPlan,
    profile: &Profile,
    (spec, sites): (&Spec, usize),
) -> Vec<String> {
    let mut problems = choice_problems(plan, worker, profile, spec);
    let measured = &profile.measurement;
    let Some(fitted) = profile.mode(&worker.mode()) else {
        problems.push("it was not measured in its plan's mode".to_owned());
        return problems;
    };
    let conditions = Conditions::new(measured, spec, &plan.global, sites);
    let predicted = conditions.predict(fitted, &worker.ranks, Size::of(worker));
    let needed = needed_bytes(&predicted, memory_margin(fitted));
    let mut refuse = |wrong: bool, problem: String| {
        if wrong {
            problems.push(problem);
        }
    };
    let limit = measured.memory_limit_bytes;
    refuse(
        needed > limit as f64,
        format!("it needs {needed:.0} bytes and may use {limit}"),
    );
    let round = predicted.round_seconds;
    refuse(
        round > plan.round_seconds * (1.0 + ROUNDING),
        format!(
            "its round takes {round} s, the plan's {}",
            plan.round_seconds
        ),
    );
    let most = most_seconds(spec) / (1.0 + time_margin(fitted));
    refuse(
        round > most * (1.0 + ROUNDING),
        format!("its round takes {round} s, the job's deadlines leave {most}"),
    );
    refuse(
        worker.predicted != predicted,
        "its prediction is not the cost model's".to_owned(),
    );
    problems
}

/// Checks a plan that was made for another job and is to be replayed: it has workers, and each trains something, of
/// weights that its model has, at ranks that this job's merged adapter holds, and in as many steps as the others unless
/// the merge is normalized by them; and where all sites train zeroth-order, what makes them walk as this job replays
/// them. It is not asked what it costs, nor whether it is what this job would have chosen: it is replayed because its
/// result is wanted, and a worker that cannot honour it says so.
///
/// # Errors
/// Everything that is wrong.
pub fn lint_replayed(
    plan: &Plan,
    profiles: &BTreeMap<WorkerName, Profile>,
    spec: &Spec,
) -> Result<(), Vec<Finding>> {
    let mut findings = Vec::new();
    let mut find = |worker: Option<&WorkerName>, problem: String| {
        findings.push(Finding {
            worker: worker.cloned(),
            problem,
        });
    };
    if plan.workers.is_empty() {
        find(None, "the plan has no workers".to_owned());
    }
    let (merged, asked) = (plan.global.max(), spec.adapter.rank_max);
    if merged != asked {
        let problem =
            format!("its merged adapter has rank {merged}, the job's rank_max is {asked}");
        find(None, problem);
    }
    let steps: BTreeSet<u32> = plan.workers.values().map(|w| w.local_steps).collect();
    if steps.len() > 1 && spec.aggregation.normalize == Normalize::None {
        let problem = "its sites make unequal steps, and those of more would move the merge further: set \
                       aggregation.normalize to fednova";
        find(None, problem.to_owned());
    }
    for (name, worker) in &plan.workers {
        let Some(profile) = profiles.get(name) else {
            find(Some(name), "it was not measured".to_owned());
            continue;
        };
        for problem in rank_problems(plan, worker, profile, spec) {
            find(Some(name), problem);
        }
        let walked = walk_problems(plan, worker, spec);
        for (wrong, problem) in open_problems(worker, spec).into_iter().chain(walked) {
            if wrong {
                find(Some(name), problem.to_owned());
            }
        }
    }
    if findings.is_empty() {
        Ok(())
    } else {
        Err(findings)
    }
}

/// What is wrong with the ranks, whichever job they were chosen for.
fn rank_problems(plan: &Plan, worker: &WorkerPlan, profile: &Profile, spec: &Spec) -> Vec<String> {
    let weights = profile.measurement.weights.iter();
    let known: BTreeSet<_> = weights.map(|weight| weight.name).collect();
    let mut problems = Vec::new();
    for (weight, rank) in worker.ranks.trained() {
        if !known.contains(&weight) {
            problems.push(format!("it has no weight {weight}"));
        }
        if rank > plan.global.rank(weight) || rank > spec.adapter.rank_max {
            problems.push(format!("rank {rank} of {weight} is above the merged one"));
        }
    }
    problems
}

/// What no plan may leave to its worker, and what no job of this kind has sites do.
fn open_problems(worker: &WorkerPlan, spec: &Spec) -> [(bool, &'static str); 5] {
    [
        (worker.ranks.max() == 0, "it trains nothing"),
        (
            worker.optimizer == Optimizer::Auto,
            "its optimizer is left open",
        ),
        (worker.base == Base::Auto, "its base is left open"),
        (
            worker.optimizer == Optimizer::Mezo && !spec.takes_zeroth_order(),
            "it trains zeroth-order in a job that does not",
        ),
        (
            !mode::has_slope(&worker.mode()),
            "its arithmetic rounds away what a zeroth-order step looks for",
        ),
    ]
}

/// What keeps a worker from walking as the job replays it, where all sites train zeroth-order: what is replayed is the whole
/// merged adapter, and where all go along the same directions a worker counts these by its plan's steps and everybody else by
/// the job's.
fn walk_problems(plan: &Plan, worker: &WorkerPlan, spec: &Spec) -> [(bool, &'static str); 3] {
    let training = &spec.training;
    let walks = training.is_zeroth_order();
    [
        (
            walks && worker.optimizer != Optimizer::Mezo,
            "it trains by gradients, and the job by forward passes alone",
        ),
        (
            training.shares_directions() && !training.allows_steps(worker.local_steps),
            "its steps are not the job's, by which directions are counted: give training.local_steps as the job that \
             was planned for did",
        ),
        (
            walks && worker.ranks != plan.global,
            "it does not train the whole merged adapter",
        ),
    ]
}

fn is_frozen(worker: &WorkerPlan, target: Projection) -> bool {
    worker.ranks.row(target).iter().all(|rank| *rank == 0)
}

/// What is wrong with the choices themselves, costs apart.
fn choice_problems(
    plan: &Plan,
    worker: &WorkerPlan,
    profile: &Profile,
    spec: &Spec,
) -> Vec<String> {
    let measured = &profile.measurement;
    let mut problems = rank_problems(plan, worker, profile, spec);
    for (weight, rank) in worker.ranks.trained() {
        if spec
            .adapter
            .rank
            .fixed()
            .is_some_and(|fixed| *fixed != rank)
        {
            problems.push(format!("rank {rank} of {weight} is not the job's"));
        }
    }
    let targets: BTreeSet<_> = worker.ranks.targets().collect();
    let asked = spec.adapter.targets.fixed();
    let wanted = spec.training.batch.fixed();
    let checks = [
        (
            asked.is_some_and(|asked| targets != asked.iter().copied().collect()),
            "its targets are not the job's",
        ),
        (
            asked.is_some_and(|asked| asked.iter().any(|target| is_frozen(worker, *target))),
            "it trains nothing of a target that the job names",
        ),
        (
            spec.adapter.rank.fixed().is_some()
                && targets
                    .iter()
                    .any(|target| worker.ranks.row(*target).contains(&0)),
            "it leaves a weight frozen whose rank the job fixes",
        ),
        (
            worker.batch == 0 || wanted.is_some_and(|batch| *batch != worker.batch),
            "its batch is not the job's",
        ),
        (
            !spec.training.allows_steps(worker.local_steps)
                || worker.accumulate != spec.training.accumulate,
            "its steps are not the job's",
        ),
        (
            worker.abreast == 0
                || (worker.abreast > 1
                    && (worker.optimizer != Optimizer::Mezo
                        || worker.abreast > spec.training.mezo.abreast)),
            "it computes more passes at once than the job allows",
        ),
        (
            worker.sequence_length != spec.training.sequence_length,
            "its sequence length is not the job's",
        ),
        (
            spec.precision.base != Base::Auto && worker.base != spec.precision.base,
            "its base is not the job's",
        ),
        (
            !mode::is_open(&worker.mode(), spec),
            "its arithmetic or optimizer is not the job's",
        ),
        (
            worker.threads != measured.threads,
            "it was measured with another number of threads",
        ),
    ];
    let checks = open_problems(worker, spec).into_iter().chain(checks);
    let wrong = checks.filter(|(wrong, _)| *wrong);
    problems.extend(wrong.map(|(_, problem)| problem.to_owned()));
    problems
}

//! Whether a running job gets another plan, and which.
//!
//! Moving adapters from one rank to another, and telling every worker, is not free, and predictions are off by
//! some percent. So a plan stays as long as it can: until a site came or went, one no longer fits, or
//! another plan is better by more than [`BOUND`]: by what the planner makes as small as it can (`finish`), the waiting of
//! the fastest site included. And in a new plan a worker keeps what it has, where that
//! still fits and is not worse by more than [`BOUND`].

use std::collections::BTreeMap;

use domain::cause::Cause;
use domain::id::WorkerName;
use domain::plan::{Plan, Shrunk, WorkerPlan};

use super::finish::Round;
use super::predict::{Size, memory_margin, needed_bytes};
use super::site::{Site, Usable};
use super::solve::Decision;
use super::worth::Worth;
use super::{Made, Request, checked, finish, space};

/// \[own\] How much better a plan must be, as a share: predictions of a step are promised to 15 %, and what
/// a new plan gains less than half of that could be the model's error.
pub const BOUND: f64 = 0.07;

/// How the explanation of a worker that keeps what it has goes on.
const KEPT: &str = " This is kept from plan ";

/// What counts as time beside a round's own.
const WAITED: &str = "with half of what the first to finish waits";

/// Above the fleet's time by rounding alone.
const ROUNDING: f64 = 1e-9;

/// What becomes of the parent.
#[derive(Debug, Clone, PartialEq)]
pub enum Replanned {
    /// It stays, and why.
    Kept(String),
    /// This one takes its place; `replaces` says why, `shrunk` which weights lose rank.
    Replaced(Box<Plan>),
}

/// Looks at the parent of a request again, with today's profiles of the sites that take part today.
///
/// # Errors
/// As [`super::allocate`].
pub fn replan(request: &Request<'_>) -> Result<Replanned, Cause> {
    let Some(parent) = request.parent else {
        return super::allocate(request).map(|plan| Replanned::Replaced(Box::new(plan)));
    };
    let usable = Usable::of(request.profiles, request.spec);
    let worth = Worth::of(request.spec, request.profiles);
    let Some(space) = space(request, &usable) else {
        return Err(super::impossible(request, 0, usable.excluded));
    };
    let admitted = usable.admit(request.spec, &space, &worth);
    let made = Made::new(request, &space, &worth, admitted)?;
    let mut reasons = moved(parent, &made.sites);
    if reasons.is_empty() {
        let better = better(standing(parent, &made.sites), reached(&made));
        if better.is_nan() || better <= BOUND {
            return Ok(Replanned::Kept(format!(
                "another plan would reach the same in {:.1} % less time ({WAITED}), which is not more than {:.0} %",
                100.0 * better.max(0.0),
                100.0 * BOUND,
            )));
        }
        reasons.push(format!(
            "it reaches the same in {:.1} % less time ({WAITED})",
            100.0 * better
        ));
    }
    let mut plan = made.plan(request, |site, decision| {
        kept(parent, site, decision, made.seconds)
    });
    if is_same(&plan, parent) {
        return Ok(Replanned::Kept("another plan would be the same".to_owned()));
    }
    plan.replaces = reasons;
    checked(request, plan).map(|plan| Replanned::Replaced(Box::new(plan)))
}

/// Whether the same workers train the same.
fn is_same(plan: &Plan, parent: &Plan) -> bool {
    let trains = |(name, worker): (&WorkerName, &WorkerPlan)| {
        (
            name.clone(),
            worker.mode(),
            (worker.batch, worker.local_steps),
            worker.ranks.clone(),
        )
    };
    plan.excluded == parent.excluded
        && plan
            .workers
            .iter()
            .map(trains)
            .eq(parent.workers.iter().map(trains))
}

/// The sites that came or went, and those for which the parent is no longer possible.
fn moved(parent: &Plan, sites: &[Site<'_>]) -> Vec<String> {
    let here: BTreeMap<&WorkerName, &Site<'_>> =
        sites.iter().map(|site| (site.name, site)).collect();
    let gone = parent
        .workers
        .keys()
        .filter(|name| !here.contains_key(*name));
    let came = here
        .keys()
        .filter(|name| !parent.workers.contains_key(**name));
    let gone = gone.map(|name| format!("{name} can no longer take part"));
    let came = came.map(|name| format!("{name} takes part"));
    let unfit = here.values().filter_map(|site| {
        let worker = parent.workers.get(site.name)?;
        let why = unfit(site, worker)?;
        Some(format!("what {} trains {why}", site.name))
    });
    gone.chain(came).chain(unfit).collect()
}

/// Why a worker can no longer do what it was planned.
fn unfit(site: &Site<'_>, worker: &WorkerPlan) -> Option<String> {
    let Some((index, predicted)) = now(site, worker) else {
        return Some("was not measured so".to_owned());
    };
    let (lane, choice) = (site.open.lanes.get(index)?, site.open.choices.get(index)?);
    let needed = needed_bytes(&predicted, memory_margin(lane.mode)).max(lane.scoring);
    if needed > site.memory() {
        return Some(format!(
            "needs {} of memory, and it may use {}",
            super::units::bytes(needed),
            super::units::bytes(site.memory()),
        ));
    }
    (predicted.round_seconds > choice.longest).then(|| {
        format!(
            "takes {} a round, and the job's deadlines leave {}",
            super::units::seconds(predicted.round_seconds),
            super::units::seconds(choice.longest),
        )
    })
}

/// Which of the site's choices a worker's plan is, and what today's profile predicts of it.
fn now(site: &Site<'_>, worker: &WorkerPlan) -> Option<(usize, domain::plan::Prediction)> {
    let (mode, threads) = (worker.mode(), site.profile.measurement.threads);
    let index = site.open.lanes.iter().position(|lane| {
        let size = (lane.batch, lane.steps);
        lane.mode.mode == mode
            && size == (worker.batch, worker.local_steps)
            && worker.threads == threads
    })?;
    let lane = site.open.lanes.get(index)?;
    let conditions = &site.source.conditions;
    Some((
        index,
        conditions.predict(lane.mode, &worker.ranks, Size::of(worker)),
    ))
}

/// What a worker's plan is worth today.
fn value(site: &Site<'_>, worker: &WorkerPlan) -> Option<f64> {
    let (index, _) = now(site, worker)?;
    let choice = site.open.choices.get(index)?;
    Some(choice.value(site.source.space.gain(&worker.ranks)))
}

/// The share of the cost of a round that another saves.
fn better(old: Round, new: Round) -> f64 {
    1.0 - new.cost() / old.cost()
}

/// A round under the parent, by today's profiles.
fn standing(parent: &Plan, sites: &[Site<'_>]) -> Round {
    Round::of(sites.iter().filter_map(|site| {
        let worker = parent.workers.get(site.name)?;
        let (_, predicted) = now(site, worker)?;
        Some((site.share, value(site, worker)?, predicted.round_seconds))
    }))
}

/// A round under a new plan.
fn reached(made: &Made<'_>) -> Round {
    Round::of(made.sites.iter().filter_map(|site| {
        let (value, seconds) = finish::reach(site, made.seconds)?;
        Some((site.share, value, seconds))
    }))
}

/// The parent's plan for a worker, with today's prediction, where it still fits and is worth about as much.
fn kept(
    parent: &Plan,
    site: &Site<'_>,
    decision: &Decision<'_>,
    seconds: f64,
) -> Option<(WorkerPlan, f64)> {
    let worker = parent.workers.get(site.name)?;
    if unfit(site, worker).is_some() {
        return None;
    }
    let (_, predicted) = now(site, worker)?;
    let value = value(site, worker)?;
    let best = decision.solution.value;
    let enough = value >= best - BOUND * best.abs();
    (enough && predicted.round_seconds <= seconds * (1.0 + ROUNDING)).then(|| {
        let mut kept = WorkerPlan {
            predicted,
            ..worker.clone()
        };
        if !kept.why.text.contains(KEPT) {
            let version = parent.version.0;
            kept.why.text.push_str(&format!(
                "{KEPT}{version}, with its figures: no other gains more than {:.0} %.",
                100.0 * BOUND
            ));
        }
        (kept, value)
    })
}

/// The weights whose rank is lower than in the parent.
pub(super) fn shrunk(parent: &Plan, workers: &BTreeMap<WorkerName, WorkerPlan>) -> Vec<Shrunk> {
    let mut shrunk = Vec::new();
    for (name, worker) in workers {
        let Some(before) = parent.workers.get(name) else {
            continue;
        };
        for (weight, from) in before.ranks.trained() {
            let to = worker.ranks.rank(weight);
            if to < from {
                shrunk.push(Shrunk {
                    worker: name.clone(),
                    weight,
                    from,
                    to,
                });
            }
        }
    }
    shrunk
}

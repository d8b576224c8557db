//! From a job and the profiles of its sites to a plan: per worker the ranks, the batch, the steps and the mode that fit
//! its memory and let the fleet finish a round together, and the reason for each choice in words.
//!
//! It promises: what the job fixes is never changed; no worker is predicted to pass its memory or the
//! round; every cost follows from measurements, and so does every worth as far as it was measured (`worth`
//! and the plan's own [`Basis`] say what was not); the same input gives the same bytes; a plan that is
//! returned has passed its own linter; and where no plan exists, the refusal names which site lacks
//! what, by how much, and what can be done.
//!
//! It reads as: which sites can be planned with (`site`, `lacking`, `remedy`), what can be trained and what that is worth
//! (`space`, `importance`, `worth`, `noise`), what it costs (`mode`, `lane`, `predict`), the fleet's time
//! (`finish`), each worker's program (`program`, `solve`), and why (`explain`).

mod abreast;
mod explain;
mod finish;
mod importance;
mod lacking;
mod lane;
mod lint;
mod mode;
mod noise;
mod predict;
pub mod program;
mod remedy;
mod replan;
mod replay;
mod site;
mod sizes;
mod solve;
mod space;
pub mod synthetic;
mod units;
mod worth;

#[cfg(test)]
mod tests;

pub use lint::{Finding, lint, lint_replayed};
pub use noise::BatchNoise;
pub use predict::adapter_bytes;
pub use replan::{Replanned, replan};
pub use replay::{admissible, replay, taken_back};

use std::collections::BTreeMap;

use domain::cause::{Cause, CauseKind, SiteTrouble};
use domain::id::{JobId, WorkerName};
use domain::job::planner::Solver;
use domain::job::spec::Spec;
use domain::plan::{Basis, Plan, PlanVersion, WorkerPlan};
use domain::profile::Profile;

use explain::Chosen;
use predict::Size;
use program::exact::Budget;
use site::{Admitted, Site, Usable};
use solve::Decision;
use space::Space;
use worth::Worth;

/// Seconds added to the round's deadline, whatever its length: enough for a process that died to be
/// started again and to find its task.
const RESTART_SECONDS: f64 = 30.0;

/// How many times its predicted length a round may take, unless the job says otherwise: a site that is
/// three times slower than it was measured is no longer the site that was planned for.
const DEADLINE_FACTOR: f64 = 3.0;

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whose plan.
    pub job: &'a JobId,
    /// What the job asks for, checked.
    pub spec: &'a Spec,
    /// The sites that were measured.
    pub profiles: &'a BTreeMap<WorkerName, Profile>,
    /// The plan that this one replaces, if any.
    pub parent: Option<&'a Plan>,
    /// Sites without which there is no plan.
    pub least_sites: usize,
}

/// Makes a plan. One with a parent replaces it, however little it gains; whether it should is [`replan`]'s
/// question.
///
/// # Errors
/// `PlanImpossible` if fewer sites than the job needs can take part: the message says what the largest
/// obstacle is at each, with figures, and the sites are listed. `Internal` if the plan fails its own
/// linter.
pub fn allocate(request: &Request<'_>) -> Result<Plan, Cause> {
    let usable = Usable::of(request.profiles, request.spec);
    let worth = Worth::of(request.spec, request.profiles);
    let Some(space) = space(request, &usable) else {
        return Err(impossible(request, 0, usable.excluded));
    };
    let admitted = usable.admit(request.spec, &space, &worth);
    let made = Made::new(request, &space, &worth, admitted)?;
    let plan = made.plan(request, |_, _| None);
    checked(request, plan)
}

/// What the usable sites may train; `None` if there are none.
fn space(request: &Request<'_>, usable: &Usable<'_>) -> Option<Space> {
    let profiles = usable.profiles.iter().map(|(_, profile)| *profile);
    let (targets, layers) = (&usable.targets, usable.layers);
    Space::of(request.spec, targets, layers, usable.weights, profiles)
}

/// The sites, the time in which they finish, and what solves their programs.
struct Made<'a> {
    sites: Vec<Site<'a>>,
    excluded: Vec<SiteTrouble>,
    space: &'a Space,
    worth: &'a Worth,
    seconds: f64,
    solver: Solver,
}

impl<'a> Made<'a> {
    fn new(
        request: &Request<'_>,
        space: &'a Space,
        worth: &'a Worth,
        admitted: Admitted<'a>,
    ) -> Result<Self, Cause> {
        let Admitted { sites, excluded } = admitted;
        if sites.is_empty() || sites.len() < request.least_sites {
            return Err(impossible(request, sites.len(), excluded));
        }
        Ok(Self {
            seconds: finish::together(&sites),
            solver: solve::solver(request.spec.planner.solver, &sites),
            sites,
            excluded,
            space,
            worth,
        })
    }

    /// The plan. `keep` may give a worker another decision than the best one within the fleet's time.
    fn plan<'s>(
        &'s self,
        request: &Request<'_>,
        keep: impl Fn(&'s Site<'a>, &Decision<'a>) -> Option<(WorkerPlan, f64)>,
    ) -> Plan {
        let mut workers = BTreeMap::new();
        let (mut decrease, mut proven, mut gap) = (0.0, true, 0.0f64);
        let mut budget = Budget::default();
        for site in &self.sites {
            // Invariant: the fleet's time is one in which every site has a choice.
            let decision = solve::decide(self.solver, site, self.seconds, &mut budget);
            let Some(decision) = decision else {
                continue;
            };
            proven &= decision.proven;
            gap = gap.max(decision.gap);
            let (worker, value) = keep(site, &decision).unwrap_or_else(|| {
                let worker = worker_plan(site, &decision, self.seconds);
                (worker, decision.solution.value)
            });
            decrease += site.share * value;
            workers.insert(site.name.clone(), worker);
        }
        let slowest = workers.values().map(|w| w.predicted.round_seconds);
        let round_seconds = slowest.fold(0.0, f64::max);
        let parent = request.parent;
        Plan {
            job: request.job.clone(),
            version: PlanVersion(parent.map_or(1, |parent| parent.version.0 + 1)),
            parent: parent.map(|parent| parent.version),
            from_round: 1,
            replayed_from: None,
            round_seconds,
            deadline_seconds: deadline(request.spec, round_seconds),
            global: self.space.uniform(request.spec.adapter.rank_max),
            shrunk: parent.map_or_else(Vec::new, |parent| replan::shrunk(parent, &workers)),
            workers,
            excluded: self.excluded.clone(),
            basis: Some(Basis {
                ranks: self.space.basis,
                agreement: self.space.agreement,
                noise_records: self.worth.noise.records,
                noise_measured_on: self.worth.noise.measured_on,
                loss: self.worth.loss,
                expected_decrease: decrease,
                solver: self.solver,
                proven,
                gap: Some(gap),
            }),
            replaces: Vec::new(),
        }
    }
}

/// The plan, if its own linter finds nothing.
fn checked(request: &Request<'_>, plan: Plan) -> Result<Plan, Cause> {
    match lint(&plan, request.profiles, request.spec) {
        Ok(()) => Ok(plan),
        Err(findings) => Err(defective(&findings)),
    }
}

fn worker_plan(site: &Site<'_>, decision: &Decision<'_>, fleet_seconds: f64) -> WorkerPlan {
    let (source, lane) = (&site.source, &decision.lane);
    let ranks = source.space.table(&decision.solution.levels);
    let abreast = abreast::passes(site, lane, &ranks);
    let size = Size {
        batch: lane.batch,
        steps: lane.steps,
        abreast,
    };
    let predicted = source.conditions.predict(lane.mode, &ranks, size);
    let chosen = Chosen {
        site,
        decision,
        ranks: &ranks,
        gain: source.space.gain(&ranks),
        predicted: &predicted,
        fleet_seconds,
    };
    let why = chosen.explain();
    let mode = lane.mode.mode.clone();
    WorkerPlan {
        ranks,
        base: mode.base,
        kernel: mode.kernel,
        threads: site.profile.measurement.threads,
        batch: lane.batch,
        accumulate: source.spec.training.accumulate,
        local_steps: lane.steps,
        sequence_length: source.spec.training.sequence_length,
        checkpoint: mode.checkpoint,
        abreast,
        optimizer: mode.optimizer,
        predicted,
        why,
    }
}

fn deadline(spec: &Spec, round_seconds: f64) -> u64 {
    match spec.rounds.deadline.fixed() {
        Some(seconds) => u64::from(*seconds),
        // Saturates where the prediction passes u64, which no fit does.
        None => (DEADLINE_FACTOR * round_seconds + RESTART_SECONDS).ceil() as u64,
    }
}

fn impossible(request: &Request<'_>, able: usize, excluded: Vec<SiteTrouble>) -> Cause {
    let (all, least) = (request.profiles.len(), request.least_sites.max(1));
    let mut message = format!("{able} of {all} sites can take part, {least} must");
    // A message stays readable; the list of sites is complete.
    for trouble in excluded.iter().take(3) {
        message.push_str(&format!("; {}: {}", trouble.worker, trouble.detail));
    }
    message.push_str(&remedy::next(request.spec, able, &excluded));
    Cause {
        kind: CauseKind::PlanImpossible,
        message,
        sites: excluded,
    }
}

fn defective(findings: &[Finding]) -> Cause {
    let findings: Vec<String> = findings.iter().take(5).map(Finding::to_string).collect();
    Cause {
        kind: CauseKind::Internal,
        message: format!("the planner made an illegal plan: {}", findings.join("; ")),
        sites: Vec::new(),
    }
}

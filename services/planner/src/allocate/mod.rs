//! From a job and the profiles of its sites to a plan: per worker a rank and a batch that fit its
//! memory and let the fleet finish a round together, and the reason for each choice in words.
//!
//! It promises: what the job fixes is never changed; no worker is predicted to pass its memory or the
//! round; every cost in a plan follows from measurements, and so does the worth of a batch (that of a
//! rank rests on an assumption that `finish` names); the same input gives the same bytes; a plan that is returned has passed its own
//! linter; and where no plan exists, the refusal names which site lacks what, and by how much.
//!
//! It does not choose per weight (all target weights of a worker have one rank), and of the modes that
//! were measured it plans the fastest first-order one without checkpointing.

mod candidate;
mod explain;
mod finish;
mod lint;
mod noise;
mod predict;
mod replay;
mod site;
mod units;

#[cfg(test)]
mod tests;

pub use finish::gain;
pub use lint::{Finding, lint};
pub use noise::BatchNoise;
pub use predict::adapter_bytes;
pub use replay::replay;

use std::collections::BTreeMap;

use domain::adapter::RankTable;
use domain::cause::{Cause, CauseKind, SiteTrouble};
use domain::id::{JobId, WorkerName};
use domain::job::spec::Spec;
use domain::plan::{Plan, PlanVersion, WorkerPlan};
use domain::profile::Profile;

use candidate::Candidate;
use site::Site;

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
    /// The plan that this one replaces, if any; only its version is used.
    pub parent: Option<&'a Plan>,
    /// Sites without which there is no plan.
    pub least_sites: usize,
}

/// Makes a plan.
///
/// # Errors
/// `PlanImpossible` if fewer sites than the job needs can take part: the message says what the largest
/// obstacle is at each, with figures, and the sites are listed. `Internal` if the plan fails its own
/// linter.
pub fn allocate(request: &Request<'_>) -> Result<Plan, Cause> {
    let (sites, excluded) = site::admit(request);
    if sites.is_empty() || sites.len() < request.least_sites {
        return Err(impossible(request, sites.len(), excluded));
    }
    let round_seconds = finish::together(&sites);
    let mut workers = BTreeMap::new();
    for site in &sites {
        // Invariant: the fleet's time is one in which every site has a choice.
        if let Some(chosen) = site.best_within(round_seconds) {
            let plan = worker_plan(request.spec, site, chosen, round_seconds);
            workers.insert(site.name.clone(), plan);
        }
    }
    let slowest = workers.values().map(|w| w.predicted.round_seconds);
    let round_seconds = slowest.fold(0.0, f64::max);
    let plan = Plan {
        job: request.job.clone(),
        version: PlanVersion(request.parent.map_or(1, |parent| parent.version.0 + 1)),
        parent: request.parent.map(|parent| parent.version),
        replayed_from: None,
        round_seconds,
        deadline_seconds: deadline(request.spec, round_seconds),
        global: sites.first().map_or_else(RankTable::default, |site| {
            site.table(request.spec.adapter.rank_max)
        }),
        workers,
        excluded,
    };
    match lint(&plan, request.profiles, request.spec) {
        Ok(()) => Ok(plan),
        Err(findings) => Err(defective(&findings)),
    }
}

fn worker_plan(spec: &Spec, site: &Site<'_>, chosen: &Candidate, fleet_seconds: f64) -> WorkerPlan {
    let measured = &site.profile.measurement;
    let mode = site.mode.mode.clone();
    WorkerPlan {
        ranks: site.table(chosen.rank),
        base: mode.base,
        kernel: mode.kernel,
        threads: measured.threads,
        batch: chosen.batch,
        local_steps: spec.training.local_steps,
        sequence_length: spec.training.sequence_length,
        checkpoint: mode.checkpoint,
        optimizer: mode.optimizer,
        predicted: chosen.predicted.clone(),
        why: explain::explain(spec, site, chosen, fleet_seconds),
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

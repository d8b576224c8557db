//! Another job's plan, taken over as it is, so that its result can be reproduced byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use domain::cause::{Cause, CauseKind, SiteTrouble, Trouble};
use domain::id::{JobId, WorkerName};
use domain::job::Job;
use domain::job::spec::Spec;
use domain::plan::{Plan, PlanVersion};
use domain::profile::Profile;

use super::lint::{Finding, lint_replayed};

/// The plan of `other` as version 1 of `job`'s. Participants that it does not name are excluded.
///
/// # Errors
/// `InputUnusable` if a worker of the other plan is not among the participants: the result would be
/// another one.
pub fn replay(
    other: &Plan,
    job: &JobId,
    participants: &BTreeSet<WorkerName>,
) -> Result<Plan, Cause> {
    let absent = other.workers.keys().filter(|w| !participants.contains(*w));
    let absent: Vec<SiteTrouble> = absent
        .map(|worker| SiteTrouble {
            worker: worker.clone(),
            trouble: Trouble::Unreachable,
            detail: format!("it is named by the plan of {} and not here", other.job),
        })
        .collect();
    if !absent.is_empty() || other.workers.is_empty() {
        let message = format!(
            "version {} of the plan of {} cannot be replayed: {} of its {} workers are not here",
            other.version.0,
            other.job,
            absent.len(),
            other.workers.len(),
        );
        return Err(Cause {
            kind: CauseKind::InputUnusable,
            message,
            sites: absent,
        });
    }
    let mut plan = other.clone();
    let strangers = participants
        .iter()
        .filter(|w| !other.workers.contains_key(*w));
    plan.excluded = strangers
        .map(|worker| SiteTrouble {
            worker: worker.clone(),
            trouble: Trouble::PlanUnsupported,
            detail: format!("the plan replayed from {} does not name it", other.job),
        })
        .collect();
    plan.job = job.clone();
    plan.version = PlanVersion(1);
    plan.parent = None;
    plan.replayed_from = Some(other.job.clone());
    Ok(plan)
}

/// Sites of a job that replays another's plans which were given up for nothing but that the plan so far does without
/// them, and which the next names: they came later to the other job, or came back to it.
#[must_use]
pub fn taken_back(job: &Job, so_far: &Plan, next: &Plan) -> BTreeSet<WorkerName> {
    let comes = |worker: &WorkerName| {
        next.workers.contains_key(worker) && !so_far.workers.contains_key(worker)
    };
    let lost = job.lost.iter().filter(|lost| {
        job.spec.plan_from.is_some()
            && lost.trouble == Trouble::PlanUnsupported
            && comes(&lost.worker)
    });
    lost.map(|lost| lost.worker.clone()).collect()
}

/// A replayed plan, if the job can train it: it was made for another.
///
/// # Errors
/// `InputUnusable` with what its linter finds.
pub fn admissible(
    plan: Plan,
    profiles: &BTreeMap<WorkerName, Profile>,
    spec: &Spec,
) -> Result<Plan, Cause> {
    let Err(findings) = lint_replayed(&plan, profiles, spec) else {
        return Ok(plan);
    };
    let words: Vec<String> = findings.iter().take(5).map(Finding::to_string).collect();
    let other = plan.replayed_from.as_ref().unwrap_or(&plan.job);
    Err(Cause {
        kind: CauseKind::InputUnusable,
        message: format!(
            "the plan of {other} cannot be replayed by this job: {}; replay it with the other's adapter, model, optimizer and steps, or leave plan_from out",
            words.join("; ")
        ),
        sites: Vec::new(),
    })
}

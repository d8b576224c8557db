//! A job that waits for its plan, or whose plan is looked at again.
//!
//! A plan is immutable and stored before anything else happens, so after a crash it is found and not made again.
//! Between two rounds the present plan stays unless another is worth it; and where none is possible any more the
//! present one stays too, for the job goes on with what it has.

use std::collections::{BTreeMap, BTreeSet};

use bus::drive::{Next, Owned};
use chassis::clock::Stopwatch;
use chassis::failpoint::{Failpoint, hit};
use chassis::telemetry::{self, Metric};
use contract::topology::{plan_key, profile_key};
use domain::cause::{Cause, CauseKind, SiteTrouble, Trouble};
use domain::id::WorkerName;
use domain::job::{Job, Phase, Resume};
use domain::plan::{Plan, PlanVersion};
use domain::profile::Profile;

use crate::Error;
use crate::allocate::{Replanned, Request, admissible, allocate, replan, replay};
use crate::app::Planner;

const FIRST: PlanVersion = PlanVersion(1);

pub async fn handle(
    planner: &Planner,
    job: &mut Owned,
    resume: Option<Resume>,
) -> Result<Next, Error> {
    let parent = match job.job().plan.filter(|_| resume.is_some()) {
        Some(version) => {
            let stored = planner.plans.get(&plan_key(&job.job().id, version)).await?;
            stored.map(|(plan, _)| plan)
        }
        None => None,
    };
    let plan = match (parent, &resume) {
        (Some(parent), Some(resume)) => again(planner, job, parent, resume).await?,
        _ => match first(planner, job).await? {
            Ok(plan) => plan,
            Err(cause) => {
                job.fail(cause).await?;
                return Ok(Next::Again);
            }
        },
    };
    hit(Failpoint::PlannerPlanAfterPlanStored);
    for site in left_out(job.job(), &plan) {
        job.lose(site).await?;
    }
    let version = plan.version;
    job.advance(Phase::Starting { resume }, |job| job.plan = Some(version))
        .await?;
    hit(Failpoint::PlannerPlanAfterState);
    job.announce().await?;
    hit(Failpoint::PlannerPlanAfterPublish);
    Ok(Next::Again)
}

/// The job's first plan, stored.
async fn first(planner: &Planner, owned: &Owned) -> Result<Result<Plan, Cause>, Error> {
    let job = owned.job();
    let key = plan_key(&job.id, FIRST);
    if let Some((plan, _)) = planner.plans.get(&key).await? {
        return Ok(Ok(plan));
    }
    let made = match &job.spec.plan_from {
        Some(other) => {
            let Some((plan, _)) = planner.plans.get(&plan_key(other, FIRST)).await? else {
                let message = format!(
                    "plan_from: {other} has no plan (any more); leave plan_from out, or name another job"
                );
                return Ok(Err(Cause {
                    kind: CauseKind::InputUnusable,
                    message,
                    sites: Vec::new(),
                }));
            };
            let profiles = profiles(planner, job).await?;
            replay(&plan, &job.id, &sites(job))
                .and_then(|plan| admissible(plan, &profiles, &job.spec))
        }
        None => {
            let profiles = profiles(planner, job).await?;
            let watch = Stopwatch::start();
            let made = allocate(&request(job, &profiles, None));
            observe(&made.as_ref().map(Some), &watch);
            made
        }
    };
    if let Ok(plan) = &made {
        planner.plans.create(&key, plan).await?;
    }
    Ok(made)
}

/// The plan of the rounds after `resume`: a new version, stored, or the parent if it stays.
async fn again(
    planner: &Planner,
    owned: &Owned,
    parent: Plan,
    resume: &Resume,
) -> Result<Plan, Error> {
    let job = owned.job();
    let key = plan_key(&job.id, parent.version.next());
    if let Some((plan, _)) = planner.plans.get(&key).await? {
        return Ok(plan);
    }
    let made = match &job.spec.plan_from {
        Some(other) => {
            let key = plan_key(other, parent.version.next());
            match planner.plans.get(&key).await? {
                Some((plan, _)) => {
                    let profiles = profiles(planner, job).await?;
                    replay(&plan, &job.id, &sites(job))
                        .and_then(|plan| admissible(plan, &profiles, &job.spec))
                        .map(Some)
                }
                None => Ok(None),
            }
        }
        None => {
            let profiles = profiles(planner, job).await?;
            let watch = Stopwatch::start();
            let made = anew(&request(job, &profiles, Some(&parent)));
            observe(&made.as_ref().map(Option::as_ref), &watch);
            made
        }
    };
    match made {
        Ok(Some(mut plan)) => {
            plan.version = parent.version.next();
            plan.parent = Some(parent.version);
            plan.from_round = resume.round + 1;
            planner.plans.create(&key, &plan).await?;
            Ok(plan)
        }
        Ok(None) => Ok(parent),
        Err(cause) => {
            tracing::warn!(job = %job.id, why = cause.message, "no other plan is possible, the present one stays");
            Ok(parent)
        }
    }
}

/// Another plan than the request's parent, if it is worth it.
fn anew(request: &Request<'_>) -> Result<Option<Plan>, Cause> {
    Ok(match replan(request)? {
        Replanned::Replaced(plan) => Some(*plan),
        Replanned::Kept(why) => {
            tracing::info!(job = %request.job, why, "the plan stays");
            None
        }
    })
}

/// What solving came to: a plan, the present one, or none.
fn observe(made: &Result<Option<&Plan>, &Cause>, watch: &Stopwatch) {
    telemetry::observe(Metric::PlanSeconds, watch.seconds(), &[]);
    let outcome = match made {
        Ok(Some(_)) => "made",
        Ok(None) => "kept",
        Err(_) => "impossible",
    };
    telemetry::count(Metric::Plans, 1, &[("outcome", outcome)]);
    let basis = made.ok().flatten().and_then(|plan| plan.basis.as_ref());
    if let Some(gap) = basis.and_then(|basis| basis.gap) {
        telemetry::set(Metric::PlanGap, gap, &[]);
    }
}

fn request<'a>(
    job: &'a Job,
    profiles: &'a BTreeMap<WorkerName, Profile>,
    parent: Option<&'a Plan>,
) -> Request<'a> {
    Request {
        job: &job.id,
        spec: &job.spec,
        profiles,
        parent,
        least_sites: job.least_sites(),
    }
}

fn sites(job: &Job) -> BTreeSet<WorkerName> {
    job.active().cloned().collect()
}

async fn profiles(planner: &Planner, job: &Job) -> Result<BTreeMap<WorkerName, Profile>, Error> {
    let mut profiles = BTreeMap::new();
    for worker in job.active() {
        let stored = planner.profiles.get(&profile_key(&job.id, worker)).await?;
        if let Some((profile, _)) = stored {
            profiles.insert(worker.clone(), profile);
        }
    }
    Ok(profiles)
}

/// Sites that this plan does without, and why.
fn left_out(job: &Job, plan: &Plan) -> Vec<SiteTrouble> {
    let mut out = plan.excluded.clone();
    let unnamed = job.active().filter(|worker| {
        !plan.workers.contains_key(*worker) && out.iter().all(|site| site.worker != **worker)
    });
    let unnamed = unnamed.map(|worker| SiteTrouble {
        worker: worker.clone(),
        trouble: Trouble::PlanUnsupported,
        detail: format!(
            "version {} of the plan stays, and does without it",
            plan.version.0
        ),
    });
    let unnamed: Vec<SiteTrouble> = unnamed.collect();
    out.extend(unnamed);
    out
}

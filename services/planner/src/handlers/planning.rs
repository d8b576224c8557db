//! A job that waits for its plan, or whose plan is looked at again.
//!
//! A plan is immutable and stored before anything else happens, so after a crash it is found and not made again.
//! Between two rounds the present plan stays unless another is worth it; and where none is possible any more the
//! present one stays too, for the job goes on with what it has. Why it stays is said (`plan-kept`), and again if the
//! planner died before the look was stored. A job that replays another's plans does not go on where the next cannot be
//! replayed: it would end with another adapter. A site that the plan so far did without is taken back where the next
//! names it.

use std::collections::{BTreeMap, BTreeSet};

use bus::drive::{Next, Owned};
use chassis::clock::Stopwatch;
use chassis::failpoint::{Failpoint, hit};
use chassis::telemetry::{self, Metric};
use contract::message::job::Event;
use contract::topology::{plan_key, profile_key};
use domain::cause::{Cause, CauseKind, SiteTrouble, Trouble};
use domain::id::{JobId, WorkerName};
use domain::job::{Job, Phase, Resume};
use domain::plan::{Plan, PlanVersion};
use domain::profile::Profile;

use crate::Error;
use crate::allocate::{Replanned, Request, admissible, allocate, replan, replay, taken_back};
use crate::app::Planner;

const FIRST: PlanVersion = PlanVersion(1);

/// How long a job whose plan is to be computed rests while another's is, in milliseconds. Each look keeps its lease, and
/// sees whether a person has paused or cancelled it.
const TURN_REST_MS: u64 = 500;

/// The plan that a job goes on with, or why it has none; `None` while another job's is computed in this process.
type Made = Option<Result<Plan, Cause>>;

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
    let made = match (&parent, &resume) {
        (Some(parent), Some(resume)) => again(planner, job, parent, resume).await?,
        _ => first(planner, job).await?,
    };
    let plan = match made {
        Some(Ok(plan)) => plan,
        Some(Err(cause)) => {
            job.fail(cause).await?;
            return Ok(Next::Again);
        }
        None => return Ok(Next::Wait(Some(job.now().plus(TURN_REST_MS)))),
    };
    hit(Failpoint::PlannerPlanAfterPlanStored);
    let back = parent.map(|parent| taken_back(job.job(), &parent, &plan));
    let back = back.unwrap_or_default();
    for site in left_out(job.job(), &plan) {
        job.lose(site).await?;
    }
    let version = plan.version;
    job.advance(Phase::Starting { resume }, |job| {
        job.plan = Some(version);
        job.lost.retain(|lost| !back.contains(&lost.worker));
    })
    .await?;
    hit(Failpoint::PlannerPlanAfterState);
    job.announce().await?;
    hit(Failpoint::PlannerPlanAfterPublish);
    Ok(Next::Again)
}

/// The job's first plan, stored.
async fn first(planner: &Planner, owned: &Owned) -> Result<Made, Error> {
    let job = owned.job();
    let key = plan_key(&job.id, FIRST);
    if let Some((plan, _)) = planner.plans.get(&key).await? {
        return Ok(Some(Ok(plan)));
    }
    let made = match &job.spec.plan_from {
        Some(other) => {
            let Some((plan, _)) = planner.plans.get(&plan_key(other, FIRST)).await? else {
                return Ok(Some(Err(gone(other, "plan (any more)"))));
            };
            replayed(planner, job, &plan, &sites(job)).await?
        }
        None => {
            let Some(turn) = planner.solving.turn() else {
                return Ok(None);
            };
            let profiles = profiles(planner, job, &sites(job)).await?;
            let own = job.clone();
            let solved = turn.solve(move || {
                let watch = Stopwatch::start();
                let made = allocate(&request(&own, &profiles, None));
                observe(&made.as_ref().map(Some), &watch);
                made
            });
            solved.await?
        }
    };
    if let Ok(plan) = &made {
        planner.plans.create(&key, plan).await?;
    }
    Ok(Some(made))
}

/// The plan of the rounds after `resume`: a new version, stored, or the parent if it stays.
async fn again(
    planner: &Planner,
    owned: &Owned,
    parent: &Plan,
    resume: &Resume,
) -> Result<Made, Error> {
    let job = owned.job();
    let key = plan_key(&job.id, parent.version.next());
    if let Some((plan, _)) = planner.plans.get(&key).await? {
        return Ok(Some(Ok(plan)));
    }
    let made = match &job.spec.plan_from {
        Some(other) => match next_of(planner, job, other, parent).await? {
            Ok(plan) => Some(plan),
            Err(cause) => return Ok(Some(Err(cause))),
        },
        None => {
            let Some(turn) = planner.solving.turn() else {
                return Ok(None);
            };
            let profiles = profiles(planner, job, &sites(job)).await?;
            let (own, old) = (job.clone(), parent.clone());
            let solved = turn.solve(move || {
                let request = request(&own, &profiles, Some(&old));
                anew(&request, &Stopwatch::start())
            });
            match solved.await? {
                Replanned::Replaced(plan) => Some(*plan),
                Replanned::Kept(why) => {
                    let version = parent.version;
                    owned.say(Event::PlanKept { version, why }).await?;
                    None
                }
            }
        }
    };
    let Some(mut plan) = made else {
        return Ok(Some(Ok(parent.clone())));
    };
    plan.version = parent.version.next();
    plan.parent = Some(parent.version);
    plan.from_round = resume.round + 1;
    planner.plans.create(&key, &plan).await?;
    Ok(Some(Ok(plan)))
}

/// The next plan of the job that is replayed, which may name sites that the one so far did without.
async fn next_of(
    planner: &Planner,
    job: &Job,
    other: &JobId,
    parent: &Plan,
) -> Result<Result<Plan, Cause>, Error> {
    let version = parent.version.next();
    let Some((plan, _)) = planner.plans.get(&plan_key(other, version)).await? else {
        let what = format!("version {} of its plan any more", version.0);
        return Ok(Err(gone(other, &what)));
    };
    let mut here = sites(job);
    here.extend(taken_back(job, parent, &plan));
    replayed(planner, job, &plan, &here).await
}

fn gone(other: &JobId, what: &str) -> Cause {
    Cause {
        kind: CauseKind::InputUnusable,
        message: format!(
            "plan_from: {other} has no {what}; leave plan_from out, or name another job"
        ),
        sites: Vec::new(),
    }
}

/// Another job's plan as this one's, if these of its sites can train it.
async fn replayed(
    planner: &Planner,
    job: &Job,
    plan: &Plan,
    here: &BTreeSet<WorkerName>,
) -> Result<Result<Plan, Cause>, Error> {
    let profiles = profiles(planner, job, here).await?;
    let plan = replay(plan, &job.id, here);
    Ok(plan.and_then(|plan| admissible(plan, &profiles, &job.spec)))
}

/// Another plan than the request's parent if it is worth it, else why the parent stays.
fn anew(request: &Request<'_>, watch: &Stopwatch) -> Replanned {
    let found = replan(request);
    let plan: Option<&Plan> = match &found {
        Ok(Replanned::Replaced(plan)) => Some(plan.as_ref()),
        Ok(Replanned::Kept(_)) | Err(_) => None,
    };
    observe(&found.as_ref().map(|_| plan), watch);
    let found = found.unwrap_or_else(|cause| {
        Replanned::Kept(format!("no other is possible: {}", cause.message))
    });
    if let Replanned::Kept(why) = &found {
        tracing::info!(job = %request.job, why, "the plan stays");
    }
    found
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

async fn profiles(
    planner: &Planner,
    job: &Job,
    sites: &BTreeSet<WorkerName>,
) -> Result<BTreeMap<WorkerName, Profile>, Error> {
    let mut profiles = BTreeMap::new();
    for worker in sites {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocate::synthetic;
    use domain::job::spec::Spec;

    #[test]
    fn where_no_other_plan_is_possible_the_present_one_stays_and_it_is_said_why() {
        let text = r#"{"name":"j","model":{"source":"file:///m"},"data":{"dataset":"mail"}}"#;
        let spec: Spec = serde_json::from_str(text).expect("legal");
        let profiles = synthetic::fleet(2, spec.adapter.rank_max, 5);
        let job = JobId::from_bits(1);
        let first = Request {
            job: &job,
            spec: &spec,
            profiles: &profiles,
            parent: None,
            least_sites: 1,
        };
        let parent = allocate(&first).expect("possible");
        let mut emptied = profiles.clone();
        for profile in emptied.values_mut() {
            profile.measurement.records = 0;
        }
        let request = Request {
            profiles: &emptied,
            parent: Some(&parent),
            ..first
        };
        let found = anew(&request, &Stopwatch::start());
        let Replanned::Kept(why) = found else {
            panic!("{found:?}")
        };
        let words = "no other is possible: 0 of 2 sites can take part, 1 must; ";
        assert!(why.starts_with(words), "{why}");
        assert!(why.contains("; next: see that every site has"), "{why}");
    }
}

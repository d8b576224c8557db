//! A job that waits for its plan.

use std::collections::{BTreeMap, BTreeSet};

use bus::drive::{Next, Owned};
use chassis::failpoint::{Failpoint, hit};
use contract::topology::{plan_key, profile_key};
use domain::cause::{Cause, CauseKind};
use domain::id::WorkerName;
use domain::job::Phase;
use domain::plan::{Plan, PlanVersion};
use domain::profile::Profile;

use crate::Error;
use crate::allocate::{Request, allocate, replay};
use crate::app::Planner;

const FIRST: PlanVersion = PlanVersion(1);

pub async fn handle(planner: &Planner, job: &mut Owned) -> Result<Next, Error> {
    let id = job.job().id.clone();
    let key = plan_key(&id, FIRST);
    let plan = match planner.plans.get(&key).await? {
        // Made before a crash: a plan is immutable, so this is the plan.
        Some((plan, _)) => plan,
        None => match make(planner, job).await? {
            Ok(plan) => {
                planner.plans.create(&key, &plan).await?;
                plan
            }
            Err(cause) => {
                job.fail(cause).await?;
                return Ok(Next::Again);
            }
        },
    };
    hit(Failpoint::PlannerPlanAfterPlanStored);
    for site in &plan.excluded {
        job.lose(site.clone()).await?;
    }
    let version = plan.version;
    job.advance(Phase::Starting, |job| job.plan = Some(version))
        .await?;
    hit(Failpoint::PlannerPlanAfterState);
    job.announce().await?;
    hit(Failpoint::PlannerPlanAfterPublish);
    Ok(Next::Again)
}

async fn make(planner: &Planner, owned: &Owned) -> Result<Result<Plan, Cause>, Error> {
    let job = owned.job();
    let sites: BTreeSet<WorkerName> = job.active().cloned().collect();
    if let Some(other) = &job.spec.plan_from {
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
        return Ok(replay(&plan, &job.id, &sites));
    }
    let mut profiles: BTreeMap<WorkerName, Profile> = BTreeMap::new();
    for worker in sites {
        if let Some((profile, _)) = planner.profiles.get(&profile_key(&job.id, &worker)).await? {
            profiles.insert(worker, profile);
        }
    }
    let request = Request {
        job: &job.id,
        spec: &job.spec,
        profiles: &profiles,
        parent: None,
        least_sites: job.least_sites(),
    };
    Ok(allocate(&request))
}

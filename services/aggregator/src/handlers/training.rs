//! An open round: asks, collects, and decides when it is over.

use std::collections::BTreeMap;

use bus::drive::{Next, Owned};
use bus::{Said, drive};
use chassis::failpoint::{Failpoint, hit};
use contract::message::dead::DeadLetter;
use contract::message::report::{Failed, Updated};
use contract::{Message, subject};
use domain::adapter::WeightShape;
use domain::artifact::ArtifactRef;
use domain::cause::{Cause, CauseKind, SiteTrouble, Trouble};
use domain::id::WorkerName;
use domain::job::Phase;
use domain::plan::{Plan, WorkerPlan};
use domain::round::{Standing, Verdict, judge};
use domain::time::UnixMillis;

use super::starting;
use crate::Error;
use crate::app::Aggregator;
use crate::rounds::ingest::ingest;
use crate::rounds::tasks;

/// An open round.
pub struct Open {
    pub round: u32,
    pub global: ArtifactRef,
    pub opened_at: UnixMillis,
    pub deadline: UnixMillis,
}

pub async fn handle(aggregator: &Aggregator, job: &mut Owned, open: &Open) -> Result<Next, Error> {
    let plan = aggregator.plan(job.job()).await?;
    let standings = collect(aggregator, job, &plan, open).await?;
    let quorum = job.job().quorum(plan.workers.len());
    match judge(&standings, quorum, open.deadline, job.now()) {
        Verdict::Wait(_) => Ok(Next::Wait(Some(open.deadline))),
        Verdict::QuorumLost(lost) => {
            // Sites that never got as far as this round are part of why it is short of sites.
            let earlier = job.job().lost.iter();
            let earlier = earlier.filter(|site| lost.iter().all(|one| one.worker != site.worker));
            let sites: Vec<SiteTrouble> = earlier.chain(&lost).cloned().collect();
            let message = format!(
                "round {} cannot reach its quorum of {quorum}: {}",
                open.round,
                sites
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; ")
            );
            job.fail(Cause {
                kind: CauseKind::QuorumLost,
                message,
                sites,
            })
            .await?;
            Ok(Next::Again)
        }
        Verdict::Close(closed) => {
            let late = closed
                .missing
                .iter()
                .filter(|site| site.trouble == Trouble::TooLate);
            let late: Vec<SiteTrouble> = late.cloned().collect();
            let (round, global, opened_at) = (open.round, open.global.clone(), open.opened_at);
            let next = Phase::Folding {
                round,
                global,
                opened_at,
                closed,
            };
            job.advance(next, |job| job.lost.extend(late)).await?;
            hit(Failpoint::AggregatorCloseAfterDecision);
            job.announce().await?;
            hit(Failpoint::AggregatorCloseAfterPublish);
            Ok(Next::Again)
        }
    }
}

/// Looks at every participant: has it delivered, is it lost, must it be asked (again)?
async fn collect(
    aggregator: &Aggregator,
    job: &mut Owned,
    plan: &Plan,
    open: &Open,
) -> Result<BTreeMap<WorkerName, Standing>, Error> {
    let weights = starting::weights(aggregator, job.job(), plan).await?;
    let mut standings = aggregator.standings.of(job.job());
    let mut asked = false;
    for (worker, worker_plan) in &plan.workers {
        if matches!(
            standings.get(worker),
            Some(Standing::Stored(_) | Standing::Lost(_))
        ) {
            continue;
        }
        let mut standing = delivered(aggregator, job, worker, worker_plan, &weights).await?;
        if matches!(standing, Standing::Waiting) {
            standing = presence(aggregator, job, worker)?;
        }
        if let Standing::Lost(site) = &standing {
            job.lose(site.clone()).await?;
        }
        if matches!(standing, Standing::Waiting) {
            let task = tasks::train(
                job.job(),
                worker,
                (worker_plan, &plan.global),
                open.round,
                &open.global,
                open.deadline,
            );
            if tasks::give(job, &task, open.deadline).await? == Said::Now && !asked {
                asked = true;
                hit(Failpoint::AggregatorOpenAfterFirstTask);
            }
        }
        standings.insert(worker.clone(), standing);
        aggregator.standings.keep(job.job(), &standings);
    }
    if asked {
        hit(Failpoint::AggregatorOpenAfterTasks);
    }
    Ok(standings)
}

async fn delivered(
    aggregator: &Aggregator,
    job: &Owned,
    worker: &WorkerName,
    plan: &WorkerPlan,
    weights: &[WeightShape],
) -> Result<Standing, Error> {
    let (id, epoch) = (&job.job().id, job.job().epoch);
    match job.bus().report::<Updated>(worker, id, epoch).await {
        Ok(Some(updated)) => {
            return ingest(aggregator, job, worker, plan, weights, updated.update).await;
        }
        Ok(None) => {}
        Err(error @ bus::Error::Decode { .. }) => return unreadable(job, worker, &error).await,
        Err(error) => return Err(error.into()),
    }
    let failed = job.bus().report::<Failed>(worker, id, epoch).await?;
    Ok(failed.map_or(Standing::Waiting, |failed| {
        Standing::Lost(SiteTrouble {
            worker: worker.clone(),
            trouble: failed.trouble,
            detail: failed.detail,
        })
    }))
}

async fn unreadable(
    job: &Owned,
    worker: &WorkerName,
    error: &bus::Error,
) -> Result<Standing, Error> {
    let detail = drive::error_chain(error);
    let letter = DeadLetter {
        service: "aggregator".to_owned(),
        original: subject::report(worker, &job.job().id, job.job().epoch, Updated::KIND),
        kind: Some(Updated::KIND.to_owned()),
        bytes: 0,
        why: detail.clone(),
        at: job.now(),
    };
    job.bus().publish(&letter, None).await?;
    Ok(Standing::Lost(SiteTrouble {
        worker: worker.clone(),
        trouble: Trouble::UpdateRefused,
        detail,
    }))
}

/// A worker that has not delivered: given up before, silent for too long, or still at work. While
/// storage is away nobody can deliver, and nobody is judged.
fn presence(aggregator: &Aggregator, job: &Owned, worker: &WorkerName) -> Result<Standing, Error> {
    if let Some(lost) = job.job().lost.iter().find(|lost| lost.worker == *worker) {
        return Ok(Standing::Lost(lost.clone()));
    }
    let asked_at = job.job().phase_since.max(aggregator.reach.since()?);
    let give_up_ms = aggregator.config.liveness.give_up_ms();
    let given_up = aggregator.fleet.gave_out(worker, asked_at, give_up_ms);
    Ok(given_up.map_or(Standing::Waiting, Standing::Lost))
}

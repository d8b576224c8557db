//! An open round: asks, collects, and decides when it is over.

use std::collections::BTreeMap;

use bus::drive::{Next, Owned};
use bus::{Reported, Said};
use chassis::failpoint::{Failpoint, hit};
use contract::message::report::{Failed, Updated, Walked};
use domain::adapter::WeightShape;
use domain::artifact::ArtifactRef;
use domain::cause::{Cause, CauseKind, SiteTrouble};
use domain::id::{Epoch, WorkerName};
use domain::job::Phase;
use domain::plan::{Plan, PlanVersion};
use domain::round::{Behind, Close, Standing, Update, Verdict, judge};
use domain::time::UnixMillis;

use super::starting;
use crate::Error;
use crate::app::Aggregator;
use crate::rounds::ingest::{self, Expected};
use crate::rounds::late::{self, Decision};
use crate::rounds::{ask, tasks, unread, walk};

/// An open round.
pub struct Open {
    pub round: u32,
    pub global: ArtifactRef,
    pub opened_at: UnixMillis,
    pub deadline: UnixMillis,
    /// Whom it asks; empty: every planned site.
    pub asked: Vec<WorkerName>,
}

/// What is known of the round's sites, and of those at an earlier one.
type Standings = BTreeMap<WorkerName, Standing>;

pub async fn handle(aggregator: &Aggregator, job: &mut Owned, open: &Open) -> Result<Next, Error> {
    let plan = aggregator.plan(job.job()).await?;
    let asked = ask::whom(job.job(), &plan, &open.asked);
    let weights = starting::weights(aggregator, job.job(), &plan).await?;
    let mut standings = aggregator.standings.of(job.job());
    collect(
        aggregator,
        job,
        (&plan, &asked),
        open,
        &weights,
        &mut standings,
    )
    .await?;
    let arrived = overdue(aggregator, job, &plan, &weights, &mut standings).await?;
    standings.retain(|worker, _| asked.contains(worker));
    // Sites that were asked in the place of others do not raise what the round needs.
    let planned: Vec<WorkerName> = plan.workers.keys().cloned().collect();
    let sample = job.job().spec.rounds.sample.of(planned.len());
    let quorum = job.job().quorum(asked.len().min(sample));
    match judge(&standings, quorum, open.deadline, job.now()) {
        Verdict::Wait(_) => Ok(Next::Wait(Some(open.deadline))),
        Verdict::QuorumLost { lost, late } => {
            if late.is_empty()
                && let Some(all) = ask::replaced(job.job(), &planned, open.round, &asked)
            {
                return ask_instead(job, open, all).await;
            }
            let late = late.iter();
            let late = late.map(|worker| late::too_late(worker, String::new()));
            fail(job, open.round, quorum, lost.into_iter().chain(late)).await
        }
        Verdict::Close(ready) => close(job, open, plan.version, ready, &arrived).await,
    }
}

/// Asks other sites in the place of lost ones, by the same deadline: stored before any task goes out, in
/// the same epoch, because those asked before go on.
async fn ask_instead(job: &mut Owned, open: &Open, all: Vec<WorkerName>) -> Result<Next, Error> {
    tracing::info!(job = %job.job().id, round = open.round, asked = ?all, "others are asked instead");
    job.change(|job| {
        if let Phase::Training { asked, .. } = &mut job.phase {
            *asked = all;
        }
    })
    .await?;
    Ok(Next::Again)
}

async fn fail(
    job: &mut Owned,
    round: u32,
    quorum: usize,
    lost: impl Iterator<Item = SiteTrouble>,
) -> Result<Next, Error> {
    let lost: Vec<SiteTrouble> = lost.collect();
    // Sites that never got as far as this round are part of why it is short of sites.
    let earlier = job.job().lost.iter();
    let earlier = earlier.filter(|site| lost.iter().all(|one| one.worker != site.worker));
    let sites: Vec<SiteTrouble> = earlier.chain(&lost).cloned().collect();
    let words: Vec<String> = sites.iter().map(ToString::to_string).collect();
    let words = words.join("; ");
    let message = format!("round {round} cannot reach its quorum of {quorum}: {words}");
    job.fail(Cause {
        kind: CauseKind::QuorumLost,
        message,
        sites,
    })
    .await?;
    Ok(Next::Again)
}

async fn close(
    job: &mut Owned,
    open: &Open,
    plan: PlanVersion,
    ready: Close,
    arrived: &BTreeMap<WorkerName, Update>,
) -> Result<Next, Error> {
    let now = job.now();
    let Decision {
        closed,
        behind,
        dropped,
    } = late::decide(job.job(), open, plan, ready, arrived, now);
    let is_dropped = |site: &&SiteTrouble| dropped.iter().any(|task| task.worker == site.worker);
    let lost: Vec<SiteTrouble> = closed.missing.iter().filter(is_dropped).cloned().collect();
    let next = Phase::Folding {
        round: open.round,
        global: open.global.clone(),
        opened_at: open.opened_at,
        closed,
    };
    job.advance(next, |job| {
        job.late = behind;
        job.unwanted.extend(dropped);
        lost.into_iter().for_each(|site| job.lose(site));
    })
    .await?;
    hit(Failpoint::AggregatorCloseAfterDecision);
    job.announce().await?;
    hit(Failpoint::AggregatorCloseAfterPublish);
    Ok(Next::Again)
}

/// Looks at every site that the round asks: has it delivered, is it lost, must it be asked (again)?
async fn collect(
    aggregator: &Aggregator,
    job: &mut Owned,
    (plan, asked): (&Plan, &[WorkerName]),
    open: &Open,
    weights: &[WeightShape],
    standings: &mut Standings,
) -> Result<(), Error> {
    let round_ms = 1000 * plan.deadline_seconds;
    let expires_at = late::expiry(
        job.job(),
        open,
        round_ms,
        aggregator.config.liveness.idle_ms,
    );
    let mut given = false;
    for worker in asked {
        if matches!(
            standings.get(worker),
            Some(Standing::Stored(_) | Standing::Lost(_))
        ) {
            continue;
        }
        let worker_plan = plan.workers.get(worker).ok_or(Error::Missing {
            what: "plan of a site that is asked",
        })?;
        let expected = Expected {
            worker,
            round: open.round,
            plan: worker_plan,
            weights,
            start: &open.global,
        };
        let standing = look(aggregator, job, &expected, job.job().epoch).await?;
        if let Standing::Lost(site) = &standing {
            job.lose(site.clone()).await?;
        }
        if matches!(standing, Standing::Waiting) {
            let own = worker_plan.optimizer;
            let walk = walk::to_train(aggregator, job.job(), (worker, own), open.round).await?;
            let task = tasks::train(
                job.job(),
                worker,
                (worker_plan, &plan.global),
                (open.round, &open.global),
                walk,
                expires_at,
            );
            if tasks::give(job, &task, expires_at).await? == Said::Now && !given {
                given = true;
                hit(Failpoint::AggregatorOpenAfterFirstTask);
            }
        }
        standings.insert(worker.clone(), standing);
        aggregator.standings.keep(job.job(), standings);
    }
    if given {
        hit(Failpoint::AggregatorOpenAfterTasks);
    }
    Ok(())
}

/// Looks at the sites that are at an earlier round; returns the updates that have come. A site that is
/// given up is not waited for any more.
async fn overdue(
    aggregator: &Aggregator,
    job: &mut Owned,
    plan: &Plan,
    weights: &[WeightShape],
    standings: &mut Standings,
) -> Result<BTreeMap<WorkerName, Update>, Error> {
    let mut arrived = BTreeMap::new();
    for behind in job.job().late.clone() {
        let standing = match standings.get(&behind.worker) {
            Some(known @ Standing::Stored(_)) => known.clone(),
            _ => look_behind(aggregator, job, plan, weights, &behind).await?,
        };
        match &standing {
            Standing::Stored(update) => {
                arrived.insert(behind.worker.clone(), (**update).clone());
            }
            Standing::Lost(site) => {
                job.lose(site.clone()).await?;
            }
            Standing::Waiting => {}
        }
        standings.insert(behind.worker, standing);
        aggregator.standings.keep(job.job(), standings);
    }
    Ok(arrived)
}

/// What became of the task of an earlier round.
async fn look_behind(
    aggregator: &Aggregator,
    job: &mut Owned,
    plan: &Plan,
    weights: &[WeightShape],
    behind: &Behind,
) -> Result<Standing, Error> {
    let own = aggregator.plan_of(job.job(), behind.plan).await?;
    let trained = own.workers.get(&behind.worker).ok_or(Error::Missing {
        what: "plan of a late site",
    })?;
    let rule = job.job().spec.aggregation.strategy;
    if !late::still_fits(trained, plan, &behind.worker, rule) {
        let version = behind.plan.0;
        let detail = format!("the present plan cannot hold what it trained by version {version}");
        return Ok(Standing::Lost(late::too_late(&behind.worker, detail)));
    }
    let expected = Expected {
        worker: &behind.worker,
        round: behind.round,
        plan: trained,
        weights,
        start: &behind.global,
    };
    look(aggregator, job, &expected, behind.epoch).await
}

/// What a site has delivered on its task of this epoch, or whether it may still do so.
async fn look(
    aggregator: &Aggregator,
    job: &Owned,
    expected: &Expected<'_>,
    epoch: Epoch,
) -> Result<Standing, Error> {
    let standing = delivered(aggregator, job, expected, epoch).await?;
    if matches!(standing, Standing::Waiting) {
        return presence(aggregator, job, expected.worker);
    }
    Ok(standing)
}

/// A site's update, as it came.
enum Delivered {
    Scalars(Box<Walked>),
    Tensors(Box<Update>),
}

async fn delivered(
    aggregator: &Aggregator,
    job: &Owned,
    expected: &Expected<'_>,
    epoch: Epoch,
) -> Result<Standing, Error> {
    let (id, worker) = (&job.job().id, expected.worker);
    let scalars = job
        .job()
        .spec
        .training
        .sends_scalars(expected.plan.optimizer);
    let found = if scalars {
        let walked = job.bus().report::<Walked>(worker, id, epoch).await?;
        walked.map(|walked| Delivered::Scalars(Box::new(walked)))
    } else {
        let updated = job.bus().report::<Updated>(worker, id, epoch).await?;
        updated.map(|updated| Delivered::Tensors(Box::new(updated.update)))
    };
    match found {
        Reported::Read(Delivered::Scalars(walked)) => {
            ingest::scalars(aggregator, job, expected, *walked).await
        }
        Reported::Read(Delivered::Tensors(update)) => {
            ingest::ingest(aggregator, job, expected, *update).await
        }
        Reported::Unreadable(report) => ingest::unreadable(job, worker, &report).await,
        Reported::Absent => failed(job, worker, epoch).await,
    }
}

/// Whether a site that has not delivered said why it will not.
async fn failed(job: &Owned, worker: &WorkerName, epoch: Epoch) -> Result<Standing, Error> {
    let id = &job.job().id;
    let lost = match job.bus().report::<Failed>(worker, id, epoch).await? {
        Reported::Read(failed) => SiteTrouble::new(worker.clone(), failed.trouble, &failed.detail),
        Reported::Unreadable(report) => unread::set_aside(job, worker, &report).await?,
        Reported::Absent => return Ok(Standing::Waiting),
    };
    Ok(Standing::Lost(lost))
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

//! A decided round: merges exactly what the decision lists, and commits the result.

use std::path::PathBuf;

use artifacts::tensors::TensorFile;
use bus::drive::{Next, Owned};
use chassis::failpoint::{Failpoint, hit};
use chassis::telemetry::{self, Metric};
use contract::topology::round_key;
use domain::adapter::{RankTable, WeightShape};
use domain::artifact::ArtifactRef;
use domain::fleet::Liveness;
use domain::id::WorkerName;
use domain::job::Job;
use domain::plan::Plan;
use domain::round::{Closed, Summary, WorkerRound};
use domain::time::UnixMillis;

use super::starting;
use crate::Error;
use crate::app::Aggregator;
use crate::rounds::{follow, replan, tasks};
use crate::strategy::{self, Folded, Input, Merge};

/// A decided round.
pub struct Decided {
    pub round: u32,
    pub global: ArtifactRef,
    pub opened_at: UnixMillis,
    pub closed: Closed,
}

/// The merge's result.
struct Merged {
    global: ArtifactRef,
    shares: Vec<f64>,
    folded: Folded,
}

pub async fn handle(
    aggregator: &Aggregator,
    job: &mut Owned,
    decided: &Decided,
) -> Result<Next, Error> {
    let plan = aggregator.plan(job.job()).await?;
    let shares = strategy::weights(
        &decided.closed.contributions,
        job.job().spec.aggregation.weights,
    );
    let (path, folded) = merge(aggregator, job, &plan, decided, shares.clone()).await?;
    hit(Failpoint::AggregatorFoldAfterMerge);
    let prefix = tasks::global_prefix(job.job());
    let sent = aggregator
        .artifacts
        .put_file(&prefix, &path, &aggregator.transfer);
    let global = aggregator.reach.guard(sent).await??;
    hit(Failpoint::AggregatorFoldAfterArtifact);
    let merged = Merged {
        global: global.clone(),
        shares,
        folded,
    };
    let summary = summarize(job.job(), &plan, decided, merged, job.now());
    telemetry::count(Metric::Rounds, 1, &[]);
    telemetry::observe(Metric::RoundSeconds, summary.seconds, &[]);
    telemetry::observe(Metric::RoundOverheadSeconds, summary.overhead_seconds, &[]);
    aggregator
        .rounds
        .put(&round_key(&job.job().id, decided.round), &summary)
        .await?;
    hit(Failpoint::AggregatorFoldAfterSummary);
    let idle_ms = aggregator.config.liveness.idle_ms;
    let next = follow::after_merge(job.job(), &plan, decided.round, global, job.now(), idle_ms);
    let back: Vec<WorkerName> = returning(aggregator, job.job(), job.now());
    let mut seen = job.job().clone();
    seen.lost.retain(|lost| !back.contains(&lost.worker));
    let next = replan::before(aggregator, &seen, &plan, next, job.now()).await?;
    let paused = matches!(next, domain::job::Phase::Paused { .. });
    job.advance(next, |job| {
        job.lost.retain(|lost| !back.contains(&lost.worker));
        job.pause_requested &= !paused;
    })
    .await?;
    hit(Failpoint::AggregatorFoldAfterState);
    job.announce().await?;
    hit(Failpoint::AggregatorOpenAfterPublish);
    clean(aggregator, job.job(), decided).await;
    Ok(Next::Again)
}

async fn merge(
    aggregator: &Aggregator,
    job: &Owned,
    plan: &Plan,
    decided: &Decided,
    shares: Vec<f64>,
) -> Result<(PathBuf, Folded), Error> {
    let weights = starting::weights(aggregator, job.job(), plan).await?;
    let start = fetch(aggregator, &decided.global).await?;
    let mut updates = Vec::new();
    for contribution in &decided.closed.contributions {
        let reference = &contribution.update.adapter;
        let path = fetch(aggregator, reference).await?;
        let ranks = plan
            .workers
            .get(&contribution.worker)
            .map(|worker| worker.ranks.clone());
        let ranks = ranks.ok_or(Error::Missing {
            what: "plan of a contributor",
        })?;
        updates.push((contribution.worker.clone(), ranks, path));
    }
    let round = decided.round;
    let out = starting::folder(aggregator, job.job())
        .await?
        .join(format!("round-{round}.safetensors"));
    let spec = &job.job().spec;
    let work = Work {
        start,
        updates,
        shares,
        weights,
        ranks: plan.global.clone(),
        scale: spec.adapter.scale(),
        seed: spec.training.seed,
        out: out.clone(),
        round,
    };
    let folded = tokio::task::spawn_blocking(move || work.run()).await??;
    Ok((out, folded))
}

/// An artifact as a local file.
async fn fetch(aggregator: &Aggregator, artifact: &ArtifactRef) -> Result<PathBuf, Error> {
    let (store, transfer) = (&aggregator.artifacts, &aggregator.transfer);
    let fetched = aggregator.spool.ensure(store, artifact, transfer);
    Ok(aggregator.reach.guard(fetched).await??)
}

/// Everything the merge needs, to leave the async world with.
struct Work {
    start: PathBuf,
    updates: Vec<(WorkerName, RankTable, PathBuf)>,
    shares: Vec<f64>,
    weights: Vec<WeightShape>,
    ranks: RankTable,
    scale: f64,
    seed: u64,
    out: PathBuf,
    round: u32,
}

impl Work {
    fn run(self) -> Result<Folded, Error> {
        let global = TensorFile::open(&self.start)?;
        let opened = self
            .updates
            .iter()
            .map(|(_, _, path)| TensorFile::open(path));
        let files: Vec<TensorFile> = opened.collect::<Result<_, _>>()?;
        let parts = self.updates.iter().zip(&files).zip(&self.shares);
        let inputs: Vec<Input<'_>> = parts
            .map(|(((worker, ranks, _), update), weight)| Input {
                worker,
                weight: *weight,
                ranks,
                update,
            })
            .collect();
        let merge = Merge {
            inputs: &inputs,
            global: &global,
            ranks: &self.ranks,
            scale: self.scale,
            seed: self.seed,
        };
        let mut sink = strategy::files::create(&self.out, &self.ranks, &self.weights)?;
        let folded = merge.fold(&mut sink).map_err(|source| Error::Merge {
            round: self.round,
            source,
        })?;
        sink.finish()?;
        Ok(folded)
    }
}

/// What a round amounted to.
fn summarize(
    job: &Job,
    plan: &Plan,
    decided: &Decided,
    merged: Merged,
    now: UnixMillis,
) -> Summary {
    let worker_round = |(contribution, weight): (&domain::round::Contribution, &f64)| {
        let worker_plan = plan.workers.get(&contribution.worker);
        WorkerRound {
            worker: contribution.worker.clone(),
            rank: worker_plan.map_or(0, |worker| worker.ranks.max()),
            batch: worker_plan.map_or(0, |worker| worker.batch),
            weight: *weight,
            update: contribution.update.adapter.clone(),
            metrics: contribution.update.metrics.clone(),
        }
    };
    let workers: Vec<WorkerRound> = decided
        .closed
        .contributions
        .iter()
        .zip(&merged.shares)
        .map(worker_round)
        .collect();
    let slowest = workers
        .iter()
        .map(|worker| worker.metrics.compute_seconds)
        .fold(0.0, f64::max);
    let seconds = now.seconds_since(decided.opened_at);
    tracing::info!(job = %job.id, round = decided.round, seconds, slowest, "round committed");
    Summary {
        round: decided.round,
        global: merged.global,
        opened_at: decided.opened_at,
        committed_at: now,
        seconds,
        overhead_seconds: (seconds - slowest).max(0.0),
        dropped_energy: merged.folded.dropped_energy,
        workers,
        missing: decided.closed.missing.clone(),
    }
}

/// Sites that were given up, beat again and get on again: the next round asks them. One that beats and
/// is stuck in what it was given up for would cost every round the same wait.
fn returning(aggregator: &Aggregator, job: &Job, now: UnixMillis) -> Vec<WorkerName> {
    let give_up_ms = aggregator.config.liveness.give_up_ms();
    let gets_on = |member: bus::fleet::Member| {
        member.liveness(now) == Liveness::Alive && now.since(member.moved_at) <= give_up_ms
    };
    let back = job.lost.iter().filter(|lost| {
        let member = aggregator.fleet.member(&lost.worker);
        !lost.trouble.is_lasting() && member.is_some_and(gets_on)
    });
    back.map(|lost| lost.worker.clone()).collect()
}

/// Frees the spool, and deletes updates two rounds after they were merged. What cannot be deleted now
/// goes with the job.
async fn clean(aggregator: &Aggregator, job: &Job, decided: &Decided) {
    for contribution in &decided.closed.contributions {
        if let Err(error) = aggregator
            .spool
            .remove(&contribution.update.adapter.sha256)
            .await
        {
            tracing::debug!(%error, "spool not freed");
        }
    }
    hit(Failpoint::AggregatorCleanAfterSpool);
    let Some(old) = decided.round.checked_sub(2).filter(|old| *old > 0) else {
        return;
    };
    if job.spec.retention.keep_updates {
        return;
    }
    for worker in &job.participants {
        let prefix = tasks::update_prefix(job, worker, old);
        let deleted = aggregator.artifacts.delete_prefix(&prefix);
        let deleted = aggregator.reach.guard(deleted).await;
        if let Err(error) = deleted.and_then(|done| done.map_err(Error::from)) {
            tracing::debug!(%error, prefix, "old updates not deleted");
        }
    }
}

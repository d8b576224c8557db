//! A decided round: merges exactly what the decision lists, and commits the result.

use std::path::{Path, PathBuf};

use bus::drive::{Next, Owned};
use chassis::clock::Stopwatch;
use chassis::failpoint::{Failpoint, hit};
use chassis::telemetry::{self, Metric, SpanName};
use contract::topology::round_key;
use domain::adapter::WeightShape;
use domain::artifact::ArtifactRef;
use domain::energy::EnergyTable;
use domain::id::WorkerName;
use domain::job::Job;
use domain::job::mezo::{Mezo, Rates};
use domain::object;
use domain::plan::{Plan, WorkerPlan};
use domain::round::{Closed, Contribution, ShrunkSite, Summary, WorkerRound};
use domain::time::UnixMillis;
use domain::trace::Trace;
use domain::zeroth::Scalars;
use engine::train::Emphasis;

use super::starting;
use crate::Error;
use crate::app::Aggregator;
use crate::rounds::clean::{clean, merged_path, moments_path};
use crate::rounds::returning::returning;
use crate::rounds::walk::{self, Walker};
use crate::rounds::{commit, emphasis, follow, rates, replan, tasks};
use crate::strategy::walk::Stretch;
use crate::strategy::{self, Folded, Member, Round, Share};

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
    optimizer: Option<ArtifactRef>,
    /// Of each contribution.
    members: Vec<Part>,
    folded: Folded,
    /// The mean of the sites' scalars, where they walk together.
    scalars: Option<Scalars>,
    /// Sites whose ranks fell with the plan, if this is its first round.
    shrunk: Vec<ShrunkSite>,
}

/// What a contribution weighs, and what the plan that it trained by had asked for.
struct Part {
    share: Share,
    /// Highest rank.
    rank: u16,
    /// Records per step.
    batch: u16,
    /// Its rate, where sites have their own.
    rate: Option<f64>,
    /// How far its change lies from the mean of all, where it was looked at.
    difference: Option<f64>,
}

/// What a contributor trained by.
struct Terms {
    plan: WorkerPlan,
    /// What its rate is of the job's.
    rate_factor: f64,
}

/// A contribution, and what it was trained by.
struct Contributor<'a> {
    contribution: &'a Contribution,
    plan: &'a WorkerPlan,
    weights: &'a [WeightShape],
}

/// What a merge comes to.
struct Made {
    folded: Folded,
    /// The mean of the sites' scalars, where they walk together.
    scalars: Option<Scalars>,
    /// Of each contribution, how far its change lies from the mean of all, where the next rates go by it.
    apart: Vec<Option<f64>>,
}

pub async fn handle(
    aggregator: &Aggregator,
    job: &mut Owned,
    decided: &Decided,
) -> Result<Next, Error> {
    let plan = aggregator.plan(job.job()).await?;
    let own = terms(aggregator, job.job(), &plan, decided).await?;
    let round = prepare(aggregator, job, &plan, &own, decided).await?;
    let (merging, own_plan, watch) = (round.clone(), plan.clone(), Stopwatch::start());
    let emphasis = match job.job().spec.training.shares_directions() {
        true => emphasis::of(aggregator, job.job(), decided.round).await?,
        false => Emphasis::default(),
    };
    let together = walk::together(job.job(), decided.round, emphasis);
    let mezo = job.job().spec.training.mezo;
    let span = telemetry::within(Some(Trace::of_phase(job.job())), SpanName::Merge, &[]);
    let made = tokio::task::spawn_blocking(move || {
        let shrunk = strategy::shrunk::of(&own_plan, merging.round, &merging.start)?;
        make(&merging, together, &mezo).map(|made| (made, shrunk))
    });
    let (made, shrunk) = made.await??;
    drop(span);
    observe_merge(decided, watch.seconds());
    hit(Failpoint::AggregatorFoldAfterMerge);
    let optimizer = if round.has_state() {
        let prefix = object::optimizer_prefix(&job.job().id, decided.round);
        Some(store(aggregator, &prefix, &round.state_out).await?)
    } else {
        None
    };
    let prefix = tasks::global_prefix(job.job());
    let global = store(aggregator, &prefix, &round.out).await?;
    hit(Failpoint::AggregatorFoldAfterArtifact);
    let merged = Merged {
        global,
        optimizer,
        members: parts(job.job(), &round, &own, &made.apart),
        folded: made.folded,
        scalars: made.scalars,
        shrunk,
    };
    let summary = summarize(job.job(), decided, merged, job.now());
    let summary = summary.with_mean_energies(&plan.global);
    telemetry::count(Metric::Rounds, 1, &[]);
    telemetry::observe(Metric::RoundSeconds, summary.seconds, &[]);
    telemetry::observe(Metric::RoundOverheadSeconds, summary.overhead_seconds, &[]);
    telemetry::set(Metric::DroppedEnergy, summary.dropped_energy, &[]);
    // Another process may have been here before: what it committed stands.
    let global = commit::summary(aggregator, &job.job().id, summary)
        .await?
        .global;
    hit(Failpoint::AggregatorFoldAfterSummary);
    let idle_ms = aggregator.config.liveness.idle_ms;
    let back: Vec<WorkerName> = returning(aggregator, job.job(), job.now());
    let mut seen = job.job().clone();
    seen.lost.retain(|lost| !back.contains(&lost.worker));
    let next = follow::after_merge(&seen, &plan, decided.round, global, job.now(), idle_ms);
    let (next, joined) = replan::before(aggregator, &seen, &plan, next, job.now()).await?;
    let paused = matches!(next, domain::job::Phase::Paused { .. });
    job.advance(next, |job| {
        job.lost = seen.lost;
        job.join(joined);
        job.pause_requested &= !paused;
    })
    .await?;
    hit(Failpoint::AggregatorFoldAfterState);
    job.announce().await?;
    hit(Failpoint::AggregatorOpenAfterPublish);
    clean(aggregator, job.job(), decided.round).await;
    walk::clean(aggregator, job.job()).await;
    Ok(Next::Again)
}

fn observe_merge(decided: &Decided, seconds: f64) {
    let contributions = &decided.closed.contributions;
    let bytes = contributions.iter().map(|one| one.update.adapter.bytes);
    telemetry::observe(Metric::FoldSeconds, seconds, &[]);
    telemetry::count(Metric::FoldedUpdates, contributions.len() as u64, &[]);
    telemetry::count(Metric::FoldedBytes, bytes.sum(), &[]);
}

/// Merges, and looks how far the contributions lie apart if the next rates go by that.
fn make(round: &Round, together: Option<Stretch>, mezo: &Mezo) -> Result<Made, Error> {
    let looks = mezo.rates == Rates::ModelDifference;
    let Some(stretch) = together else {
        return Ok(Made {
            folded: round.merge()?,
            scalars: None,
            apart: if looks {
                strategy::apart::files(round)?
            } else {
                Vec::new()
            },
        });
    };
    let made = stretch.fold(round, mezo.trim)?;
    let apart = made.apart.into_iter().filter(|_| looks);
    Ok(Made {
        folded: made.folded,
        scalars: Some(made.mean),
        apart: apart.map(Some).collect(),
    })
}

/// What each contributor trained by: a late one by the plan and the rate of its own round.
async fn terms(
    aggregator: &Aggregator,
    job: &Job,
    plan: &Plan,
    decided: &Decided,
) -> Result<Vec<Terms>, Error> {
    let mut terms = Vec::new();
    for Contribution { worker, credit, .. } in &decided.closed.contributions {
        let own = match credit {
            None => plan.workers.get(worker).cloned(),
            Some(credit) => {
                let own = aggregator.plan_of(job, credit.plan).await?;
                own.workers.get(worker).cloned()
            }
        };
        let trained_in = credit.as_ref().map_or(decided.round, |credit| credit.round);
        terms.push(Terms {
            plan: own.ok_or(Error::Missing {
                what: "plan of a contributor",
            })?,
            rate_factor: rates::of(aggregator, job, worker, trained_in).await?,
        });
    }
    Ok(terms)
}

fn parts(job: &Job, round: &Round, own: &[Terms], apart: &[Option<f64>]) -> Vec<Part> {
    let training = &job.spec.training;
    let has_own = training.mezo.rates != Rates::Fixed;
    let members = round.members.iter().zip(own).enumerate();
    let part = |(at, (member, own)): (usize, (&Member, &Terms))| Part {
        share: member.share,
        rank: member.ranks.max(),
        batch: own.plan.batch,
        rate: has_own.then_some(own.rate_factor * training.zeroth_order_rate()),
        difference: apart.get(at).copied().flatten(),
    };
    members.map(part).collect()
}

/// Everything the merge needs, as files.
async fn prepare(
    aggregator: &Aggregator,
    job: &Owned,
    plan: &Plan,
    own: &[Terms],
    decided: &Decided,
) -> Result<Round, Error> {
    let spec = &job.job().spec;
    let weights = starting::weights(aggregator, job.job(), plan).await?;
    let start = aggregator.fetch(job.job(), &decided.global).await?;
    let aggregation = spec.aggregation.clone();
    let contributions = &decided.closed.contributions;
    let plans: Vec<&WorkerPlan> = own.iter().map(|own| &own.plan).collect();
    let shares = strategy::shares_of(contributions, &plans, &aggregation);
    let mut members = Vec::new();
    for ((contribution, own), mut share) in contributions.iter().zip(own).zip(shares) {
        if spec.training.shares_directions() {
            // The mean of the scalars is walked at the job's rate, whatever each site's own was.
            share.stretch *= own.rate_factor;
        }
        let site = Contributor {
            contribution,
            plan: &own.plan,
            weights: &weights,
        };
        let update = update(aggregator, job.job(), decided, &site).await?;
        let started = match &contribution.credit {
            None => None,
            Some(credit) => Some(aggregator.fetch(job.job(), &credit.global).await?),
        };
        members.push(Member {
            worker: contribution.worker.clone(),
            ranks: own.plan.ranks.clone(),
            share,
            update,
            started,
        });
    }
    let round = decided.round;
    let state = moments(aggregator, job.job(), round).await?;
    let folder = starting::folder(aggregator, job.job()).await?;
    Ok(Round {
        aggregation,
        round,
        start,
        state,
        members,
        weights,
        ranks: plan.global.clone(),
        tables: strategy::round::tables(plan),
        scale: spec.adapter.scale(),
        seed: spec.training.seed,
        out: merged_path(&folder, round),
        state_out: moments_path(&folder, round),
        threads: strategy::round::all_threads(),
    })
}

/// A contribution's file as the merge reads it: what its site stored, or the adapter that its scalars lead to.
async fn update(
    aggregator: &Aggregator,
    job: &Job,
    decided: &Decided,
    site: &Contributor<'_>,
) -> Result<PathBuf, Error> {
    let Contributor {
        contribution,
        plan,
        weights,
    } = *site;
    let stored = aggregator.fetch(job, &contribution.update.adapter).await?;
    let training = &job.spec.training;
    if !training.sends_scalars(plan.optimizer) || training.shares_directions() {
        return Ok(stored);
    }
    let walker = Walker {
        worker: &contribution.worker,
        round: contribution
            .credit
            .as_ref()
            .map_or(decided.round, |credit| credit.round),
        start: contribution
            .credit
            .as_ref()
            .map_or(&decided.global, |credit| &credit.global),
        ranks: &plan.ranks,
        steps: plan.local_steps,
        weights,
    };
    let scalars = tokio::task::spawn_blocking(move || strategy::walk::read(&stored)).await??;
    let (path, _) = walk::retraced(aggregator, job, &walker, &scalars).await?;
    Ok(path)
}

/// The moments that the round before left: those that its summary names, so that whoever merges this
/// round again starts from the same bytes.
async fn moments(aggregator: &Aggregator, job: &Job, round: u32) -> Result<Option<PathBuf>, Error> {
    if !job.spec.aggregation.optimizer.kind.has_state() || round <= 1 {
        return Ok(None);
    }
    let before = aggregator
        .rounds
        .get(&round_key(&job.id, round - 1))
        .await?;
    let named = before.and_then(|(summary, _)| summary.optimizer);
    let named = named.ok_or(Error::Missing {
        what: "optimizer of the round before",
    })?;
    Ok(Some(aggregator.fetch(job, &named).await?))
}

async fn store(aggregator: &Aggregator, prefix: &str, path: &Path) -> Result<ArtifactRef, Error> {
    let sent = aggregator
        .artifacts
        .put_file(prefix, path, &aggregator.transfer);
    Ok(aggregator.reach.guard(sent).await??)
}

/// What a round amounted to.
fn summarize(job: &Job, decided: &Decided, merged: Merged, now: UnixMillis) -> Summary {
    let withheld = &merged.folded.withheld_energy;
    let worker_round = |(at, (contribution, part)): (usize, (&Contribution, &Part))| WorkerRound {
        worker: contribution.worker.clone(),
        rank: part.rank,
        batch: part.batch,
        weight: part.share.weight,
        withheld_energy: withheld.get(at).copied(),
        trained_in: contribution.credit.as_ref().map(|credit| credit.round),
        rate: part.rate,
        difference: part.difference,
        update: contribution.update.adapter.clone(),
        metrics: contribution.update.metrics.clone(),
    };
    let workers: Vec<WorkerRound> = decided
        .closed
        .contributions
        .iter()
        .zip(&merged.members)
        .enumerate()
        .map(worker_round)
        .collect();
    // A late update was computed in earlier rounds.
    let in_time = workers.iter().filter(|worker| worker.trained_in.is_none());
    let slowest = in_time
        .map(|worker| worker.metrics.compute_seconds)
        .fold(0.0, f64::max);
    let seconds = now.seconds_since(decided.opened_at);
    tracing::info!(job = %job.id, round = decided.round, seconds, slowest, "round committed");
    if workers.iter().all(|worker| worker.metrics.loss().is_none()) {
        tracing::warn!(
            job = %job.id,
            round = decided.round,
            "no step of any site had a finite loss; lower training.learning_rate (training.mezo.learning_rate where \
             that is set) or set training.mezo.clip"
        );
    }
    Summary {
        round: decided.round,
        global: merged.global,
        side: merged.folded.side,
        scalars: merged.scalars,
        optimizer: merged.optimizer,
        opened_at: decided.opened_at,
        committed_at: now,
        seconds,
        overhead_seconds: (seconds - slowest).max(0.0),
        dropped_energy: merged.folded.dropped_energy,
        energies: EnergyTable::default(),
        asked: decided.closed.asked.clone(),
        shrunk: merged.shrunk,
        workers,
        missing: decided.closed.missing.clone(),
    }
}

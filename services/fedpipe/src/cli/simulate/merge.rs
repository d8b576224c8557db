//! The adapters of a simulation, as files: the untrained one, and each round's merge by the aggregator's
//! own rule.

use std::path::{Path, PathBuf};

use aggregator::strategy::{self, Folded, Member, Round};
use artifacts::tensors::TensorFile;
use domain::adapter::Encoder;
use domain::artifact::{ArtifactRef, Digest};
use domain::id::WorkerName;
use domain::job::Job;
use domain::job::mezo::Rates;
use domain::plan::WorkerPlan;
use domain::round::{Contribution, ShrunkSite, Update, UpdateMetrics};
use domain::zeroth::Scalars;
use engine::train::Emphasis;

use super::job::Simulated;
use super::report::Slopes;

/// A site's update, checked.
pub struct Delivered {
    /// Whose.
    pub worker: WorkerName,
    /// Its file.
    pub path: PathBuf,
    /// The file's digest.
    pub sha256: Digest,
    /// Its length.
    pub bytes: u64,
    /// Its figures.
    pub metrics: UpdateMetrics,
    /// What its rate was of the job's.
    pub rate_factor: f64,
    /// How often its batches went through the model.
    pub passes: u64,
    /// Its scalars, where it is that.
    pub slopes: Option<Slopes>,
}

impl Delivered {
    /// Its file, as a round's summary names it; nobody fetches it.
    pub fn reference(&self) -> ArtifactRef {
        ArtifactRef {
            key: String::new(),
            sha256: self.sha256.clone(),
            bytes: self.bytes,
        }
    }

    /// What the aggregator makes of it.
    fn contribution(&self) -> Contribution {
        Contribution {
            worker: self.worker.clone(),
            update: Update {
                adapter: self.reference(),
                metrics: self.metrics.clone(),
            },
            credit: None,
        }
    }
}

/// Writes the adapter that every site starts from.
pub fn fresh(simulated: &Simulated, path: &Path) -> anyhow::Result<()> {
    let (ranks, weights) = (&simulated.plan().global, simulated.weights());
    let (head, seed) = (simulated.head(), simulated.job.spec.training.seed);
    let mut out = strategy::files::create_with_head(path, ranks, weights, head)?;
    if let Some(head) = head {
        strategy::head::fresh(head, seed, &mut out)?;
    }
    strategy::fresh(ranks, weights, seed, &mut out)?;
    out.finish()?;
    Ok(())
}

/// The adapter as a job leaves it behind: one with a head is written to `to`, under the names of its model's own checkpoint.
/// The family of encoders that it is of comes with it.
pub fn published(
    job: &Job,
    from: &Path,
    to: PathBuf,
) -> anyhow::Result<(PathBuf, Option<Encoder>)> {
    if !job.spec.training.classifies() {
        return Ok((from.to_owned(), None));
    }
    let encoder = aggregator::named_as_encoder(from, &to)?;
    Ok((to, Some(encoder)))
}

/// Refuses a round's update that is not what its plan demands, as the aggregator does; tells of scalars what they are.
pub fn check(
    simulated: &Simulated,
    (worker, round): (&WorkerName, u32),
    path: &Path,
) -> anyhow::Result<Option<Slopes>> {
    let (plan, weights) = (simulated.worker(worker)?, simulated.weights());
    if simulated.job.spec.training.shares_directions() {
        let steps = aggregator::steps(&simulated.job, worker, round);
        let scalars = strategy::walk::read(path)?;
        scalars.skipped(plan.local_steps, &steps)?;
        return Ok(Slopes::of(&scalars));
    }
    let trained = simulated.job.spec.aggregation.strategy.trains();
    let demanded = (&plan.ranks, simulated.head());
    strategy::check_with_head(&TensorFile::open(path)?, demanded, weights, trained)?;
    Ok(None)
}

/// The files of one merge.
pub struct Files {
    /// The merged adapter that the sites started from.
    pub start: PathBuf,
    /// Where the new one goes.
    pub out: PathBuf,
    /// The server optimizer's moments of the round before, if it has any.
    pub state: Option<PathBuf>,
    /// Where the new ones go.
    pub state_out: PathBuf,
}

/// A merged round.
pub struct Merged {
    /// What the merge came to.
    pub folded: Folded,
    /// Whether there are moments in `state_out`.
    pub has_moments: bool,
    /// Each update's share, in their order.
    pub weights: Vec<f64>,
    /// How far each one's change lies from the mean of all, where the next rates go by it.
    pub apart: Vec<Option<f64>>,
    /// The mean of the sites' scalars, where all walk along the same directions.
    pub scalars: Option<Scalars>,
    /// Sites whose ranks fell with the plan, if this is its first round.
    pub shrunk: Vec<ShrunkSite>,
}

/// Merges a round.
pub fn merge(
    (simulated, emphasis): (&Simulated, Emphasis),
    number: u32,
    delivered: &[Delivered],
    files: Files,
) -> anyhow::Result<Merged> {
    let spec = &simulated.job.spec;
    let aggregation = spec.aggregation.clone();
    let contributions: Vec<Contribution> = delivered.iter().map(Delivered::contribution).collect();
    let plans = delivered.iter().map(|one| simulated.worker(&one.worker));
    let plans: Vec<&WorkerPlan> = plans.collect::<anyhow::Result<_>>()?;
    let shares = strategy::shares_of(&contributions, &plans, &aggregation);
    let weights = shares.iter().map(|share| share.weight).collect();
    let mut members = Vec::new();
    let together = aggregator::together(&simulated.job, number, emphasis);
    for ((update, plan), mut share) in delivered.iter().zip(plans).zip(shares) {
        if together.is_some() {
            share.stretch *= update.rate_factor;
        }
        members.push(Member {
            worker: update.worker.clone(),
            ranks: plan.ranks.clone(),
            share,
            started: None,
            update: update.path.clone(),
        });
    }
    let round = Round {
        aggregation,
        round: number,
        start: files.start,
        state: files.state,
        members,
        weights: simulated.weights().to_vec(),
        ranks: simulated.plan().global.clone(),
        tables: strategy::round::tables(simulated.plan()),
        scale: spec.adapter.scale(),
        seed: spec.training.seed,
        out: files.out,
        state_out: files.state_out,
        threads: strategy::round::all_threads(),
    };
    let shrunk = strategy::shrunk::of(simulated.plan(), number, &round.start)?;
    let mezo = &spec.training.mezo;
    let (folded, apart, scalars) = match together {
        Some(stretch) => {
            let made = stretch.fold(&round, mezo.trim)?;
            let apart = made.apart.into_iter().map(Some).collect();
            (made.folded, apart, Some(made.mean))
        }
        None if mezo.rates == Rates::ModelDifference => {
            (round.merge()?, strategy::apart::files(&round)?, None)
        }
        None => (round.merge()?, Vec::new(), None),
    };
    Ok(Merged {
        folded,
        has_moments: round.has_state(),
        weights,
        apart,
        scalars,
        shrunk,
    })
}

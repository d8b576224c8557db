//! The adapters of a simulation, as files: the untrained one, and each round's merge by the aggregator's
//! own rule.

use std::path::{Path, PathBuf};

use aggregator::strategy::{self, Input, Merge};
use artifacts::tensors::TensorFile;
use domain::artifact::{ArtifactRef, Digest};
use domain::id::WorkerName;
use domain::round::{Contribution, Update, UpdateMetrics};

use super::job::Simulated;

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
}

impl Delivered {
    /// What the aggregator makes of it.
    fn contribution(&self) -> Contribution {
        Contribution {
            worker: self.worker.clone(),
            update: Update {
                adapter: ArtifactRef {
                    key: String::new(),
                    sha256: self.sha256.clone(),
                    bytes: self.bytes,
                },
                metrics: self.metrics.clone(),
            },
        }
    }
}

/// Writes the adapter that every site starts from.
pub fn fresh(simulated: &Simulated, path: &Path) -> anyhow::Result<()> {
    let (ranks, weights) = (&simulated.plan.global, simulated.weights());
    let mut out = strategy::files::create(path, ranks, weights)?;
    strategy::fresh(ranks, weights, simulated.job.spec.training.seed, &mut out)?;
    out.finish()?;
    Ok(())
}

/// Refuses an update that the aggregator would refuse.
pub fn check(simulated: &Simulated, worker: &WorkerName, path: &Path) -> anyhow::Result<()> {
    let (plan, weights) = (simulated.worker(worker)?, simulated.weights());
    strategy::check(&TensorFile::open(path)?, &plan.ranks, weights, None)?;
    Ok(())
}

/// Merges a round; returns the share of the change that the kept rank does not hold.
pub fn merge(
    simulated: &Simulated,
    start: &Path,
    delivered: &[Delivered],
    out: &Path,
) -> anyhow::Result<f64> {
    let spec = &simulated.job.spec;
    let contributions: Vec<Contribution> = delivered.iter().map(Delivered::contribution).collect();
    let shares = strategy::weights(&contributions, spec.aggregation.weights);
    let global = TensorFile::open(start)?;
    let mut files = Vec::new();
    for update in delivered {
        files.push(TensorFile::open(&update.path)?);
    }
    let mut inputs = Vec::new();
    for ((update, file), weight) in delivered.iter().zip(&files).zip(shares) {
        inputs.push(Input {
            worker: &update.worker,
            weight,
            ranks: &simulated.worker(&update.worker)?.ranks,
            update: file,
        });
    }
    let merge = Merge {
        inputs: &inputs,
        global: &global,
        ranks: &simulated.plan.global,
        scale: spec.adapter.scale(),
        seed: spec.training.seed,
    };
    let mut sink = strategy::files::create(out, &simulated.plan.global, simulated.weights())?;
    let folded = merge.fold(&mut sink)?;
    sink.finish()?;
    Ok(folded.dropped_energy)
}

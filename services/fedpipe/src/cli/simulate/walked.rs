//! What zeroth-order rounds of a simulation leave for the next: the scalars that scale its directions, and the adapter that
//! its mask goes by.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use domain::artifact::ArtifactRef;
use domain::id::WorkerName;
use domain::job::Job;
use domain::job::mezo::Rates;
use domain::job::spec::Optimizer;
use domain::zeroth::{Committed, Masked, Scalars, Walk};
use engine::train::Emphasis;

/// The rounds so far, as far as directions depend on them.
#[derive(Default)]
pub struct Past {
    log: Vec<Committed>,
    masked: Option<(Masked, PathBuf)>,
}

impl Past {
    /// Copies the merged adapter of a round to `into`, if the job's mask goes by it.
    pub fn mask(
        &mut self,
        job: &Job,
        (round, global, path): (u32, ArtifactRef, &Path),
        into: PathBuf,
    ) -> anyhow::Result<()> {
        let mask = job.spec.training.mezo.mask;
        if let Some(mask) = mask.filter(|mask| mask.after == round) {
            fs::copy(path, &into).context("a copy of the adapter cannot be made")?;
            let masked = Masked {
                share: mask.share,
                after: mask.after,
                adapter: global,
            };
            self.masked = Some((masked, into));
        }
        Ok(())
    }

    /// Keeps what a round's scalars came to, if the job scales directions by it.
    pub fn keep(
        &mut self,
        job: &Job,
        (round, start): (u32, ArtifactRef),
        scalars: Option<Scalars>,
    ) {
        let training = &job.spec.training;
        if let (Some(scalars), true) = (scalars, training.mezo.scaling.is_some()) {
            self.log.push(Committed {
                round,
                first_step: u64::from(round.saturating_sub(1)) * u64::from(training.most_steps()),
                start: start.sha256,
                scalars,
            });
        }
    }

    /// What the directions of the next round are multiplied by.
    pub fn emphasis(&self, job: &Job) -> anyhow::Result<Emphasis> {
        let scaling = job.spec.training.mezo.scaling;
        let count = scaling.map_or(0, |scaling| scaling.rounds as usize);
        let from = self.log.len().saturating_sub(count);
        let past = self.log.get(from..).unwrap_or_default();
        let emphasis = aggregator::scaled(job, past);
        Ok(match &self.masked {
            None => emphasis,
            Some((masked, path)) => {
                emphasis.masked(Arc::new(aggregator::mask(path, masked.share)?))
            }
        })
    }

    /// What a task tells of it.
    pub fn told(&self, job: &Job, walk: Walk) -> Walk {
        Walk {
            log: self.log.clone(),
            mask: self.masked.as_ref().map(|(masked, _)| masked.clone()),
            scaling: job.spec.training.mezo.scaling,
            ..walk
        }
    }

    /// The file of the adapter that the mask goes by.
    pub fn masked(&self) -> Option<&Path> {
        self.masked.as_ref().map(|(_, path)| path.as_path())
    }
}

/// How a zeroth-order site makes its steps in a round.
pub fn walk(
    job: &Job,
    (worker, own): (&WorkerName, Optimizer),
    (round, rate_factor): (u32, f64),
) -> Option<Walk> {
    let steps = aggregator::steps(job, worker, round);
    Some(Walk {
        rate: own_rate(job, rate_factor),
        ..Walk::new(steps)
    })
    .filter(|_| own == Optimizer::Mezo)
}

/// A site's rate, where sites have rates of their own.
pub fn own_rate(job: &Job, rate_factor: f64) -> Option<f64> {
    let training = &job.spec.training;
    let rate = rate_factor * training.zeroth_order_rate();
    (training.mezo.rates != Rates::Fixed).then_some(rate)
}

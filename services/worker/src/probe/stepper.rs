//! A step in either way of training, so that both are measured by the same rounds.

use std::path::Path;

use domain::adapter::RankTable;
use domain::cause::Trouble;
use domain::job::aggregation::Trains;
use domain::job::spec::{Optimizer, Training};
use engine::control::Control;
use engine::data::Batch;
use engine::model::Model;
use engine::train::{Options, Step, Trainer, ZerothOptions, ZerothTrainer};

use crate::adapter_file;
use crate::failure::Failure;
use crate::train;

/// How a measured round computes, beside the base and the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// First- or zeroth-order; never `auto`.
    pub optimizer: Optimizer,
    /// Whether activations are recomputed block by block.
    pub checkpoint: bool,
}

impl Way {
    /// Gradients, activations kept.
    pub const PLAIN: Self = Self {
        optimizer: Optimizer::Adamw,
        checkpoint: false,
    };
    /// Gradients, activations recomputed.
    pub const CHECKPOINT: Self = Self {
        optimizer: Optimizer::Adamw,
        checkpoint: true,
    };
    /// Two forward passes.
    pub const ZEROTH: Self = Self {
        optimizer: Optimizer::Mezo,
        checkpoint: false,
    };

    /// The ways that the job leaves open, in the order in which they are measured. Recomputing changes no
    /// result, so it is always open beside gradients.
    #[must_use]
    pub fn open(asked: Optimizer) -> Vec<Self> {
        match asked {
            Optimizer::Auto => vec![Self::PLAIN, Self::CHECKPOINT, Self::ZEROTH],
            Optimizer::Adamw => vec![Self::PLAIN, Self::CHECKPOINT],
            Optimizer::Mezo => vec![Self::ZEROTH],
        }
    }
}

/// A trainer of either kind.
pub enum Stepper<'m> {
    First(Box<Trainer<'m>>),
    Zeroth(Box<ZerothTrainer<'m>>),
}

impl<'m> Stepper<'m> {
    /// Starts from the leading slices of the adapter in `global`.
    pub fn begin(
        model: &'m Model,
        global: &Path,
        ranks: &RankTable,
        way: Way,
        training: &Training,
    ) -> Result<Self, Failure> {
        // The scale changes no cost; the fresh adapter's change is zero.
        let scale = 1.0;
        if way.optimizer != Optimizer::Mezo {
            let options = Options {
                // The copy that it pulls back to is the planner's to count, so that a measurement holds for
                // every job that asks the same otherwise.
                proximal: 0.0,
                ..train::options(training, way.checkpoint)
            };
            let trainer = train::begin(model, global, ranks, scale, options)?;
            return Ok(Self::First(Box::new(trainer)));
        }
        let start = adapter_file::leading(global, &model.weights(), ranks, scale)?;
        let options = ZerothOptions {
            seed: training.seed,
            ..ZerothOptions::default()
        };
        let trainer = ZerothTrainer::new(model, &start, options)?;
        Ok(Self::Zeroth(Box::new(trainer)))
    }

    /// One step at rate 0: it costs what any step costs, and the adapter stays the job's start.
    pub fn step(&mut self, batch: &Batch, control: &Control) -> Result<Step, Failure> {
        let step = match self {
            Self::First(trainer) => trainer.step(batch, 0.0, control),
            Self::Zeroth(trainer) => trainer.step(batch, 0.0, control),
        };
        Ok(step?)
    }

    /// The update's file, at its largest: of both factors, whichever the job's rule trains.
    pub fn finish(self) -> Result<Vec<u8>, Failure> {
        let trainer = match self {
            Self::First(trainer) => return train::finish(*trainer, Trains::Both),
            Self::Zeroth(trainer) => trainer,
        };
        let failed = |error| Failure::of(Trouble::Internal, &error);
        let update = trainer.adapter().map_err(failed)?;
        drop(trainer);
        update.to_safetensors().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_job_fixes_is_the_only_optimizer_that_is_measured() {
        assert_eq!(Way::open(Optimizer::Mezo), [Way::ZEROTH]);
        assert_eq!(Way::open(Optimizer::Auto).len(), 3);
        let first = Way::open(Optimizer::Adamw);
        assert_eq!(first, [Way::PLAIN, Way::CHECKPOINT]);
    }
}

//! What a round of training holds in memory, from the merged adapter's file to the update's bytes.
//!
//! Rounds and probes both go this way, so that what a probe measures is what a round needs.

use std::path::Path;

use chassis::failpoint::{self, Failpoint};
use domain::adapter::RankTable;
use domain::artifact::Digest;
use domain::cause::Trouble;
use domain::energy::EnergyTable;
use domain::job::aggregation::Trains;
use domain::zeroth::{Scalars, Steps};
use engine::control::Control;
use engine::data::Batch;
use engine::model::Model;
use engine::train::{Emphasis, Error, Options, Trainer, ZerothTrainer};

use crate::adapter_file;
use crate::failure::Failure;

/// How a round trains.
#[derive(Debug, Clone)]
pub enum How {
    /// By gradients.
    FirstOrder(Options),
    /// By forward passes alone.
    ZerothOrder(Passes),
}

/// How a round by forward passes is computed.
#[derive(Debug, Clone)]
pub struct Passes {
    /// How its steps are made.
    pub steps: Steps,
    /// The number of the first.
    pub first: u64,
    /// Passes that are computed as one.
    pub abreast: u16,
    /// What the numbers of directions are multiplied by.
    pub emphasis: Emphasis,
}

/// Whoever trains.
#[derive(Debug)]
pub enum Learner<'m> {
    /// By gradients.
    FirstOrder(Box<Trainer<'m>>),
    /// By forward passes alone.
    ZerothOrder(Box<ZerothTrainer<'m>>),
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learned {
    /// Mean loss of the labelled tokens before the update; absent if it was not finite and the step was
    /// skipped, as zeroth-order steps are.
    pub loss: Option<f64>,
    /// Tokens that went through the model, counted once.
    pub tokens: usize,
    /// How many times they did without gradients; 1 with.
    pub passes: usize,
    /// Norm of the gradient, where there is one.
    pub gradient_norm: Option<f64>,
}

impl<'m> Learner<'m> {
    /// Starts from the leading slices of the merged adapter in `global`, whose change has this scale. What takes long of it
    /// is told to the control.
    ///
    /// # Errors
    /// If the file is not the adapter that `ranks` asks for, or does not fit the model; [`Failure::Stopped`] if the control
    /// was cancelled.
    pub fn begin(
        model: &'m Model,
        (global, scale): (&Path, f64),
        ranks: &RankTable,
        how: How,
        control: &Control,
    ) -> Result<Self, Failure> {
        let start = adapter_file::leading(global, &model.weights(), ranks, scale)?;
        let begun = match how {
            How::FirstOrder(options) => {
                Self::FirstOrder(Box::new(Trainer::new(model, &start, options)?))
            }
            How::ZerothOrder(passes) => {
                let trainer = ZerothTrainer::new(model, &start, passes.steps, passes.first)?;
                let trainer = trainer.with_emphasis(&passes.emphasis, control)?;
                Self::ZerothOrder(Box::new(trainer.with_abreast(passes.abreast)))
            }
        };
        // The trainer has its own factors: of the adapter that they were copied from nothing stays.
        drop(start);
        chassis::memory::give_back_small_blocks();
        Ok(begun)
    }

    /// With a fail-point between the two passes of each direction.
    #[must_use]
    pub fn with_failpoint(self) -> Self {
        let between = || failpoint::hit(Failpoint::WorkerTrainBetweenPasses);
        match self {
            Self::ZerothOrder(trainer) => {
                Self::ZerothOrder(Box::new(trainer.with_between(between)))
            }
            first_order => first_order,
        }
    }

    /// One step over all these batches, by gradients at `rate`. A zeroth-order step has one batch, and its rate from the
    /// beginning.
    ///
    /// # Errors
    /// As [`Trainer::step_over`] and [`ZerothTrainer::step`].
    pub fn step(
        &mut self,
        batches: &[Batch],
        rate: f32,
        control: &Control,
    ) -> Result<Learned, Error> {
        Ok(match self {
            Self::FirstOrder(trainer) => {
                let step = trainer.step_over(batches, rate, control)?;
                Learned {
                    loss: Some(step.loss),
                    tokens: step.tokens,
                    passes: 1,
                    gradient_norm: Some(step.gradient_norm),
                }
            }
            Self::ZerothOrder(trainer) => {
                let batch = batches.first().ok_or(Error::NothingLabelled)?;
                let walked = trainer.step(batch, control)?;
                Learned {
                    loss: walked.loss,
                    tokens: walked.tokens,
                    passes: 2 * walked.directions,
                    gradient_norm: None,
                }
            }
        })
    }

    /// How strongly the loss pulled at each weight; nothing is known of it without gradients.
    #[must_use]
    pub fn energies(&self) -> EnergyTable {
        match self {
            Self::FirstOrder(trainer) => trainer.energies(),
            Self::ZerothOrder(_) => EnergyTable::default(),
        }
    }

    /// The factors that were trained as a safetensors file. The trainer's buffers go before the file is made.
    ///
    /// # Errors
    /// None that a trained adapter could cause.
    pub fn tensors(self, trained: Trains) -> Result<Vec<u8>, Failure> {
        let failed = |error| Failure::of(Trouble::Internal, &error);
        let update = match self {
            Self::FirstOrder(trainer) => trainer.adapter(),
            Self::ZerothOrder(trainer) => trainer.adapter(),
        };
        update
            .map_err(failed)?
            .trained_to_safetensors(trained)
            .map_err(failed)
    }

    /// The scalars of a zeroth-order round, and if asked for the digest of the file that
    /// [`Learner::tensors`] would be.
    ///
    /// # Errors
    /// If there are none.
    pub fn scalars(self, digest: bool) -> Result<(Scalars, Option<Digest>), Failure> {
        let failed = |error| Failure::of(Trouble::Internal, &error);
        let Self::ZerothOrder(trainer) = self else {
            let detail = "a round by gradients has no scalars".to_owned();
            return Err(Failure::new(Trouble::PlanUnsupported, detail));
        };
        let scalars = trainer.scalars();
        if !digest {
            return Ok((scalars, None));
        }
        let reached = trainer.adapter().map_err(failed)?;
        drop(trainer);
        Ok((scalars, Some(reached.file_digest().map_err(failed)?)))
    }
}

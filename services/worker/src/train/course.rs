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
use engine::train::{Error, Options, Trainer, ZerothTrainer};

use crate::adapter_file;
use crate::failure::Failure;

/// How a round trains.
#[derive(Debug, Clone, Copy)]
pub enum How {
    /// By gradients, at this rate.
    FirstOrder(Options, f32),
    /// By forward passes alone; the first step has this number.
    ZerothOrder(Steps, u64),
}

/// Whoever trains.
#[derive(Debug)]
pub enum Learner<'m> {
    /// By gradients, at this rate.
    FirstOrder(Box<Trainer<'m>>, f32),
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
    /// Norm of the gradient, where there is one.
    pub gradient_norm: Option<f64>,
}

impl<'m> Learner<'m> {
    /// Starts from the leading slices of the merged adapter in `global`.
    ///
    /// # Errors
    /// If the file is not the adapter that `ranks` asks for, or does not fit the model.
    pub fn begin(
        model: &'m Model,
        global: &Path,
        ranks: &RankTable,
        scale: f64,
        how: How,
    ) -> Result<Self, Failure> {
        let start = adapter_file::leading(global, &model.weights(), ranks, scale)?;
        Ok(match how {
            How::FirstOrder(options, rate) => {
                Self::FirstOrder(Box::new(Trainer::new(model, &start, options)?), rate)
            }
            How::ZerothOrder(steps, first) => {
                let trainer = ZerothTrainer::new(model, &start, steps, first)?;
                Self::ZerothOrder(Box::new(trainer))
            }
        })
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

    /// One step.
    ///
    /// # Errors
    /// As [`Trainer::step`] and [`ZerothTrainer::step`].
    pub fn step(&mut self, batch: &Batch, control: &Control) -> Result<Learned, Error> {
        Ok(match self {
            Self::FirstOrder(trainer, rate) => {
                let step = trainer.step(batch, *rate, control)?;
                Learned {
                    loss: Some(step.loss),
                    tokens: step.tokens,
                    gradient_norm: Some(step.gradient_norm),
                }
            }
            Self::ZerothOrder(trainer) => {
                let walked = trainer.step(batch, control)?;
                Learned {
                    loss: walked.loss,
                    tokens: walked.tokens,
                    gradient_norm: None,
                }
            }
        })
    }

    /// How strongly the loss pulled at each weight; nothing is known of it without gradients.
    #[must_use]
    pub fn energies(&self) -> EnergyTable {
        match self {
            Self::FirstOrder(trainer, _) => trainer.energies(),
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
            Self::FirstOrder(trainer, _) => trainer.adapter(),
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

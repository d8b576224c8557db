//! Training of an adapter on the mean loss of the labelled tokens: by its gradient and AdamW, or by
//! differences of the loss along random directions.
//!
//! Promises: a step that fails or is cancelled leaves the adapter and the optimizer as they were;
//! the same adapter, batches and rates give the same bytes for any number of threads.
//!
//! Does not: choose batches, keep a schedule (each step is told its rate; a zeroth-order round has one),
//! or touch the base.

mod adamw;
mod energies;
mod optimizer;
mod sgd;
mod trainer;

pub mod checkpoint;

mod emphasis;
mod gate;
mod replay;
mod zeroth;

use crate::{adapter, compute};

pub(crate) use adamw::AdamW;
pub use emphasis::{Emphasis, Mask};
pub use gate::Gate;
pub use replay::Replay;
pub use trainer::{Step, Trainer};
pub use zeroth::{Slope, Walked, WholeTrainer, ZerothTrainer};

/// How a gradient becomes a step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Rule {
    /// With two moments and decay apart from them.
    #[default]
    AdamW,
    /// Straight down, or with momentum.
    Sgd {
        /// How much of the last step's direction stays, from 0 to below 1.
        momentum: f32,
    },
}

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The optimizer.
    pub rule: Rule,
    /// Decay rates of AdamW's first and second moments.
    pub betas: (f32, f32),
    /// Added to AdamW's denominator.
    pub epsilon: f32,
    /// Weight decay: AdamW's apart from the gradient, per unit of rate; SGD's as part of it.
    pub weight_decay: f32,
    /// The gradient is scaled down to this norm; 0 leaves it alone.
    pub clip_norm: f32,
    /// Keep only the blocks' inputs and compute each block again in backward: less memory, a
    /// third more time, the same numbers.
    pub checkpoint: bool,
    /// Train B alone; A stays as it is.
    pub b_alone: bool,
    /// `FedProx`'s μ (arXiv 1812.06127): adds `μ·(θ − θ₀)` to the gradient, θ₀ being the adapter that was
    /// started from, of which a copy is kept; 0 turns it off.
    pub proximal: f32,
    /// The share of the adapter's inputs that a training step leaves out (LoRA dropout), from 0 to below 1.
    pub dropout: f32,
    /// What that is drawn from, together with the step.
    pub dropout_seed: u64,
}

impl Default for Options {
    /// AdamW (0.9, 0.999, 1e-8) without decay, clipping, checkpointing or dropout.
    fn default() -> Self {
        Self {
            rule: Rule::AdamW,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_norm: 0.0,
            checkpoint: false,
            b_alone: false,
            proximal: 0.0,
            dropout: 0.0,
            dropout_seed: 0,
        }
    }
}

/// Why a step did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pass through the model did not finish.
    #[error(transparent)]
    Compute(#[from] compute::Error),
    /// The adapter adapts nothing.
    #[error("the adapter has no weight to train")]
    NothingToTrain,
    /// No token of the batch is to be predicted.
    #[error("no token of the batch is labelled")]
    NothingLabelled,
    /// The loss or its gradient is not a number; nothing was changed.
    #[error("the {what} of step {step} is not finite; records {records:?}")]
    NotFinite {
        /// `loss` or `gradient`.
        what: &'static str,
        /// The step, counted from 0.
        step: u64,
        /// The records of its batch.
        records: Vec<usize>,
    },
    /// All parameters are to be trained where a move of them would be rounded away.
    #[error("all parameters are trained in f32 alone: hold the base in f32 and compute in f32")]
    NotF32,
    /// All parameters are to be trained of a model that has more than is allowed.
    #[error(
        "the model has {parameters} parameters, and all of them are trained where there are {limit} at most: train an adapter"
    )]
    TooManyParameters {
        /// Those of the model.
        parameters: u64,
        /// Those that are allowed.
        limit: u64,
    },
    /// A checkpoint is of another optimizer.
    #[error("the checkpoint is of another optimizer")]
    OtherOptimizer,
    /// The factors cannot be given back as an adapter.
    #[error(transparent)]
    Adapter(#[from] adapter::Error),
}

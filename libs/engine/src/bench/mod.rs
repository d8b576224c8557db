//! Measured speed and memory of training and of inference alone.
//!
//! The clock is the caller's: the engine has none.

mod agreement;
mod flops;
mod generate;
mod packing;
mod roofline;

use std::fs;
use std::time::Duration;

use domain::adapter::{Projection, RankTable};
use domain::job::spec::Training;
use domain::zeroth::Steps;

use crate::adapter::{self, Adapter};
use crate::compute;
use crate::control::Control;
use crate::data::{Batch, Row};
use crate::evaluate::Evaluator;
use crate::model::{Config, Model};
use crate::train::{self, Options, Trainer, WholeTrainer, ZerothTrainer};

pub use agreement::{agreement, slopes};
use flops::{Flops, Passes};
pub use generate::{Written, writing};
pub use packing::{Batched, Batching, mixed_rows, packing};
pub use roofline::roofline;

/// What to measure: `batch` rows of `sequence` pseudo-random tokens, every one labelled or only
/// the last `labelled` of each row.
#[derive(Debug, Clone, Copy)]
pub struct Workload<'a> {
    /// The projections that carry an adapter.
    pub targets: &'a [Projection],
    /// Its rank.
    pub rank: u16,
    /// Rows of a step.
    pub batch: usize,
    /// Tokens of a row.
    pub sequence: usize,
    /// Labelled tokens at the end of each row.
    pub labelled: usize,
    /// Steps that are measured, after one that is not.
    pub steps: usize,
    /// Keep only the blocks' inputs and compute each block again in backward.
    pub checkpoint: bool,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Tokens of a step divided by its median time.
    pub tokens_per_second: f64,
    /// Median time of a step.
    pub step: Duration,
    /// Mean loss of the last step.
    pub loss: f64,
    /// Floating-point operations of a step that its result needs, divided by its median time.
    ///
    /// Per token `4·N + 6·LoRA + attention` for a step of AdamW, N the parameters that take part in
    /// matrix products with the output layer among them (at labelled positions alone); attention is
    /// causal. `2·N + 2·LoRA + attention/3` for a forward pass. What is computed twice to save
    /// memory counts once.
    pub flops_per_second: f64,
    /// The highest resident memory of this process so far; none where the system does not say.
    pub peak_bytes: Option<u64>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The adapter cannot be made.
    #[error(transparent)]
    Adapter(#[from] adapter::Error),
    /// A training step failed.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// A forward pass failed.
    #[error(transparent)]
    Compute(#[from] compute::Error),
}

/// Measures steps of AdamW. `now` is a monotonic clock; `begun` is called when the trainer has its own factors and the adapter
/// that they were copied from is freed.
///
/// # Errors
/// The workload does not fit the model.
pub fn first_order(
    model: &Model,
    workload: &Workload<'_>,
    now: impl Fn() -> Duration,
    begun: impl FnOnce(),
) -> Result<Measured, Error> {
    let options = Options {
        checkpoint: workload.checkpoint,
        ..Options::default()
    };
    let mut trainer = Trainer::new(model, &workload.adapter(model)?, options)?;
    begun();
    let (batch, control) = (workload.rows(model), Control::new());
    measure(
        model.config(),
        workload,
        Passes::FORWARD_BACKWARD,
        now,
        || Ok(trainer.step(&batch, 1e-4, &control)?.loss),
    )
}

/// Measures zeroth-order steps, two forward passes each. `now` is a monotonic clock; `begun` is called as in [`first_order`].
///
/// # Errors
/// The workload does not fit the model.
pub fn zeroth_order(
    model: &Model,
    workload: &Workload<'_>,
    now: impl Fn() -> Duration,
    begun: impl FnOnce(),
) -> Result<Measured, Error> {
    let how = Steps {
        rate: 1e-5,
        ..Steps::of(&Training::default(), 0)
    };
    let mut trainer = ZerothTrainer::new(model, &workload.adapter(model)?, how, 0)?;
    begun();
    let (batch, control) = (workload.rows(model), Control::new());
    measure(model.config(), workload, Passes::TWO_FORWARDS, now, || {
        let walked = trainer.step(&batch, &control)?;
        Ok(walked.loss.unwrap_or(f64::NAN))
    })
}

/// As [`zeroth_order`], of all parameters of a model, without an adapter; gives the model back, moved.
///
/// # Errors
/// The workload does not fit the model, or not all of its parameters can be trained.
pub fn zeroth_order_whole(
    model: Model,
    workload: &Workload<'_>,
    now: impl Fn() -> Duration,
) -> Result<(Measured, Model), Error> {
    let how = Steps {
        rate: 1e-7,
        perturbation: 1e-3,
        ..Steps::of(&Training::default(), 0)
    };
    let (batch, control) = (workload.rows(&model), Control::new());
    let config = model.config().clone();
    let mut trainer = WholeTrainer::new(model, how, 0, u64::MAX)?;
    let measured = measure(&config, workload, Passes::TWO_FORWARDS, now, || {
        let walked = trainer.step(&batch, &control)?;
        Ok(walked.loss.unwrap_or(f64::NAN))
    })?;
    Ok((measured, trainer.into_model()))
}

/// Measures forward passes with the loss, without an adapter. `now` is a monotonic clock.
///
/// # Errors
/// The workload does not fit the model.
pub fn forward(
    model: &Model,
    workload: &Workload<'_>,
    now: impl Fn() -> Duration,
) -> Result<Measured, Error> {
    let mut evaluator = Evaluator::new(model, None)?;
    let (batch, control) = (workload.rows(model), Control::new());
    measure(model.config(), workload, Passes::FORWARD, now, || {
        Ok(evaluator.loss(&batch, &control)?.mean().unwrap_or(f64::NAN))
    })
}

fn measure(
    config: &Config,
    workload: &Workload<'_>,
    passes: Passes,
    now: impl Fn() -> Duration,
    mut step: impl FnMut() -> Result<f64, Error>,
) -> Result<Measured, Error> {
    step()?;
    let (mut times, mut loss) = (Vec::new(), f64::NAN);
    for _ in 0..workload.steps.max(1) {
        let start = now();
        loss = step()?;
        times.push(now().saturating_sub(start));
    }
    let step = median(times);
    let per_second = |count: f64| count / step.as_secs_f64();
    let flops = Flops::of(config, workload).total(passes);
    Ok(Measured {
        tokens_per_second: per_second((workload.batch * workload.sequence) as f64),
        step,
        loss,
        flops_per_second: per_second(flops),
        peak_bytes: peak_bytes(),
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

impl Workload<'_> {
    /// A fresh adapter of this shape.
    ///
    /// # Errors
    /// It does not fit the model.
    pub fn adapter(&self, model: &Model) -> Result<Adapter, adapter::Error> {
        let ranks = RankTable::uniform(self.targets, model.config().layers as u16, self.rank);
        Adapter::initialize(&model.weights(), &ranks, 2.0, 0)
    }

    /// So many batches of different tokens.
    #[must_use]
    pub fn batches(&self, model: &Model, count: usize) -> Vec<Batch> {
        (0..count)
            .map(|number| self.rows_from(model, number * self.batch))
            .collect()
    }

    fn rows(&self, model: &Model) -> Batch {
        self.rows_from(model, 0)
    }

    fn rows_from(&self, model: &Model, first: usize) -> Batch {
        let vocabulary = model.config().vocabulary as u64;
        let row = |record: usize| {
            // Any fixed tokens do; a linear congruence spreads them over the vocabulary.
            let token = |i: usize| {
                ((i as u64 + 1).wrapping_mul(6_364_136_223_846_793_005) >> 33) % vocabulary
            };
            let tokens = (0..self.sequence)
                .map(|i| token(record * self.sequence + i) as u32)
                .collect();
            let labelled = (0..self.sequence)
                .map(|i| i + self.labelled >= self.sequence)
                .collect();
            Row {
                tokens,
                labelled,
                class: None,
                record,
            }
        };
        Batch {
            rows: (first..first + self.batch).map(row).collect(),
        }
    }
}

/// The kernel's high-water mark of this process's resident memory: getrusage's `ru_maxrss`, without
/// what the program before an `exec` may have left there.
fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

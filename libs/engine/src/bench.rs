//! Measured speed and memory of training and of inference alone.
//!
//! The clock is the caller's: the engine has none.

use std::fs;
use std::time::Duration;

use domain::adapter::{Projection, RankTable};

use crate::adapter::{self, Adapter};
use crate::compute;
use crate::control::Control;
use crate::data::{Batch, Row};
use crate::evaluate::Evaluator;
use crate::model::Model;
use crate::train::{self, Options, Trainer};

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
    /// How to train.
    pub options: Options,
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

/// Measures training steps. `now` is a monotonic clock.
///
/// # Errors
/// The workload does not fit the model.
pub fn train_step(
    model: &Model,
    workload: &Workload<'_>,
    now: impl Fn() -> Duration,
) -> Result<Measured, Error> {
    let ranks = RankTable::uniform(
        workload.targets,
        model.config().layers as u16,
        workload.rank,
    );
    let adapter = Adapter::initialize(&model.weights(), &ranks, 2.0, 0)?;
    let mut trainer = Trainer::new(model, &adapter, workload.options)?;
    let (batch, control) = (workload.rows(model), Control::new());
    measure(workload, now, || {
        Ok(trainer.step(&batch, 1e-4, &control)?.loss)
    })
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
    measure(workload, now, || {
        Ok(evaluator.loss(&batch, &control)?.mean().unwrap_or(f64::NAN))
    })
}

fn measure(
    workload: &Workload<'_>,
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
    times.sort_unstable();
    let step = times.get(times.len() / 2).copied().unwrap_or_default();
    let tokens_per_second = (workload.batch * workload.sequence) as f64 / step.as_secs_f64();
    Ok(Measured {
        tokens_per_second,
        step,
        loss,
        peak_bytes: peak_bytes(),
    })
}

impl Workload<'_> {
    fn rows(&self, model: &Model) -> Batch {
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
                record,
            }
        };
        Batch {
            rows: (0..self.batch).map(row).collect(),
        }
    }
}

/// The kernel's high-water mark of this process's resident memory.
fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

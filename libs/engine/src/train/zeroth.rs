//! Zeroth-order training: forward passes and no backward.
//!
//! `g = (F(θ+μz) − F(θ−μz)) / 2μ` along each of P directions, then `θ ← θ − η/P·Σ g·z`, with `z` standard
//! normal or signs (MeZO, arXiv 2305.17333; FedMeZO, arXiv 2402.05926).
//!
//! Promises: the adapter is not touched before all losses of a step are known: a block's moved factors are
//! formed in a buffer the size of that block's, just before the block is computed. So it needs no
//! restoring, and a step that fails or is cancelled leaves it as it was, bit for bit. Nothing else
//! of the adapter's size is held. What a step did to the adapter follows from its scalars, in 32 bits, alone:
//! [`super::Replay`] does the same again.
//!
//! Does not: adapt the rate, or choose μ.

use domain::adapter::WeightName;
use domain::zeroth::{Scalars, Steps};

use super::Error;
use super::replay::{Directions, Factor, factor, tensor};
use crate::adapter::{self, Adapter};
use crate::compute::{self, Changes, Packed, Workspace};
use crate::control::Control;
use crate::data::Batch;
use crate::model::Model;
use crate::normal::Normals;
use crate::ops::lora_linear::Factors;

/// What two passes tell of the loss along a direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slope {
    /// `g = (F(θ+μz) − F(θ−μz)) / 2μ`.
    pub along: f64,
    /// Mean of the two losses, in nats.
    pub loss: f64,
    /// Tokens that went through the model, once.
    pub tokens: usize,
    /// Tokens that were to be predicted.
    pub labelled_tokens: usize,
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Walked {
    /// Mean of its losses, in nats; absent if one was not finite, and the step moved nothing.
    pub loss: Option<f64>,
    /// Tokens that went through the model, counted once.
    pub tokens: usize,
    /// Tokens that were to be predicted.
    pub labelled_tokens: usize,
    /// Root of the mean square of its scalars; 0 if it moved nothing.
    pub slope: f64,
}

/// Trains one adapter on a model by differences of its loss.
#[derive(Debug)]
pub struct ZerothTrainer<'m> {
    model: &'m Model,
    how: Steps,
    changes: Changes,
    /// One block's moved factors.
    moved: Changes,
    workspace: Workspace,
    /// The number of the next step.
    next: u64,
    scalars: Vec<f32>,
    between: fn(),
}

impl<'m> ZerothTrainer<'m> {
    /// A trainer whose first step has this number.
    ///
    /// # Errors
    /// The adapter is empty or does not fit the model.
    pub fn new(
        model: &'m Model,
        adapter: &Adapter,
        how: Steps,
        first_step: u64,
    ) -> Result<Self, Error> {
        let changes = Changes::new(model, adapter)?;
        if changes.lowest().is_none() {
            return Err(Error::NothingToTrain);
        }
        let moved = Changes {
            scale: changes.scale,
            blocks: vec![Default::default()],
        };
        Ok(Self {
            model,
            how,
            changes,
            moved,
            workspace: Workspace::default(),
            next: first_step,
            scalars: Vec::new(),
            between: || {},
        })
    }

    /// Calls `between` after the first of the two passes along each direction, for tests that end the process
    /// there.
    #[must_use]
    pub fn with_between(self, between: fn()) -> Self {
        Self { between, ..self }
    }

    /// The scalars of all steps so far, as they were walked by.
    #[must_use]
    pub fn scalars(&self) -> Scalars {
        Scalars::new(self.scalars.clone())
    }

    /// One step on the mean loss of the batch's labelled tokens. One whose loss is not finite along some
    /// direction moves nothing, and its scalars are marked so.
    ///
    /// # Errors
    /// The control was cancelled, the batch does not fit the model, or nothing is labelled. The adapter is
    /// then as before, and the step was not done.
    pub fn step(&mut self, batch: &Batch, control: &Control) -> Result<Walked, Error> {
        let packed = self.packed(batch)?;
        let (mut found, mut losses) = (Vec::new(), 0.0);
        for number in 0..self.how.perturbations {
            let slope = self.along(&packed, number, control)?;
            let along = self.clipped(slope.along);
            losses += slope.loss;
            if !(slope.loss.is_finite() && along.is_finite()) {
                break;
            }
            found.push(along);
        }
        let perturbations = usize::from(self.how.perturbations);
        let moves = found.len() == perturbations;
        if moves {
            for (number, scalar) in (0..).zip(&found) {
                self.update(self.direction(number), factor(&self.how, *scalar));
            }
        } else {
            found = vec![Scalars::SKIPPED; perturbations];
        }
        self.next += 1;
        let mean = |sum: f64| sum / perturbations.max(1) as f64;
        let squares = found.iter().map(|scalar| f64::from(*scalar).powi(2));
        let walked = Walked {
            loss: moves.then(|| mean(losses)),
            tokens: packed.tokens.len(),
            labelled_tokens: packed.targets.len(),
            slope: if moves {
                mean(squares.sum()).sqrt()
            } else {
                0.0
            },
        };
        self.scalars.extend(found);
        Ok(walked)
    }

    /// What a step would find now: the slope of the batch's mean loss along the step's first `z`. Moves
    /// nothing.
    ///
    /// # Errors
    /// As [`ZerothTrainer::step`], and if a loss is not finite.
    pub fn slope(&mut self, batch: &Batch, control: &Control) -> Result<Slope, Error> {
        let packed = self.packed(batch)?;
        let slope = self.along(&packed, 0, control)?;
        if slope.loss.is_finite() {
            return Ok(slope);
        }
        Err(Error::NotFinite {
            what: "loss",
            step: self.next,
            records: batch.rows.iter().map(|row| row.record).collect(),
        })
    }

    /// The adapter as trained so far.
    ///
    /// # Errors
    /// None that the trainer's own factors could cause.
    pub fn adapter(&self) -> Result<Adapter, adapter::Error> {
        self.changes.to_adapter(self.model)
    }

    /// Bytes that the workspace holds between steps.
    #[cfg(test)]
    pub(crate) fn workspace_bytes(&self) -> usize {
        self.workspace.capacity()
    }

    fn packed(&self, batch: &Batch) -> Result<Packed, Error> {
        let packed = Packed::new(batch, self.model.config())?;
        if packed.targets.is_empty() {
            return Err(Error::NothingLabelled);
        }
        Ok(packed)
    }

    /// `z` number `number` of the next step.
    fn direction(&self, number: u32) -> Normals {
        Directions::of(&self.how).stream(self.next, number)
    }

    /// As it travels: in 32 bits, within the job's limit.
    fn clipped(&self, along: f64) -> f32 {
        let (along, clip) = (along as f32, self.how.clip as f32);
        if clip > 0.0 && !along.is_nan() {
            along.clamp(-clip, clip)
        } else {
            along
        }
    }

    /// The slope along `z` number `number`, finite or not.
    fn along(&mut self, packed: &Packed, number: u16, control: &Control) -> Result<Slope, Error> {
        let (direction, shift) = (self.direction(number.into()), self.how.perturbation as f32);
        let plus = self.loss(packed, direction, shift, control)?;
        (self.between)();
        let minus = self.loss(packed, direction, -shift, control)?;
        Ok(Slope {
            along: (plus - minus) / (2.0 * f64::from(shift)),
            loss: f64::midpoint(plus, minus),
            tokens: packed.tokens.len(),
            labelled_tokens: packed.targets.len(),
        })
    }

    /// The mean loss at `θ + shift·z`.
    fn loss(
        &mut self,
        packed: &Packed,
        direction: Normals,
        shift: f32,
        control: &Control,
    ) -> Result<f64, Error> {
        let Self {
            model,
            changes,
            moved,
            workspace,
            ..
        } = self;
        let mut prepare = |block: usize, moved: &mut Changes| {
            let pair = changes.blocks.get(block).zip(moved.blocks.first_mut());
            let Some((own, moved)) = pair else { return };
            for (own, moved) in own.iter().zip(moved.iter_mut()) {
                copy(moved, own);
            }
            add(model, block, moved, direction, shift);
        };
        let positions: Vec<usize> = packed.targets.iter().map(|t| t.position).collect();
        let tokens: Vec<u32> = packed.targets.iter().map(|t| t.token).collect();
        let wanted: Vec<&[u32]> = tokens.chunks(1).collect();
        let scores = model.threads().run(|| {
            let hidden =
                compute::forward_each(model, packed, moved, &mut prepare, control, workspace)?;
            let scores =
                compute::log_probabilities(model, &hidden, &positions, &wanted, workspace)?;
            workspace.give(hidden);
            Ok::<_, compute::Error>(scores)
        })?;
        let total: f64 = scores
            .iter()
            .flatten()
            .map(|score| -f64::from(*score))
            .sum();
        Ok(total / tokens.len() as f64)
    }

    /// `θ ← θ + factor·z`.
    fn update(&mut self, direction: Normals, factor: f32) {
        let Self { model, changes, .. } = self;
        model.threads().run(|| {
            for (block, own) in changes.blocks.iter_mut().enumerate() {
                add(model, block, own, direction, factor);
            }
        });
    }
}

/// Copies `from` over `into`, whose buffers are used again.
fn copy(into: &mut Factors, from: &Factors) {
    into.a.clone_from(&from.a);
    into.parts.truncate(from.parts.len());
    into.parts.resize_with(from.parts.len(), Default::default);
    for (into, from) in into.parts.iter_mut().zip(&from.parts) {
        (into.column, into.outputs) = (from.column, from.outputs);
        (into.first, into.rank) = (from.first, from.rank);
        into.b.clone_from(&from.b);
    }
}

/// Adds `factor·z` to the factors of one block.
fn add(model: &Model, block: usize, stacks: &mut [Factors; 4], direction: Normals, factor: f32) {
    let Some(frozen) = model.blocks().get(block) else {
        return;
    };
    for (stack, own) in frozen.stacks.iter().zip(stacks) {
        let Factors { a, parts } = own;
        let mut rest = a.as_mut_slice();
        let ranks: usize = parts.iter().map(|part| part.rank).sum();
        let inputs = rest.len() / ranks.max(1);
        for part in parts {
            let place = stack.parts.iter().find(|place| place.first == part.column);
            let Some(place) = place else { continue };
            // Invariant: a model has fewer than 2^16 blocks.
            let name = WeightName::new(block as u16, place.projection);
            let (rows, others) = rest.split_at_mut(part.rank * inputs);
            rest = others;
            direction.add(tensor(name, Factor::A), rows, factor);
            direction.add(tensor(name, Factor::B), &mut part.b, factor);
        }
    }
}

#[cfg(test)]
mod tests;

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

use std::ops::Range;

use domain::zeroth::{Scalars, Steps};

use super::Error;
use super::emphasis::Emphasis;
use super::replay::{Directions, factor};
use crate::adapter::{self, Adapter};
use crate::compute::{self, Changes, Packed, Workspace};
use crate::control::Control;
use crate::data::Batch;
use crate::model::Model;
use crate::normal::Normals;
use moved::{Scales, add, copy, scales};

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
    /// Directions that were looked along: two passes each.
    pub directions: usize,
}

/// Trains one adapter on a model by differences of its loss.
#[derive(Debug)]
pub struct ZerothTrainer<'m> {
    model: &'m Model,
    how: Steps,
    changes: Changes,
    /// One block's moved factors, of each pass that is computed at once.
    moved: Changes,
    /// What the numbers of directions are multiplied by.
    scales: Scales,
    /// Passes that are computed at once, at most.
    abreast: usize,
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
        if model.encoder().is_some() {
            let what = "train without gradients";
            return Err(compute::Error::Encoder { what }.into());
        }
        let changes = Changes::new(model, adapter)?;
        if changes.lowest().is_none() {
            return Err(Error::NothingToTrain);
        }
        let moved = Changes {
            scale: changes.scale,
            blocks: vec![Default::default()],
            head: None,
        };
        Ok(Self {
            model,
            how,
            changes,
            moved,
            scales: Scales::new(),
            abreast: 1,
            workspace: Workspace::default(),
            next: first_step,
            scalars: Vec::new(),
            between: || {},
        })
    }

    /// Multiplies the numbers of all directions by these, which are kept: as many as the adapter has, at most.
    #[must_use]
    pub fn with_emphasis(mut self, emphasis: &Emphasis) -> Self {
        let Self { model, changes, .. } = &mut self;
        let made = model.threads().run(|| scales(model, changes, emphasis));
        let scales = made;
        Self { scales, ..self }
    }

    /// Computes up to so many passes of a step as one: the products with frozen weights take the rows of all of
    /// them, and buffers are as many times as large.
    #[must_use]
    pub fn with_abreast(self, passes: u16) -> Self {
        let abreast = usize::from(passes);
        Self { abreast, ..self }
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

    /// Goes on from where a trainer stood that had made `steps` steps from the same adapter, and found these scalars. If they
    /// are not of so many steps nothing is done, and the answer is `false`.
    pub fn resume(&mut self, scalars: &Scalars, steps: usize) -> bool {
        let each = usize::from(self.how.perturbations).max(1);
        let found = scalars.values();
        if !self.scalars.is_empty() || found.len() != each * steps {
            return false;
        }
        for step in scalars.taken(self.how.perturbations) {
            for (number, scalar) in (0..).zip(step) {
                if scalar.is_finite() {
                    let factor = factor(&self.how, step.len(), *scalar);
                    self.update(self.direction(number), factor);
                }
            }
            self.next += 1;
        }
        self.scalars.extend(found);
        true
    }

    /// One step on the mean loss of the batch's labelled tokens. One whose loss is not finite along some
    /// direction moves nothing, and its scalars are marked so.
    ///
    /// # Errors
    /// The control was cancelled, the batch does not fit the model, or nothing is labelled. The adapter is
    /// then as before, and the step was not done.
    pub fn step(&mut self, batch: &Batch, control: &Control) -> Result<Walked, Error> {
        let packed = self.packed(batch)?;
        let count = usize::from(self.how.perturbations);
        let at_once = (self.abreast / 2).max(1);
        let (mut found, mut losses, mut moves) = (Vec::new(), 0.0, true);
        while moves && found.len() < count && !self.how.suffices(&found) {
            let next = found.len()..count.min(found.len() + at_once);
            for slope in self.along(&packed, next, control)? {
                let along = self.clipped(slope.along);
                losses += slope.loss;
                moves &= slope.loss.is_finite() && along.is_finite();
                found.push(along);
            }
        }
        let directions = found.len();
        let squares = found.iter().map(|scalar| f64::from(*scalar).powi(2));
        let slope = (squares.sum::<f64>() / directions.max(1) as f64).sqrt();
        if moves {
            for (number, scalar) in (0..).zip(&found) {
                let factor = factor(&self.how, directions, *scalar);
                self.update(self.direction(number), factor);
            }
            found.resize(count, Scalars::UNUSED);
        } else {
            found = vec![Scalars::SKIPPED; count];
        }
        self.next += 1;
        self.scalars.extend(found);
        Ok(Walked {
            loss: moves.then(|| losses / directions.max(1) as f64),
            tokens: packed.tokens.len(),
            labelled_tokens: packed.targets.len(),
            slope: if moves { slope } else { 0.0 },
            directions,
        })
    }

    /// What a step would find now: the slope of the batch's mean loss along the step's first `z`. Moves
    /// nothing.
    ///
    /// # Errors
    /// As [`ZerothTrainer::step`], and if a loss is not finite.
    pub fn slope(&mut self, batch: &Batch, control: &Control) -> Result<Slope, Error> {
        let packed = self.packed(batch)?;
        let slope = self.along(&packed, 0..1, control)?.pop();
        if let Some(slope) = slope.filter(|slope| slope.loss.is_finite()) {
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

    /// The slopes along these of the next step's directions, finite or not.
    fn along(
        &mut self,
        packed: &Packed,
        numbers: Range<usize>,
        control: &Control,
    ) -> Result<Vec<Slope>, Error> {
        let shift = self.how.perturbation as f32;
        // Invariant: a step has fewer than 2^16 directions.
        let directions = numbers.map(|number| self.direction(number as u32));
        let moves: Vec<(Normals, f32)> = directions
            .flat_map(|direction| [(direction, shift), (direction, -shift)])
            .collect();
        let mut losses = Vec::with_capacity(moves.len());
        let at_once = if self.abreast > 1 { moves.len() } else { 1 };
        for (number, moves) in moves.chunks(at_once.max(1)).enumerate() {
            if number % 2 == 1 {
                (self.between)();
            }
            losses.extend(self.losses(packed, moves, control)?);
        }
        if at_once > 1 {
            (self.between)();
        }
        let (pairs, _) = losses.as_chunks::<2>();
        let slope = |[plus, minus]: &[f64; 2]| Slope {
            along: (plus - minus) / (2.0 * f64::from(shift)),
            loss: f64::midpoint(*plus, *minus),
            tokens: packed.tokens.len(),
            labelled_tokens: packed.targets.len(),
        };
        Ok(pairs.iter().map(slope).collect())
    }

    /// The mean loss at `θ + shift·z` of each of these, all in one pass.
    fn losses(
        &mut self,
        packed: &Packed,
        moves: &[(Normals, f32)],
        control: &Control,
    ) -> Result<Vec<f64>, Error> {
        let Self {
            model,
            changes,
            moved,
            scales,
            workspace,
            ..
        } = self;
        moved.blocks.resize_with(moves.len(), Default::default);
        let mut prepare = |block: usize, moved: &mut Changes| {
            let Some(own) = changes.blocks.get(block) else {
                return;
            };
            for (moved, by) in moved.blocks.iter_mut().zip(moves) {
                for (own, moved) in own.iter().zip(moved.iter_mut()) {
                    copy(moved, own);
                }
                add(model, (block, scales), moved, *by);
            }
        };
        let all = packed.repeated(moves.len());
        let positions: Vec<usize> = all.targets.iter().map(|t| t.position).collect();
        let tokens: Vec<u32> = all.targets.iter().map(|t| t.token).collect();
        let wanted: Vec<&[u32]> = tokens.chunks(1).collect();
        let scores = model.threads().run(|| {
            let hidden =
                compute::forward_each(model, &all, moved, &mut prepare, control, workspace)?;
            let scores =
                compute::log_probabilities(model, &hidden, &positions, &wanted, workspace)?;
            workspace.give(hidden);
            Ok::<_, compute::Error>(scores)
        })?;
        let targets = packed.targets.len();
        let mean = |scores: &[Vec<f32>]| {
            let scores = scores.iter().flatten();
            let total: f64 = scores.map(|score| -f64::from(*score)).sum();
            total / targets as f64
        };
        // Invariant: a batch without targets was refused.
        Ok(scores.chunks(targets.max(1)).map(mean).collect())
    }

    /// `θ ← θ + factor·z`.
    fn update(&mut self, direction: Normals, factor: f32) {
        let Self {
            model,
            changes,
            scales,
            ..
        } = self;
        model.threads().run(|| {
            for (block, own) in changes.blocks.iter_mut().enumerate() {
                add(model, (block, scales), own, (direction, factor));
            }
        });
    }
}

mod moved;

#[cfg(test)]
mod tests;

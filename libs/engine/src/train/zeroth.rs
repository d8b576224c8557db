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
//! [`WholeTrainer`] promises the same of a model whose own parameters move.
//!
//! Does not: adapt the rate, or choose μ.

use domain::zeroth::{Scalars, Steps};

use super::Error;
use super::emphasis::Emphasis;
use crate::adapter::{self, Adapter};
use crate::compute::{self, Changes, Workspace};
use crate::control::Control;
use crate::data::Batch;
use crate::model::Model;
use adapted::Adapted;
use course::Course;
use moved::{Scales, scales};
pub use whole::WholeTrainer;

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
    point: Adapted<'m>,
    course: Course,
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
        let point = Adapted {
            model,
            changes,
            moved,
            scales: Scales::new(),
            workspace: Workspace::default(),
        };
        let course = Course::new(how, first_step);
        Ok(Self { point, course })
    }

    /// Multiplies the numbers of all directions by these, which are kept: as many as the adapter has, at most. Where they
    /// scale, making them may take as long as many steps: the control counts each tensor as it counts a block.
    ///
    /// # Errors
    /// The control was cancelled.
    pub fn with_emphasis(mut self, emphasis: &Emphasis, control: &Control) -> Result<Self, Error> {
        let Adapted { model, changes, .. } = &mut self.point;
        let made = model
            .threads()
            .run(|| scales(model, changes, emphasis, control));
        self.point.scales = made.map_err(compute::Error::from)?;
        Ok(self)
    }

    /// Computes up to so many passes of a step as one: the products with frozen weights take the rows of all of
    /// them, and buffers are as many times as large.
    #[must_use]
    pub fn with_abreast(mut self, passes: u16) -> Self {
        self.course.abreast = usize::from(passes);
        self
    }

    /// Calls `between` after the first of the two passes along each direction, for tests that end the process
    /// there.
    #[must_use]
    pub fn with_between(mut self, between: fn()) -> Self {
        self.course.between = between;
        self
    }

    /// The scalars of all steps so far, as they were walked by.
    #[must_use]
    pub fn scalars(&self) -> Scalars {
        self.course.scalars()
    }

    /// Goes on from where a trainer stood that had made `steps` steps from the same adapter, and found these scalars. If they
    /// are not of so many steps nothing is done, and the answer is `false`.
    pub fn resume(&mut self, scalars: &Scalars, steps: usize) -> bool {
        self.course.resume(&mut self.point, scalars, steps)
    }

    /// One step on the mean loss of the batch's labelled tokens. One whose loss is not finite along some
    /// direction moves nothing, and its scalars are marked so.
    ///
    /// # Errors
    /// The control was cancelled, the batch does not fit the model, or nothing is labelled. The adapter is
    /// then as before, and the step was not done.
    pub fn step(&mut self, batch: &Batch, control: &Control) -> Result<Walked, Error> {
        self.course.step(&mut self.point, batch, control)
    }

    /// What a step would find now: the slope of the batch's mean loss along the step's first `z`. Moves
    /// nothing.
    ///
    /// # Errors
    /// As [`ZerothTrainer::step`], and if a loss is not finite.
    pub fn slope(&mut self, batch: &Batch, control: &Control) -> Result<Slope, Error> {
        self.course.slope(&mut self.point, batch, control)
    }

    /// The adapter as trained so far.
    ///
    /// # Errors
    /// None that the trainer's own factors could cause.
    pub fn adapter(&self) -> Result<Adapter, adapter::Error> {
        self.point.changes.to_adapter(self.point.model)
    }

    /// Bytes that the workspace holds between steps.
    #[cfg(test)]
    pub(crate) fn workspace_bytes(&self) -> usize {
        self.point.workspace.capacity()
    }
}

mod adapted;
mod course;
mod moved;
mod whole;

#[cfg(test)]
mod tests;

//! A model all of whose parameters move: embedding, output layer, weights, biases and normalizations.
//!
//! Promises: θ lies in memory once. Its moved parts are formed beside it, one block and a few rows of the tables at a time
//! (`memory::whole`), so nothing is restored: a step that fails or is cancelled leaves the model as it was, bit for
//! bit. What the steps did follows from the model's files and their scalars alone ([`WholeTrainer::resume`]), on any machine
//! and any number of threads.
//!
//! Does not: train an encoder, or a base that is not held and computed with in `f32`, where a move would be rounded
//! away.

use domain::artifact::Digest;
use domain::zeroth::{Scalars, Steps};
use sha2::{Digest as _, Sha256};

use super::course::{Course, Point};
use super::{Error, Walked};
use crate::compute::{self, Packed, Room, Workspace};
use crate::control::Control;
use crate::data::Batch;
use crate::kernel::Compute;
use crate::model::Model;
use crate::normal::{Moving, Normals};

/// Trains a model on differences of its loss along directions of all its parameters.
#[derive(Debug)]
pub struct WholeTrainer {
    point: Whole,
    course: Course,
}

/// The model, and what holds its moved parts.
struct Whole {
    model: Model,
    room: Room,
    workspace: Workspace,
}

impl std::fmt::Debug for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.model.fmt(f)
    }
}

impl WholeTrainer {
    /// A trainer whose first step has this number, of a model of `limit` parameters at most.
    ///
    /// # Errors
    /// The model is an encoder, larger, or not held and computed with in `f32`.
    pub fn new(model: Model, how: Steps, first_step: u64, limit: u64) -> Result<Self, Error> {
        if model.encoder().is_some() {
            let what = "train without gradients";
            return Err(compute::Error::Encoder { what }.into());
        }
        let parameters = Model::parameters_of(model.config());
        if parameters > limit {
            return Err(Error::TooManyParameters { parameters, limit });
        }
        if !model.is_movable() || model.kernel().compute() != Compute::F32 {
            return Err(Error::NotF32);
        }
        let point = Whole {
            model,
            room: Room::default(),
            workspace: Workspace::default(),
        };
        let course = Course::new(how, first_step);
        Ok(Self { point, course })
    }

    /// The model as trained so far.
    #[must_use]
    pub const fn model(&self) -> &Model {
        &self.point.model
    }

    /// The trained model.
    #[must_use]
    pub fn into_model(self) -> Model {
        self.point.model
    }

    /// The scalars of all steps so far, as they were walked by.
    #[must_use]
    pub fn scalars(&self) -> Scalars {
        self.course.scalars()
    }

    /// Does the steps again that another trainer made from the same model and found these scalars by; costs as many random
    /// numbers for each parameter as there are scalars, and no pass. If they are not of `steps` steps nothing is
    /// done, and the answer is `false`.
    pub fn resume(&mut self, scalars: &Scalars, steps: usize) -> bool {
        self.course.resume(&mut self.point, scalars, steps)
    }

    /// As [`WholeTrainer::resume`]; told after each step how many are done, for a large model takes its time over them.
    pub fn resume_telling(
        &mut self,
        scalars: &Scalars,
        steps: usize,
        told: impl FnMut(usize),
    ) -> bool {
        let Self { point, course } = self;
        course.resume_telling(point, scalars, steps, told)
    }

    /// One step on the mean loss of the batch's labelled tokens. One whose loss is not finite along some
    /// direction moves nothing, and its scalars are marked so.
    ///
    /// # Errors
    /// The control was cancelled, the batch does not fit the model, or nothing is labelled. The model is
    /// then as before, and the step was not done.
    pub fn step(&mut self, batch: &Batch, control: &Control) -> Result<Walked, Error> {
        self.course.step(&mut self.point, batch, control)
    }

    /// SHA-256 of all parameters, each by its number and its values, little-endian, in ascending order of the numbers.
    #[must_use]
    pub fn digest(&mut self) -> Digest {
        let mut hash = Sha256::new();
        self.point.model.for_each_parameter(|number, values| {
            hash.update(number.to_le_bytes());
            for value in values.iter() {
                hash.update(value.to_le_bytes());
            }
        });
        Digest::from_bytes(&hash.finalize().into())
    }

    /// Bytes of the moved parts.
    #[cfg(test)]
    pub(crate) fn room_bytes(&self) -> usize {
        self.point.room.bytes()
    }

    #[cfg(test)]
    pub(super) fn with_between(mut self, between: fn()) -> Self {
        self.course.between = between;
        self
    }
}

impl Point for Whole {
    fn model(&self) -> &Model {
        &self.model
    }

    fn losses(
        &mut self,
        packed: &Packed,
        moves: &[(Normals, f32)],
        control: &Control,
    ) -> Result<Vec<f64>, Error> {
        let Self {
            model,
            room,
            workspace,
        } = self;
        let mut losses = Vec::with_capacity(moves.len());
        for by in moves {
            let scores = model
                .threads()
                .run(|| compute::scores_along(model, *by, packed, room, control, workspace))?;
            let total: f64 = scores.iter().map(|score| -f64::from(*score)).sum();
            losses.push(total / packed.targets.len() as f64);
        }
        Ok(losses)
    }

    fn walk(&mut self, moves: &[(Normals, f32)]) {
        let (threads, all) = self.model.parameters();
        threads.run(|| Normals::move_all(moves, all.into_iter().map(Moving::from)));
    }
}

#[cfg(test)]
mod tests;

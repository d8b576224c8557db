//! The steps of a walk by differences of the loss, whatever it is that they move.

use std::ops::Range;

use domain::zeroth::{Scalars, Steps};

use super::{Error, Slope, Walked};
use crate::compute::Packed;
use crate::control::Control;
use crate::data::Batch;
use crate::model::Model;
use crate::normal::Normals;
use crate::train::replay::{self, Directions, factor};

/// What is moved: an adapter beside a model, or a model.
pub(super) trait Point {
    /// The model that losses are computed with.
    fn model(&self) -> &Model;

    /// The mean loss at `θ + shift·z` of each of these, all in one pass where there are several. Moves nothing.
    fn losses(
        &mut self,
        packed: &Packed,
        moves: &[(Normals, f32)],
        control: &Control,
    ) -> Result<Vec<f64>, Error>;

    /// `θ ← θ + factor·z`, one after the other.
    fn walk(&mut self, moves: &[(Normals, f32)]);
}

/// How steps are made, and what those before found.
#[derive(Debug)]
pub(super) struct Course {
    how: Steps,
    /// Passes that are computed at once, at most.
    pub(super) abreast: usize,
    /// The number of the next step.
    next: u64,
    scalars: Vec<f32>,
    /// Called between the two passes along a direction.
    pub(super) between: fn(),
}

impl Course {
    /// One whose first step has this number.
    pub(super) fn new(how: Steps, first_step: u64) -> Self {
        Self {
            how,
            abreast: 1,
            next: first_step,
            scalars: Vec::new(),
            between: || {},
        }
    }

    /// The scalars of all steps so far.
    pub(super) fn scalars(&self) -> Scalars {
        Scalars::new(self.scalars.clone())
    }

    /// Goes on from where one stood that had made `steps` steps from the same point and found these. If they are not of
    /// so many nothing is done, and the answer is `false`.
    pub(super) fn resume(
        &mut self,
        point: &mut impl Point,
        scalars: &Scalars,
        steps: usize,
    ) -> bool {
        if !self.begins_with(scalars, steps) {
            return false;
        }
        self.again(point, scalars, steps);
        true
    }

    /// As [`Course::resume`], one step after the other; told after each how many are done.
    pub(super) fn resume_telling(
        &mut self,
        point: &mut impl Point,
        scalars: &Scalars,
        steps: usize,
        mut told: impl FnMut(usize),
    ) -> bool {
        if !self.begins_with(scalars, steps) {
            return false;
        }
        for (number, found) in scalars.values().chunks(self.each()).enumerate() {
            self.again(point, &Scalars::new(found.to_vec()), 1);
            told(number + 1);
        }
        true
    }

    /// Scalars of a step.
    fn each(&self) -> usize {
        usize::from(self.how.perturbations).max(1)
    }

    /// Whether these may be the scalars of the first steps, so many of them.
    fn begins_with(&self, scalars: &Scalars, steps: usize) -> bool {
        self.scalars.is_empty() && scalars.values().len() == self.each() * steps
    }

    /// Does the next steps again, which found these.
    fn again(&mut self, point: &mut impl Point, scalars: &Scalars, steps: usize) {
        point.walk(&replay::streams(&self.how, self.next, scalars));
        self.next += steps as u64;
        self.scalars.extend(scalars.values());
    }

    /// One step on the mean loss of the batch's labelled tokens. One whose loss is not finite along some direction
    /// moves nothing, and its scalars are marked so.
    pub(super) fn step(
        &mut self,
        point: &mut impl Point,
        batch: &Batch,
        control: &Control,
    ) -> Result<Walked, Error> {
        let packed = packed(point, batch)?;
        let count = usize::from(self.how.perturbations);
        let at_once = (self.abreast / 2).max(1);
        let (mut found, mut losses, mut moves) = (Vec::new(), 0.0, true);
        while moves && found.len() < count && !self.how.suffices(&found) {
            let next = found.len()..count.min(found.len() + at_once);
            for slope in self.along(point, &packed, next, control)? {
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
            let moved = (0..).zip(&found).map(|(number, scalar)| {
                let factor = factor(&self.how, directions, *scalar);
                (self.direction(number), factor)
            });
            point.walk(&moved.collect::<Vec<_>>());
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

    /// The slope of the batch's mean loss along the next step's first direction.
    pub(super) fn slope(
        &self,
        point: &mut impl Point,
        batch: &Batch,
        control: &Control,
    ) -> Result<Slope, Error> {
        let packed = packed(point, batch)?;
        let slope = self.along(point, &packed, 0..1, control)?.pop();
        if let Some(slope) = slope.filter(|slope| slope.loss.is_finite()) {
            return Ok(slope);
        }
        Err(Error::NotFinite {
            what: "loss",
            step: self.next,
            records: batch.rows.iter().map(|row| row.record).collect(),
        })
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
        &self,
        point: &mut impl Point,
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
            losses.extend(point.losses(packed, moves, control)?);
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
}

fn packed(point: &impl Point, batch: &Batch) -> Result<Packed, Error> {
    let packed = Packed::new(batch, point.model().config())?;
    if packed.targets.is_empty() {
        return Err(Error::NothingLabelled);
    }
    Ok(packed)
}

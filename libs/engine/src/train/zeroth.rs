//! Zeroth-order training: two forward passes and no backward.
//!
//! `g = (F(θ+μz) − F(θ−μz)) / 2μ`, then `θ ← θ − η·g·z`, with `z` standard normal (MeZO,
//! arXiv 2305.17333; FedMeZO, arXiv 2402.05926).
//!
//! Promises: the adapter is not touched before both losses are known: a block's moved factors are
//! formed in a buffer the size of that block's, just before the block is computed. So it needs no
//! restoring, and a step that fails or is cancelled leaves it as it was, bit for bit. Nothing else
//! of the adapter's size is held.
//!
//! Does not: average several directions, clip `g`, or adapt the rate.

use super::{Error, Step};
use crate::adapter::{self, Adapter};
use crate::compute::{self, Changes, Packed, Workspace};
use crate::control::Control;
use crate::data::Batch;
use crate::model::Model;
use crate::normal::Normals;
use crate::ops::lora_linear::Factors;

/// How to train without gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ZerothOptions {
    /// μ: how far the adapter is moved along `z`.
    pub perturbation: f32,
    /// With the number of the step, the seed of `z`.
    pub seed: u64,
}

impl Default for ZerothOptions {
    /// MeZO's own advice for LoRA, μ = 1e-2.
    fn default() -> Self {
        Self {
            perturbation: 1e-2,
            seed: 0,
        }
    }
}

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

/// Trains one adapter on a model by differences of its loss.
#[derive(Debug)]
pub struct ZerothTrainer<'m> {
    model: &'m Model,
    options: ZerothOptions,
    changes: Changes,
    /// One block's moved factors.
    moved: Changes,
    workspace: Workspace,
    steps: u64,
}

impl<'m> ZerothTrainer<'m> {
    /// A trainer that has done no step.
    ///
    /// # Errors
    /// The adapter is empty or does not fit the model.
    pub fn new(model: &'m Model, adapter: &Adapter, options: ZerothOptions) -> Result<Self, Error> {
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
            options,
            changes,
            moved,
            workspace: Workspace::default(),
            steps: 0,
        })
    }

    /// Steps done so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// One step at `rate` on the mean loss of the batch's labelled tokens. The loss it tells is the
    /// mean of the two; the norm is that of the estimated gradient along `z`, `|g|`.
    ///
    /// # Errors
    /// As [`ZerothTrainer::slope`]. The adapter is then as before.
    pub fn step(&mut self, batch: &Batch, rate: f32, control: &Control) -> Result<Step, Error> {
        let slope = self.slope(batch, control)?;
        let factor = (-f64::from(rate) * slope.along) as f32;
        self.update(self.direction(), factor);
        self.steps += 1;
        Ok(Step {
            loss: slope.loss,
            tokens: slope.tokens,
            labelled_tokens: slope.labelled_tokens,
            gradient_norm: slope.along.abs(),
        })
    }

    /// What a step would find now: the slope of the batch's mean loss along the step's `z`. Moves nothing.
    ///
    /// # Errors
    /// The control was cancelled, the batch does not fit the model, nothing is labelled, or a loss is not
    /// finite.
    pub fn slope(&mut self, batch: &Batch, control: &Control) -> Result<Slope, Error> {
        let packed = Packed::new(batch, self.model.config())?;
        if packed.targets.is_empty() {
            return Err(Error::NothingLabelled);
        }
        let (direction, shift) = (self.direction(), self.options.perturbation);
        let plus = self.loss(&packed, direction, shift, control)?;
        let minus = self.loss(&packed, direction, -shift, control)?;
        if !(plus.is_finite() && minus.is_finite()) {
            return Err(Error::NotFinite {
                what: "loss",
                step: self.steps,
                records: batch.rows.iter().map(|row| row.record).collect(),
            });
        }
        Ok(Slope {
            along: (plus - minus) / (2.0 * f64::from(shift)),
            loss: f64::midpoint(plus, minus),
            tokens: packed.tokens.len(),
            labelled_tokens: packed.targets.len(),
        })
    }

    /// `z` of the next step.
    fn direction(&self) -> Normals {
        Normals::direction(self.options.seed, self.steps, 0)
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
            // The weight's own number: which others are adapted does not change its direction.
            let tensor = 2 * (16 * block as u32 + place.projection as u32);
            let (rows, others) = rest.split_at_mut(part.rank * inputs);
            rest = others;
            direction.add(tensor, rows, factor);
            direction.add(tensor + 1, &mut part.b, factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::Path;

    use super::*;
    use crate::adapter::Factors as WeightFactors;
    use crate::data::Row;
    use crate::evaluate::Evaluator;
    use crate::model::{Base, LoadOptions};
    use crate::ops::check::dot;
    use crate::train::{Options, Trainer};

    fn tiny() -> Model {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/tiny");
        let threads = NonZeroUsize::new(2).unwrap();
        let options = LoadOptions {
            base: Base::F32,
            threads,
            ..LoadOptions::default()
        };
        Model::load(&path, &options).unwrap()
    }

    fn uneven(model: &Model) -> Adapter {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/tiny-uneven");
        Adapter::load(&path, &model.weights()).unwrap()
    }

    /// `adapter + factor·z`, weight by weight by name.
    fn along(adapter: &Adapter, direction: Normals, factor: f32) -> Adapter {
        let moved = adapter.factors().map(|own| {
            let shape = own.shape();
            let tensor = 2 * (16 * u32::from(shape.name.layer()) + shape.name.projection() as u32);
            let (mut a, mut b) = (own.a().to_vec(), own.b().to_vec());
            direction.add(tensor, &mut a, factor);
            direction.add(tensor + 1, &mut b, factor);
            WeightFactors::new(shape, own.rank(), a, b).unwrap()
        });
        Adapter::new(adapter.scale(), moved).unwrap()
    }

    fn rows() -> Batch {
        Batch {
            rows: vec![Row {
                tokens: (0..20).map(|i| (i * 7) % 63).collect(),
                labelled: vec![true; 20],
                record: 0,
            }],
        }
    }

    /// `Σ gradient · z` over the whole adapter.
    fn along_gradient(gradient: &Adapter, direction: Normals) -> f64 {
        let zero = gradient.factors().map(|own| {
            let (a, b) = (vec![0.0; own.a().len()], vec![0.0; own.b().len()]);
            WeightFactors::new(own.shape(), own.rank(), a, b).unwrap()
        });
        let z = along(&Adapter::new(1.0, zero).unwrap(), direction, 1.0);
        let pairs = gradient.factors().zip(z.factors());
        pairs
            .map(|(g, z)| dot(g.a(), z.a()) + dot(g.b(), z.b()))
            .sum()
    }

    /// What is left is of the order of μ², and what f32 rounds off the two losses.
    #[test]
    fn the_slope_is_that_of_the_loss_along_z_in_sign_and_size() {
        let (model, rows, control) = (tiny(), rows(), Control::new());
        let start = uneven(&model);
        let mut first_order = Trainer::new(&model, &start, Options::default()).unwrap();
        let gradient = first_order.gradient_of(&rows).unwrap();
        let mut signs = [0, 0];
        for seed in 0..12 {
            let options = ZerothOptions {
                perturbation: 1e-3,
                seed,
            };
            let mut trainer = ZerothTrainer::new(&model, &start, options).unwrap();
            let got = trainer.slope(&rows, &control).unwrap().along;
            let want = along_gradient(&gradient, Normals::direction(seed, 0, 0));
            assert!(
                (got - want).abs() < 0.02 * want.abs() + 0.002,
                "seed {seed}: {got}, gradient along z {want}"
            );
            signs[usize::from(got > 0.0)] += 1;
            assert_eq!(trainer.adapter().unwrap(), start, "nothing moved");
        }
        assert!(signs.iter().all(|count| *count > 1), "{signs:?}");
    }

    #[test]
    fn a_step_is_the_formula_with_whole_moved_adapters() {
        let (model, rows) = (tiny(), rows());
        let options = ZerothOptions {
            perturbation: 1e-2,
            seed: 5,
        };
        let mut want = uneven(&model);
        let mut trainer = ZerothTrainer::new(&model, &want, options).unwrap();
        for step in 0..3 {
            let direction = Normals::direction(options.seed, step, 0);
            let loss = |factor: f32| {
                let moved = along(&want, direction, factor);
                let mut evaluator = Evaluator::new(&model, Some(&moved)).unwrap();
                let loss = evaluator.loss(&rows, &Control::new()).unwrap();
                loss.mean().unwrap()
            };
            let (plus, minus) = (loss(options.perturbation), loss(-options.perturbation));
            let slope = (plus - minus) / (2.0 * f64::from(options.perturbation));
            let rate = 1e-3f32;
            let got = trainer.step(&rows, rate, &Control::new()).unwrap();
            assert_eq!(got.loss, f64::midpoint(plus, minus));
            assert_eq!(got.gradient_norm, slope.abs());
            want = along(&want, direction, (-f64::from(rate) * slope) as f32);
            assert_eq!(trainer.adapter().unwrap(), want);
        }
    }
}

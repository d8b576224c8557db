//! One step after another on one adapter.

use domain::energy::EnergyTable;

use super::adamw::AdamW;
use super::energies::energies;
use super::{Error, Options};
use crate::adapter::{self, Adapter};
use crate::compute::{self, Changes, Keep, Learn, Packed, Workspace};
use crate::control::Control;
use crate::data::Batch;
use crate::model::Model;

/// Trains one adapter on a model; keeps the optimizer's moments and the buffers between steps.
#[derive(Debug)]
pub struct Trainer<'m> {
    model: &'m Model,
    options: Options,
    changes: Changes,
    gradient: Changes,
    optimizer: AdamW,
    /// What was started from, where training is held to it.
    start: Option<Changes>,
    workspace: Workspace,
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Mean loss of the labelled tokens before the update, in nats.
    pub loss: f64,
    /// Tokens that went through the model.
    pub tokens: usize,
    /// Tokens that were to be predicted.
    pub labelled_tokens: usize,
    /// Euclidean norm of the whole gradient, before clipping.
    pub gradient_norm: f64,
}

impl<'m> Trainer<'m> {
    /// A trainer with fresh moments.
    ///
    /// # Errors
    /// The adapter is empty or does not fit the model.
    pub fn new(model: &'m Model, adapter: &Adapter, options: Options) -> Result<Self, Error> {
        let changes = Changes::new(model, adapter)?;
        if changes.lowest().is_none() {
            return Err(Error::NothingToTrain);
        }
        let (gradient, optimizer) = (changes.zeros_like(), AdamW::new(&changes));
        let start = (options.proximal > 0.0).then(|| changes.clone());
        Ok(Self {
            model,
            options,
            changes,
            gradient,
            optimizer,
            start,
            workspace: Workspace::default(),
        })
    }

    /// Steps done so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// One step of AdamW at `rate` on the mean loss of the batch's labelled tokens.
    ///
    /// # Errors
    /// The control was cancelled, the batch does not fit the model, nothing is labelled, or the
    /// loss is not finite. The adapter and the moments are then as before.
    pub fn step(&mut self, batch: &Batch, rate: f32, control: &Control) -> Result<Step, Error> {
        let step = self.gradient(batch, control)?;
        let clip = f64::from(self.options.clip_norm);
        let factor = if clip > 0.0 && step.gradient_norm > clip {
            clip / (step.gradient_norm + 1e-6)
        } else {
            1.0
        };
        self.optimizer.step(
            &mut self.changes,
            &self.gradient,
            factor as f32,
            rate,
            &self.options,
        );
        Ok(step)
    }

    /// The adapter as trained so far.
    ///
    /// # Errors
    /// None that the trainer's own factors could cause.
    pub fn adapter(&self) -> Result<Adapter, adapter::Error> {
        self.changes.to_adapter(self.model)
    }

    /// How strongly the loss pulled at each weight, as the last steps' gradients saw it; nothing is known
    /// before the first step.
    #[must_use]
    pub fn energies(&self) -> EnergyTable {
        let (first, corrected) = self.optimizer.first_moments(&self.options);
        energies(self.model, &self.changes, first, corrected)
    }

    /// The gradient of the batch's mean loss, in the shape of the adapter.
    #[cfg(test)]
    pub(crate) fn gradient_of(&mut self, batch: &Batch) -> Result<Adapter, Error> {
        self.gradient(batch, &Control::new())?;
        Ok(self.gradient.to_adapter(self.model)?)
    }

    /// Bytes that the workspace holds between steps.
    #[cfg(test)]
    pub(crate) fn workspace_bytes(&self) -> usize {
        self.workspace.capacity()
    }

    /// Leaves the gradient of the batch's mean loss in `self.gradient`.
    fn gradient(&mut self, batch: &Batch, control: &Control) -> Result<Step, Error> {
        let Self {
            model,
            options,
            changes,
            gradient,
            workspace,
            ..
        } = self;
        let packed = Packed::new(batch, model.config())?;
        if packed.targets.is_empty() {
            return Err(Error::NothingLabelled);
        }
        // No gradient reaches the blocks below the lowest adapted one.
        let from = changes.lowest().unwrap_or_default();
        let keep = if options.checkpoint {
            Keep::Inputs { from }
        } else {
            Keep::All { from }
        };
        let learn = (keep, Learn::Factors(gradient));
        let loss = compute::learn(model, Some(changes), &packed, learn, control, workspace)?;
        let step = self.optimizer.steps();
        let not_finite = |what| Error::NotFinite {
            what,
            step,
            records: batch.rows.iter().map(|row| row.record).collect(),
        };
        if !loss.is_finite() {
            return Err(not_finite("loss"));
        }
        self.settle();
        let gradient_norm = norm(&self.gradient);
        if !gradient_norm.is_finite() {
            return Err(not_finite("gradient"));
        }
        Ok(Step {
            loss,
            tokens: packed.tokens.len(),
            labelled_tokens: packed.targets.len(),
            gradient_norm,
        })
    }
}

impl Trainer<'_> {
    /// What the options make of the loss's gradient.
    fn settle(&mut self) {
        if let Some(start) = &self.start {
            let pull = self.options.proximal;
            let slices = self.gradient.slices_mut().zip(self.changes.slices());
            for ((gradient, now), start) in slices.zip(start.slices()) {
                for ((g, now), start) in gradient.iter_mut().zip(now).zip(start) {
                    *g += pull * (now - start);
                }
            }
        }
        if self.options.b_alone {
            self.gradient.firsts_mut().for_each(|a| a.fill(0.0));
        }
    }
}

fn norm(gradient: &Changes) -> f64 {
    let squares = |slice: &[f32]| {
        slice
            .iter()
            .map(|g| f64::from(*g) * f64::from(*g))
            .sum::<f64>()
    };
    gradient.slices().map(squares).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::Path;

    use domain::adapter::Projection;

    use super::*;
    use crate::adapter::Factors;
    use crate::data::Row;
    use crate::model::{Base, LoadOptions};

    fn tiny() -> Model {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/tiny");
        let threads = NonZeroUsize::new(2).unwrap();
        Model::load(
            &path,
            &LoadOptions {
                base: Base::F32,
                threads,
                ..LoadOptions::default()
            },
        )
        .unwrap()
    }

    fn batch() -> Batch {
        let row = |seed: u32, len: usize| Row {
            tokens: (0..len as u32).map(|i| (i * 7 + seed) % 63).collect(),
            labelled: (0..len).map(|i| i % 3 == 1).collect(),
            record: 0,
        };
        Batch {
            rows: vec![row(1, 9), row(5, 2), row(11, 13)],
        }
    }

    /// What both options leave is what one may compute by hand from the plain gradient.
    #[test]
    fn b_alone_moves_no_a_and_a_proximal_term_pulls_back_to_the_start() {
        let model = tiny();
        let start = adapter(&model, 0);
        let control = Control::new();
        let trained = |options: Options| {
            let mut trainer = Trainer::new(&model, &start, options).unwrap();
            for _ in 0..2 {
                trainer.step(&batch(), 0.02, &control).unwrap();
            }
            trainer.adapter().unwrap()
        };
        let decayed = Options {
            weight_decay: 0.1,
            ..Options::default()
        };
        let both = trained(decayed);
        let b_alone = trained(Options {
            b_alone: true,
            ..decayed
        });
        for own in start.factors() {
            let name = own.shape().name;
            let (both, alone) = (both.get(name).unwrap(), b_alone.get(name).unwrap());
            assert_eq!(alone.a(), own.a());
            assert_ne!(both.a(), own.a());
            assert_ne!(alone.b(), own.b());
        }

        let pulled = Options {
            proximal: 3.0,
            ..Options::default()
        };
        let mut trainer = Trainer::new(&model, &start, pulled).unwrap();
        let first = trainer.gradient_of(&batch()).unwrap();
        let plain = Trainer::new(&model, &start, Options::default());
        assert_eq!(plain.unwrap().gradient_of(&batch()).unwrap(), first);
        trainer.step(&batch(), 0.02, &control).unwrap();
        let moved = trainer.adapter().unwrap();
        let with = trainer.gradient_of(&batch()).unwrap();
        let plain = Trainer::new(&model, &moved, Options::default());
        let without = plain.unwrap().gradient_of(&batch()).unwrap();
        let mut pulls = 0;
        for own in start.factors() {
            let name = own.shape().name;
            let of = |adapter: &Adapter| adapter.get(name).unwrap().b().to_vec();
            let values = of(&with).into_iter().zip(of(&without));
            let places = of(&moved).into_iter().zip(own.b().to_vec());
            for ((with, without), (moved, start)) in values.zip(places) {
                let pull = 3.0 * (moved - start);
                assert!((with - without - pull).abs() < 1e-5, "{name}");
                pulls += usize::from(pull.abs() > 1e-3);
            }
        }
        assert!(pulls > 0, "nothing moved, so nothing was pulled back");
    }

    /// A side term is what an adapter of both would be, without being trained.
    #[test]
    fn a_side_term_counts_in_loss_and_gradient_and_is_not_trained() {
        let mut model = tiny();
        let own = adapter(&model, 1);
        let of_all = model.weights().into_iter().map(|shape| {
            let wave = |len: usize| (0..len).map(|i| 0.2 * (7.0 + i as f32).cos()).collect();
            Factors::new(shape, 3, wave(3 * shape.inp), wave(3 * shape.out)).unwrap()
        });
        let side = Adapter::new(0.4, of_all).unwrap();
        let joined = model.weights().into_iter().map(|shape| {
            let parts: Vec<&Factors> = [own.get(shape.name), side.get(shape.name)]
                .into_iter()
                .flatten()
                .collect();
            let rank: u16 = parts.iter().map(|part| part.rank()).sum();
            let a = parts.iter().flat_map(|part| part.a().to_vec()).collect();
            let b = (0..shape.out).flat_map(|row| {
                parts.iter().flat_map(move |part| {
                    let rank = usize::from(part.rank());
                    part.b()[row * rank..][..rank].to_vec()
                })
            });
            Factors::new(shape, rank, a, b.collect()).unwrap()
        });
        let joined = Adapter::new(0.4, joined.collect::<Vec<_>>()).unwrap();
        let control = Control::new();
        let mut trainer = Trainer::new(&model, &joined, Options::default()).unwrap();
        let want = trainer.gradient(&batch(), &control).unwrap().loss;
        let want_gradient = trainer.gradient_of(&batch()).unwrap();
        let plain = Trainer::new(&model, &own, Options::default());
        let without = plain.unwrap().gradient(&batch(), &control).unwrap().loss;

        model.set_side(Some(&side)).unwrap();
        let mut trainer = Trainer::new(&model, &own, Options::default()).unwrap();
        let got = trainer.gradient(&batch(), &control).unwrap().loss;
        assert!((got - want).abs() < 1e-5, "{got} {want}");
        assert!(
            (without - want).abs() > 1e-3,
            "the side term changes nothing"
        );
        let got_gradient = trainer.gradient_of(&batch()).unwrap();
        for part in got_gradient.factors() {
            let want = want_gradient.get(part.shape().name).unwrap();
            for (got, want) in part.a().iter().zip(want.a()) {
                assert!((got - want).abs() < 1e-4, "{got} {want}");
            }
        }
        drop(trainer);
        model.set_side(None).unwrap();
        let plain = Trainer::new(&model, &own, Options::default());
        let gone = plain.unwrap().gradient(&batch(), &control).unwrap().loss;
        assert_eq!(gone, without);
    }

    /// Ranks that differ, a frozen weight in each stack, and nothing on the lowest block if asked.
    fn adapter(model: &Model, lowest: u16) -> Adapter {
        let wave = |len: usize, at: f32| (0..len).map(|i| 0.3 * (at + i as f32).sin()).collect();
        let adapted = model.weights().into_iter().filter(|shape| {
            let frozen = [Projection::K, Projection::Up];
            shape.name.layer() >= lowest && !frozen.contains(&shape.name.projection())
        });
        let factors = adapted
            .zip([1u16, 3, 2].into_iter().cycle())
            .map(|(shape, rank)| {
                let width = usize::from(rank);
                let (a, b) = (wave(width * shape.inp, 0.0), wave(width * shape.out, 1.0));
                Factors::new(shape, rank, a, b).unwrap()
            });
        Adapter::new(0.4, factors).unwrap()
    }

    /// Central differences in f32 are good to about 1 %; a wrong term would be off by far more.
    #[test]
    fn the_gradient_of_the_whole_model_is_the_derivative_of_its_loss() {
        let model = tiny();
        for (lowest, checkpoint) in [(0, false), (1, true)] {
            let adapter = adapter(&model, lowest);
            let options = Options {
                checkpoint,
                ..Options::default()
            };
            let mut trainer = Trainer::new(&model, &adapter, options).unwrap();
            let control = Control::new();
            trainer.gradient(&batch(), &control).unwrap();
            let gradient: Vec<Vec<f32>> = trainer.gradient.slices().map(<[f32]>::to_vec).collect();
            let scale = norm(&trainer.gradient)
                / (gradient.iter().map(Vec::len).sum::<usize>() as f64).sqrt();
            for (index, values) in gradient
                .iter()
                .enumerate()
                .filter(|(_, values)| !values.is_empty())
            {
                for at in [0, values.len() / 2, values.len() - 1] {
                    let mut loss = |by: f32| {
                        let place = |trainer: &mut Trainer<'_>, value: Option<f32>| {
                            let slice = trainer.changes.slices_mut().nth(index).unwrap();
                            let before = slice[at];
                            slice[at] = value.unwrap_or(before + by);
                            before
                        };
                        let before = place(&mut trainer, None);
                        let loss = trainer.gradient(&batch(), &control).unwrap().loss;
                        place(&mut trainer, Some(before));
                        loss
                    };
                    let step = 1e-2;
                    let want = (loss(step) - loss(-step)) / f64::from(2.0 * step);
                    let got = f64::from(values[at]);
                    assert!(
                        (got - want).abs() < 0.02 * scale.max(want.abs()),
                        "slice {index} at {at}: {got}, {want}"
                    );
                }
            }
        }
    }
}

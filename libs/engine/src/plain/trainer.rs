//! One step after another on one adapter, through autograd.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};

use super::forward::{Factors, loss};
use super::model::Frozen;
use super::{Error, Place};
use crate::adapter::{self, Adapter};
use crate::compute::Packed;
use crate::control::Control;
use crate::data::Batch;
use crate::model::{Architecture, Model};
use crate::train::{self, Options, Step};

/// Trains one adapter on a model's copy on a device.
pub struct Trainer {
    frozen: Frozen,
    pub(super) factors: Factors,
    shapes: Adapter,
    optimizer: AdamW,
    options: Options,
    steps: u64,
}

impl Trainer {
    /// A trainer with fresh moments; the model is copied to the device in `f32`.
    /// `options.checkpoint` changes nothing.
    ///
    /// # Errors
    /// The device is not there or too small; the adapter is empty or does not fit the model.
    pub fn new(
        model: &Model,
        adapter: &Adapter,
        options: Options,
        place: Place,
    ) -> Result<Self, Error> {
        let config = model.config();
        let plain = matches!(
            config.architecture,
            Architecture::Llama | Architecture::Mistral
        );
        if !plain || !config.rope_factors.is_empty() {
            return Err(Error::Architecture);
        }
        let (known, device) = (model.weights(), place.open()?);
        for own in adapter.factors() {
            if !known.contains(&own.shape()) {
                let weight = own.shape().name;
                return Err(train::Error::from(crate::compute::Error::Adapter { weight }).into());
            }
        }
        if adapter.factors().next().is_none() {
            return Err(train::Error::NothingToTrain.into());
        }
        let factors = factors(adapter, &device)?;
        let vars = factors
            .vars
            .values()
            .flat_map(|(a, b)| [a.clone(), b.clone()]);
        let settings = ParamsAdamW {
            lr: 0.0,
            beta1: f64::from(options.betas.0),
            beta2: f64::from(options.betas.1),
            eps: f64::from(options.epsilon),
            weight_decay: f64::from(options.weight_decay),
        };
        Ok(Self {
            frozen: Frozen::new(model, &device)?,
            optimizer: AdamW::new(vars.collect(), settings)?,
            factors,
            shapes: adapter.clone(),
            options,
            steps: 0,
        })
    }

    /// One step of AdamW at `rate` on the mean loss of the batch's labelled tokens. The control is
    /// consulted between rows.
    ///
    /// # Errors
    /// As [`train::Trainer::step`], or the device failed.
    pub fn step(&mut self, batch: &Batch, rate: f32, control: &Control) -> Result<Step, Error> {
        let (step, mut gradients) = self.gradient(batch, control)?;
        let clip = f64::from(self.options.clip_norm);
        if clip > 0.0 && step.gradient_norm > clip {
            let factor = clip / (step.gradient_norm + 1e-6);
            for var in self.vars() {
                if let Some(gradient) = gradients.get(var) {
                    let scaled = (gradient * factor)?;
                    gradients.insert(var, scaled);
                }
            }
        }
        self.optimizer.set_learning_rate(f64::from(rate));
        self.optimizer.step(&gradients)?;
        self.steps += 1;
        Ok(step)
    }

    /// The adapter as trained so far.
    ///
    /// # Errors
    /// The device failed.
    pub fn adapter(&self) -> Result<Adapter, Error> {
        let values = |var: &Var| var.flatten_all()?.to_vec1::<f32>();
        let mut trained = Vec::new();
        for own in self.shapes.factors() {
            let Some((a, b)) = self.factors.vars.get(&own.shape().name) else {
                continue;
            };
            let made = adapter::Factors::new(own.shape(), own.rank(), values(a)?, values(b)?);
            trained.push(made.map_err(train::Error::from)?);
        }
        Ok(Adapter::new(self.shapes.scale(), trained).map_err(train::Error::from)?)
    }

    fn vars(&self) -> impl Iterator<Item = &Var> {
        self.factors.vars.values().flat_map(|(a, b)| [a, b])
    }

    /// The gradient of the batch's mean loss, row by row so that one row's trace is held at a time.
    pub(super) fn gradient(
        &self,
        batch: &Batch,
        control: &Control,
    ) -> Result<(Step, GradStore), Error> {
        let packed = Packed::new(batch, &self.frozen.config).map_err(train::Error::from)?;
        if !packed.among.is_empty() {
            return Err(Error::Choices);
        }
        let labelled_tokens = packed.targets.len();
        let (mut total, mut sum) = (0.0, None);
        for (row, start) in packed.bounds.iter().enumerate() {
            let own = packed.targets.iter().filter(|target| target.row == row);
            let targets: Vec<(usize, u32)> = own
                .map(|target| (target.position - start, target.token))
                .collect();
            let Some(tokens) = batch.rows.get(row).filter(|_| !targets.is_empty()) else {
                continue;
            };
            let stopped = |error| train::Error::from(crate::compute::Error::from(error));
            control.block().map_err(stopped)?;
            let loss = loss(&self.frozen, &self.factors, &tokens.tokens, &targets)?;
            total += f64::from(loss.to_scalar::<f32>()?);
            let gradients = (loss / labelled_tokens as f64)?.backward()?;
            sum = Some(match sum {
                None => gradients,
                Some(sum) => self.added(sum, &gradients)?,
            });
        }
        let sum = sum.ok_or(train::Error::NothingLabelled)?;
        let loss = total / labelled_tokens as f64;
        let gradient_norm = self.norm(&sum)?;
        for (what, value) in [("loss", loss), ("gradient", gradient_norm)] {
            if !value.is_finite() {
                return Err(train::Error::NotFinite {
                    what,
                    step: self.steps,
                    records: batch.rows.iter().map(|row| row.record).collect(),
                }
                .into());
            }
        }
        let step = Step {
            loss,
            tokens: packed.tokens.len(),
            labelled_tokens,
            gradient_norm,
        };
        Ok((step, sum))
    }

    fn added(&self, mut sum: GradStore, more: &GradStore) -> Result<GradStore, Error> {
        for var in self.vars() {
            if let Some(gradient) = more.get(var) {
                let both = match sum.get(var) {
                    Some(own) => (own + gradient)?,
                    None => gradient.clone(),
                };
                sum.insert(var, both);
            }
        }
        Ok(sum)
    }

    fn norm(&self, gradients: &GradStore) -> Result<f64, Error> {
        let mut squares = 0.0;
        for gradient in self.vars().filter_map(|var| gradients.get(var)) {
            squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        Ok(squares.sqrt())
    }
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Trainer");
        out.field("steps", &self.steps).finish_non_exhaustive()
    }
}

fn factors(adapter: &Adapter, device: &Device) -> Result<Factors, candle_core::Error> {
    let var = |values: &[f32], shape| Var::from_tensor(&Tensor::from_slice(values, shape, device)?);
    let mut vars = std::collections::BTreeMap::new();
    for own in adapter.factors() {
        let (shape, rank) = (own.shape(), usize::from(own.rank()));
        let (a, b) = (own.a(), own.b());
        let pair = (var(a, (rank, shape.inp))?, var(b, (shape.out, rank))?);
        vars.insert(shape.name, pair);
    }
    Ok(Factors {
        scale: f64::from(adapter.scale()),
        vars,
    })
}

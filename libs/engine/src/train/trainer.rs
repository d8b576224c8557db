//! One step after another on one adapter.

use domain::energy::EnergyTable;

use super::checkpoint::Checkpoint;
use super::energies::energies;
use super::optimizer::Optimizer;
use super::{Error, Options};
use crate::adapter::{self, Adapter};
use crate::compute::{self, Changes, Keep, Learn, Packed, Workspace};
use crate::control::Control;
use crate::data::Batch;
use crate::model::Model;
use crate::ops::dropout::Dropout;

/// Trains one adapter on a model; keeps the optimizer's moments and the buffers between steps.
#[derive(Debug)]
pub struct Trainer<'m> {
    model: &'m Model,
    options: Options,
    changes: Changes,
    gradient: Changes,
    optimizer: Optimizer,
    /// The sum over several batches, once a step had several.
    gathered: Option<Changes>,
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
        let gradient = changes.zeros_like();
        let optimizer = Optimizer::new(&changes, options.rule);
        let start = (options.proximal > 0.0).then(|| changes.clone());
        Ok(Self {
            model,
            options,
            changes,
            gradient,
            optimizer,
            gathered: None,
            start,
            workspace: Workspace::default(),
        })
    }

    /// Steps done so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// One step at `rate` on the mean loss of the batch's labelled tokens.
    ///
    /// # Errors
    /// The control was cancelled, the batch does not fit the model, nothing is labelled, or the
    /// loss is not finite. The adapter and the moments are then as before.
    pub fn step(&mut self, batch: &Batch, rate: f32, control: &Control) -> Result<Step, Error> {
        self.step_over(std::slice::from_ref(batch), rate, control)
    }

    /// One step on the mean loss of the labelled tokens of all batches together, in the memory of one (gradient
    /// accumulation): what a step on one batch of all their rows is, up to the order of sums.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn step_over(
        &mut self,
        batches: &[Batch],
        rate: f32,
        control: &Control,
    ) -> Result<Step, Error> {
        let step = self.gradient_over(batches, control)?;
        let clip = f64::from(self.options.clip_norm);
        let factor = if clip > 0.0 && step.gradient_norm > clip {
            clip / (step.gradient_norm + 1e-6)
        } else {
            1.0
        };
        self.optimizer.step(
            &mut self.changes,
            (&self.gradient, factor as f32),
            rate,
            &self.options,
        );
        Ok(step)
    }

    /// Where the run stands; `asked` is what it was asked for.
    ///
    /// # Errors
    /// None that the trainer's own factors could cause.
    pub fn checkpoint(&self, asked: serde_json::Value) -> Result<Checkpoint, adapter::Error> {
        let moments = self.optimizer.moments().into_iter();
        let moments = moments.map(|moment| moment.to_adapter(self.model));
        Ok(Checkpoint {
            steps: self.steps(),
            adapter: self.adapter()?,
            moments: moments.collect::<Result<_, _>>()?,
            asked,
        })
    }

    /// Goes on from where another trainer of the same model and options stood. What `FedProx` holds to stays
    /// what this trainer started from.
    ///
    /// # Errors
    /// It is of another optimizer, or does not fit the model. The trainer is then as before.
    pub fn resume(&mut self, from: &Checkpoint) -> Result<(), Error> {
        let changes = Changes::new(self.model, &from.adapter)?;
        let moments = from.moments.iter();
        let moments = moments.map(|moment| Changes::new(self.model, moment));
        let moments = moments.collect::<Result<Vec<_>, _>>()?;
        if !self.optimizer.resume(from.steps, moments) {
            return Err(Error::OtherOptimizer);
        }
        self.gradient = changes.zeros_like();
        (self.changes, self.gathered) = (changes, None);
        Ok(())
    }

    /// Gives back the buffers that steps share; the next step makes them anew.
    pub fn release(&mut self) {
        self.workspace = Workspace::default();
        self.gathered = None;
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
        match self.optimizer.first_moments(&self.options) {
            Some((first, corrected)) => energies(self.model, &self.changes, first, corrected),
            None => EnergyTable::default(),
        }
    }

    /// The gradient of the batch's mean loss, in the shape of the adapter.
    #[cfg(test)]
    pub(crate) fn gradient_of(&mut self, batch: &Batch) -> Result<Adapter, Error> {
        self.gradient_over(std::slice::from_ref(batch), &Control::new())?;
        Ok(self.gradient.to_adapter(self.model)?)
    }

    /// Bytes that the workspace holds between steps.
    #[cfg(test)]
    pub(crate) fn workspace_bytes(&self) -> usize {
        self.workspace.capacity()
    }

    #[cfg(test)]
    fn gradient(&mut self, batch: &Batch, control: &Control) -> Result<Step, Error> {
        self.gradient_over(std::slice::from_ref(batch), control)
    }

    /// Leaves the gradient of the batches' mean loss in `self.gradient`.
    fn gradient_over(&mut self, batches: &[Batch], control: &Control) -> Result<Step, Error> {
        let step = self.optimizer.steps();
        let mut packed = Vec::with_capacity(batches.len());
        for (number, batch) in (0u64..).zip(batches) {
            let mut own = Packed::new(batch, self.model.config())?;
            // A batch of a step has a mask of its own; no run has as many steps as would make two of them meet.
            let drawn = step.wrapping_add(number << 40);
            own.dropout = Dropout::new(self.options.dropout, self.options.dropout_seed, drawn);
            packed.push(own);
        }
        let labelled: usize = packed.iter().map(|own| own.targets.len()).sum();
        if labelled == 0 {
            return Err(Error::NothingLabelled);
        }
        let not_finite = |what| Error::NotFinite {
            what,
            step,
            records: batches
                .iter()
                .flat_map(|batch| batch.rows.iter().map(|row| row.record))
                .collect(),
        };
        let (mut loss, several) = (0.0, packed.len() > 1);
        if several {
            let gathered = self
                .gathered
                .get_or_insert_with(|| self.changes.zeros_like());
            gathered.slices_mut().for_each(|slice| slice.fill(0.0));
        }
        for own in packed.iter().filter(|own| !own.targets.is_empty()) {
            let part = own.targets.len() as f64 / labelled as f64;
            let one = self.pass(own, control)?;
            if !one.is_finite() {
                return Err(not_finite("loss"));
            }
            loss += part * one;
            if several && let Some(gathered) = &mut self.gathered {
                add(gathered, &self.gradient, part as f32);
            }
        }
        if several && let Some(gathered) = &mut self.gathered {
            std::mem::swap(gathered, &mut self.gradient);
        }
        self.settle();
        let gradient_norm = norm(&self.gradient);
        if !gradient_norm.is_finite() {
            return Err(not_finite("gradient"));
        }
        Ok(Step {
            loss,
            tokens: packed.iter().map(|own| own.tokens.len()).sum(),
            labelled_tokens: labelled,
            gradient_norm,
        })
    }

    /// One batch there and back: its mean loss, and in `self.gradient` that loss's gradient.
    fn pass(&mut self, packed: &Packed, control: &Control) -> Result<f64, Error> {
        let Self {
            model,
            options,
            changes,
            gradient,
            workspace,
            ..
        } = self;
        // No gradient reaches the blocks below the lowest adapted one.
        let from = changes.lowest().unwrap_or_default();
        let keep = if options.checkpoint {
            Keep::Inputs { from }
        } else {
            Keep::All { from }
        };
        let learn = (keep, Learn::Factors(gradient));
        let loss = compute::learn(model, Some(changes), packed, learn, control, workspace)?;
        Ok(loss)
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

/// `sum += part · gradient`
fn add(sum: &mut Changes, gradient: &Changes, part: f32) {
    for (sum, gradient) in sum.slices_mut().zip(gradient.slices()) {
        for (sum, g) in sum.iter_mut().zip(gradient) {
            *sum += part * g;
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
mod tests;

//! What the flags come to: the engine's options, the rate of a step, and what makes one run another.

use anyhow::ensure;
use domain::job::mezo::{Distribution, Mezo};
use domain::job::spec::Training;
use domain::schedule;
use domain::zeroth::Steps;
use engine::adapter::Adapter;
use engine::data::Dataset;
use engine::model::{Inspected, Model};
use engine::train::{Options, Rule};
use serde_json::json;

use super::resume::content;
use super::{Args, Device, Draws, MezoArgs, Optimizer, Parameters, Schedule, kept};
use crate::cli::offline::ComputeName;

impl Args {
    /// What does not go together.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (0.0..1.0).contains(&self.dropout) && (0.0..1.0).contains(&self.momentum),
            "use a --dropout and a --momentum from 0 to below 1"
        );
        ensure!(
            self.momentum == 0.0 || self.optimizer == Optimizer::Sgd,
            "--momentum is sgd's: adamw has moments of its own"
        );
        self.held_out.check()?;
        let fits = |tokens: usize| tokens >= self.data.sequence_length;
        ensure!(
            self.batch_tokens.is_none_or(fits),
            "use --batch-tokens from --sequence-length, which a record may have"
        );
        ensure!(
            self.choices.len() != 1,
            "one --choice is no choice: give two or more"
        );
        let plain = self.accumulate == 1
            && self.optimizer == Optimizer::Adamw
            && self.dropout == 0.0
            && self.choices.is_empty()
            && self.save_every == 0
            && !self.resume;
        ensure!(
            plain || matches!(self.device, Device::Cpu),
            "other devices than the cpu have adamw alone, one batch a step, no --choice, --dropout, --save-every or --resume"
        );
        let whole = self.mezo.parameters == Parameters::All;
        ensure!(
            !whole || self.optimizer == Optimizer::Mezo,
            "--parameters all is mezo's: gradients are of adapters alone"
        );
        if self.optimizer == Optimizer::Mezo {
            self.check_mezo()?;
        }
        Ok(())
    }

    /// What a zeroth-order optimizer does not have.
    fn check_mezo(&self) -> anyhow::Result<()> {
        let plain = matches!(self.device, Device::Cpu) && !self.checkpoint;
        ensure!(
            plain,
            "mezo computes on the cpu and keeps no activations: leave out --device and --checkpoint"
        );
        ensure!(
            self.model.compute == ComputeName::F32,
            "mezo computes in f32: a slope is a small difference of two losses, which a faster arithmetic rounds away \
             (`fedpipe bench zo-agreement` measures how far): leave out --compute"
        );
        let constant = matches!(self.schedule, Schedule::Constant)
            && self.warmup == 0
            && self.weight_decay == 0.0;
        ensure!(
            constant,
            "mezo has one rate and no decay: leave out --schedule, --warmup and --weight-decay"
        );
        ensure!(
            self.accumulate == 1 && self.dropout == 0.0,
            "mezo takes one batch a step: leave out --accumulate and --dropout"
        );
        let MezoArgs {
            perturbations,
            clip,
            ..
        } = self.mezo;
        let perturbation = self.perturbation();
        let sound = perturbation > 0.0 && perturbation <= 1.0 && clip >= 0.0;
        ensure!(
            sound && perturbations > 0,
            "use a --perturbation above 0, at most 1, a --clip from 0, and at least 1 of --perturbations"
        );
        if self.save_every > 0 {
            let scores = self.held_out.most_scores(self.steps);
            kept::check((self.steps, perturbations), scores)?;
        }
        Ok(())
    }

    /// How zeroth-order steps are made.
    pub(super) fn walk(&self) -> Steps {
        let mezo = Mezo {
            // As it stands on the command line: there are no first-order sites beside it.
            learning_rate: Some(self.learning_rate().into()),
            perturbation: self.perturbation(),
            perturbations: self.mezo.perturbations,
            distribution: match self.mezo.distribution {
                Draws::Gaussian => Distribution::Gaussian,
                Draws::Rademacher => Distribution::Rademacher,
            },
            clip: self.mezo.clip,
            ..Mezo::default()
        };
        let training = Training {
            mezo,
            ..Training::default()
        };
        Steps::of(&training, self.seed)
    }

    pub(super) fn learning_rate(&self) -> f32 {
        self.learning_rate.unwrap_or(match self.optimizer {
            Optimizer::Adamw | Optimizer::Sgd => 1e-3,
            Optimizer::Mezo if self.mezo.parameters == Parameters::All => 1e-6,
            Optimizer::Mezo => 1e-4,
        })
    }

    /// μ; MeZO's own for either.
    fn perturbation(&self) -> f64 {
        self.mezo
            .perturbation
            .unwrap_or(match self.mezo.parameters {
                Parameters::Adapter => 1e-2,
                Parameters::All => 1e-3,
            })
    }

    /// How the engine is to train.
    pub(super) fn options(&self) -> Options {
        Options {
            rule: match self.optimizer {
                // Zeroth-order steps are made elsewhere.
                Optimizer::Adamw | Optimizer::Mezo => Rule::AdamW,
                Optimizer::Sgd => Rule::Sgd {
                    momentum: self.momentum,
                },
            },
            weight_decay: self.weight_decay,
            clip_norm: self.clip_norm,
            checkpoint: self.checkpoint,
            dropout: self.dropout,
            dropout_seed: self.seed,
            ..Options::default()
        }
    }

    /// Everything that the adapter's bytes depend on; what it is computed with, such as threads, is not among it. Reads the
    /// model's files and the data.
    pub(super) fn asked(
        &self,
        dataset: &Dataset,
        model: &Model,
    ) -> anyhow::Result<serde_json::Value> {
        let (model_sha256, data_sha256) = (
            Model::digest_of(self.model.model.path()?)?,
            content(&self.data.data)?,
        );
        // Numbers as text too, so that none is another when it is read.
        let name = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        Ok(json!({
            "model": self.model.model.to_string(), "model_sha256": model_sha256, "base": name(&self.model.base), "kernel": model.kernel().to_string(),
            "data": self.data.data, "data_sha256": data_sha256, "format": self.data.format, "records": dataset.len(), "sequence_length": self.data.sequence_length,
            "init_adapter": self.init_adapter, "steps": self.steps, "learning_rate": name(&self.learning_rate()),
            "batch": self.batch, "batch_tokens": self.batch_tokens, "held_out": self.held_out.asked()?, "accumulate": self.accumulate, "optimizer": name(&self.optimizer),
            "momentum": name(&self.momentum), "order": name(&self.order), "schedule": name(&self.schedule),
            "warmup": self.warmup, "clip_norm": name(&self.clip_norm), "weight_decay": name(&self.weight_decay),
            "rank": self.rank, "targets": name(&self.targets.0), "alpha": name(&self.alpha), "rslora": self.rslora,
            "dropout": name(&self.dropout), "seed": self.seed, "labels": self.data.labels, "choices": self.choices,
        }))
    }

    /// The same of an adapter's training: a walk's steps are done again from the adapter that it began with, so that its result
    /// depends on that one's values as well.
    pub(super) fn asked_of(
        &self,
        start: &Adapter,
        (dataset, model): (&Dataset, &Model),
    ) -> anyhow::Result<serde_json::Value> {
        if self.save_every == 0 && !self.resume {
            // Nothing is kept that would have to be told from another run's.
            return Ok(serde_json::Value::Null);
        }
        let mut asked = self.asked(dataset, model)?;
        if self.optimizer == Optimizer::Mezo
            && let Some(fields) = asked.as_object_mut()
        {
            let begun_with = start.file_digest()?.to_string();
            fields.insert("walk".to_owned(), format!("{:?}", self.walk()).into());
            fields.insert("start".to_owned(), begun_with.into());
        }
        Ok(asked)
    }

    /// The learning rate of a step.
    pub(super) fn rate(&self, step: u64) -> f32 {
        let schedule = schedule::Schedule {
            shape: match self.schedule {
                Schedule::Constant => schedule::Shape::Constant,
                Schedule::Linear => schedule::Shape::Linear,
                Schedule::Cosine => schedule::Shape::Cosine,
            },
            warmup: self.warmup as f64,
            steps: self.steps,
        };
        self.learning_rate() * schedule.factor(step) as f32
    }

    /// Rows of the sequence's length that a batch holds at most.
    pub(super) fn rows(&self) -> usize {
        let filled = |tokens: usize| tokens.div_ceil(self.data.sequence_length.max(1));
        self.batch_tokens.map_or(self.batch, filled)
    }

    /// Bytes of what not every training has: another gradient, and inputs of which parts are left out.
    pub(super) fn beside(&self, model: &Inspected, start: &Adapter) -> u64 {
        let gathered = if self.accumulate > 1 {
            4 * start.parameters()
        } else {
            0
        };
        let widest = model.config.hidden.max(model.config.intermediate);
        let tokens = self.rows().saturating_mul(self.data.sequence_length);
        let dropped = if self.dropout > 0.0 {
            tokens.saturating_mul(2 * 4 * widest)
        } else {
            0
        };
        gathered.saturating_add(dropped) as u64
    }
}

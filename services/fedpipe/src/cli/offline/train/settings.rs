//! What the flags come to: the engine's options, the rate of a step, and what makes one run another.

use anyhow::ensure;
use domain::schedule;
use engine::adapter::Adapter;
use engine::data::Dataset;
use engine::model::{Inspected, Model};
use engine::train::{Options, Rule};
use serde_json::json;

use super::{Args, Device, Optimizer, Schedule};

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
        let plain = self.accumulate == 1
            && self.optimizer == Optimizer::Adamw
            && self.dropout == 0.0
            && self.save_every == 0
            && !self.resume;
        ensure!(
            plain || matches!(self.device, Device::Cpu),
            "other devices than the cpu have adamw alone, one batch a step, no --dropout, --save-every or --resume"
        );
        Ok(())
    }

    /// How the engine is to train.
    pub(super) fn options(&self) -> Options {
        Options {
            rule: match self.optimizer {
                Optimizer::Adamw => Rule::AdamW,
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

    /// Everything that the adapter's bytes depend on; what it is computed with, such as threads, is not among it.
    pub(super) fn asked(&self, dataset: &Dataset, model: &Model) -> serde_json::Value {
        // Numbers as text too, so that none is another when it is read.
        let name = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        json!({
            "model": self.model.model, "base": name(&self.model.base), "kernel": model.kernel().to_string(),
            "data": self.data.data, "records": dataset.len(), "sequence_length": self.data.sequence_length,
            "init_adapter": self.init_adapter, "steps": self.steps, "learning_rate": name(&self.learning_rate),
            "batch": self.batch, "accumulate": self.accumulate, "optimizer": name(&self.optimizer),
            "momentum": name(&self.momentum), "order": name(&self.order), "schedule": name(&self.schedule),
            "warmup": self.warmup, "clip_norm": name(&self.clip_norm), "weight_decay": name(&self.weight_decay),
            "rank": self.rank, "targets": name(&self.targets.0), "alpha": name(&self.alpha), "rslora": self.rslora,
            "dropout": name(&self.dropout), "seed": self.seed,
        })
    }

    /// The learning rate of a step.
    pub(super) fn rate(&self, step: u64) -> f32 {
        let schedule = schedule::Schedule {
            shape: match self.schedule {
                Schedule::Constant => schedule::Shape::Constant,
                Schedule::Linear => schedule::Shape::Linear,
                Schedule::Cosine => schedule::Shape::Cosine,
            },
            warmup: self.warmup,
            steps: self.steps,
        };
        self.learning_rate * schedule.factor(step) as f32
    }

    /// Bytes of what not every training has: another gradient, and inputs of which parts are left out.
    pub(super) fn beside(&self, model: &Inspected, start: &Adapter) -> u64 {
        let gathered = if self.accumulate > 1 {
            4 * start.parameters()
        } else {
            0
        };
        let widest = model.config.hidden.max(model.config.intermediate);
        let tokens = self.batch.saturating_mul(self.data.sequence_length);
        let dropped = if self.dropout > 0.0 {
            tokens.saturating_mul(2 * 4 * widest)
        } else {
            0
        };
        gathered.saturating_add(dropped) as u64
    }
}

//! One examination, on the compute thread: which kernel is fastest here, then everything with that.

use std::sync::Arc;

use contract::message::task::Probe;
use domain::adapter::WeightShape;
use domain::fleet::Stage;
use domain::job::spec::Optimizer;
use domain::profile::{GradientNoise, Mode, ModeMeasurement};

use super::kernels;
use super::noise::Norms;
use super::room::Room;
use super::start;
use crate::compute::{Bench, Key, ModelFiles};
use crate::data::Opened;
use crate::failure::Failure;
use crate::running::Running;
use crate::train::{self, Lengths};

/// Everything the measurement needs.
#[derive(Debug)]
pub struct Examination {
    /// What is asked.
    pub task: Probe,
    /// Which model, how; its kernel is the first that is tried.
    pub key: Key,
    /// Its files.
    pub files: ModelFiles,
    /// The data.
    pub data: Arc<Opened>,
}

/// What the compute thread measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// Adaptable weights of the model.
    pub weights: Vec<WeightShape>,
    /// Blocks of the model.
    pub layers: u16,
    /// Rounds of training and passes of scoring, by mode.
    pub modes: Vec<ModeMeasurement>,
    /// How noisy the gradient is.
    pub noise: Option<GradientNoise>,
    /// Forward passes alone.
    pub forward_tokens_per_second: f64,
    /// How long records are.
    pub lengths: Lengths,
}

impl Examination {
    /// Loads the model and measures.
    ///
    /// # Errors
    /// What keeps the site from it; out of memory if not even three small rounds fit.
    pub fn examine(&self, bench: &mut Bench, running: &Running) -> Result<Examined, Failure> {
        let key = self.fastest(bench, running)?;
        let mut room = self.room(&key, bench, running)?;
        let trained = room.rounds()?;
        let scored = room.scored(&trained)?;
        if let (Some(training), Some(forward)) = (trained.last(), scored.last()) {
            let speedup = training.real_seconds_per_token / forward.real_seconds_per_token;
            running.site.set_forward_speedup(speedup);
        }
        room.examined(trained, scored)
    }

    /// The model with the kernel that trains fastest here, of those that the job leaves open.
    fn fastest(&self, bench: &mut Bench, running: &Running) -> Result<Key, Failure> {
        let keys = kernels::candidates(self.task.compute).into_iter();
        let keys: Vec<Key> = keys
            .map(|kernel| Key {
                kernel,
                ..self.key.clone()
            })
            .collect();
        let mut fastest: Option<(Key, f64)> = None;
        if keys.len() > 1 {
            for key in &keys {
                let seconds = self.room(key, bench, running)?.trial()?;
                tracing::info!(kernel = %key.kernel, seconds_per_token = seconds, "kernel tried");
                if fastest.as_ref().is_none_or(|(_, least)| seconds < *least) {
                    fastest = Some((key.clone(), seconds));
                }
            }
        }
        let only = || keys.first().cloned();
        let chosen = fastest.map(|(key, _)| key).or_else(only);
        Ok(chosen.unwrap_or_else(|| self.key.clone()))
    }

    fn room<'a>(
        &'a self,
        key: &Key,
        bench: &'a mut Bench,
        running: &'a Running,
    ) -> Result<Room<'a>, Failure> {
        if !bench.holds(key) {
            running.stage(Stage::Loading, 0);
            bench.make_room(key, &self.files, running.site.memory_limit_bytes)?;
        }
        let loaded = bench.model(key, &self.files)?;
        running.stage(Stage::Probing, 0);
        let model = loaded.model();
        let weights = model.weights();
        let training = &self.task.training;
        let encoder = self
            .data
            .encoder(model.tokenizer(), training.sequence_length)?;
        let lengths = train::lengths(&self.data, &encoder, running)?;
        let global = running.site.work_dir().join("probe.safetensors");
        let (targets, rank_max) = (&self.task.targets, self.task.rank_max);
        start::write(&global, &weights, targets, rank_max, training.seed)?;
        Ok(Room {
            mode: Mode {
                base: key.base,
                kernel: key.kernel.to_string(),
                checkpoint: false,
                optimizer: Optimizer::Adamw,
            },
            running,
            task: &self.task,
            data: &self.data,
            model,
            global,
            weights,
            layers: u16::try_from(model.config().layers).unwrap_or(u16::MAX),
            encoder,
            lengths,
            base_memory_bytes: loaded.base_memory_bytes(),
            steps: 0,
            norms: Norms::default(),
        })
    }
}

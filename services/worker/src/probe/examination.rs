//! The measured steps, on the compute thread.

use std::path::Path;
use std::sync::Arc;

use chassis::clock::Stopwatch;
use chassis::memory;
use contract::message::task::Probe;
use domain::adapter::{RankTable, WeightShape};
use domain::cause::Trouble;
use domain::fleet::Stage;
use domain::profile::Sample;
use engine::adapter::Adapter;
use engine::data::{Batch, Encoder, Loader, Sampler};
use engine::evaluate::Evaluator;
use engine::model::Model;
use engine::train::Trainer;

use super::configurations::{Configuration, NEEDED, Need, configurations, predicted};
use super::headroom::usable_bytes;
use super::sized::sized;
use crate::compute::{Bench, Key, ModelFiles};
use crate::data::Opened;
use crate::failure::Failure;
use crate::running::Running;
use crate::train;

/// Seconds of real computing after which no larger step is tried, once there are enough samples.
const ENOUGH_SECONDS: f64 = 20.0;
/// A step is repeated until it was measured for so long, to drown the clock's grain,
const LONG_ENOUGH_SECONDS: f64 = 0.1;
/// but at most so often.
const REPEATS: usize = 5;
/// Share of the memory that a predicted step may fill.
const FILL: f64 = 0.95;

/// Everything the measurement needs.
#[derive(Debug)]
pub struct Examination {
    /// What is asked.
    pub task: Probe,
    /// Which model, how.
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
    /// Heap with the model loaded, in bytes.
    pub base_memory_bytes: u64,
    /// Heap this worker may use, in bytes.
    pub memory_limit_bytes: u64,
    /// Training steps.
    pub samples: Vec<Sample>,
    /// Forward passes alone.
    pub forward_tokens_per_second: f64,
    /// Mean tokens of a record.
    pub mean_tokens: f64,
}

/// What all steps of one examination share.
struct Room<'a> {
    running: &'a Running,
    task: &'a Probe,
    data: &'a Opened,
    model: &'a Model,
    weights: &'a [WeightShape],
    layers: u16,
    encoder: Encoder,
    mean_tokens: f64,
    base_memory_bytes: u64,
    memory_limit_bytes: u64,
}

impl Examination {
    /// Loads the model and measures.
    ///
    /// # Errors
    /// What keeps the site from it; out of memory if not even three small steps fit.
    pub fn examine(&self, bench: &mut Bench, running: &Running) -> Result<Examined, Failure> {
        if !bench.holds(&self.key) {
            running.stage(Stage::Loading, 0);
        }
        let loaded = bench.model(&self.key, &self.files)?;
        running.stage(Stage::Probing, 0);
        let model = loaded.model();
        let weights = model.weights();
        let limit = running.site.memory_limit_bytes;
        let sequence_length = self.task.training.sequence_length;
        let encoder = self.data.encoder(model.tokenizer(), sequence_length)?;
        let mean_tokens = train::mean_tokens(&self.data, &encoder, running)?;
        let room = Room {
            running,
            task: &self.task,
            data: &self.data,
            model,
            weights: &weights,
            layers: u16::try_from(model.config().layers).unwrap_or(u16::MAX),
            encoder,
            mean_tokens,
            base_memory_bytes: loaded.base_memory_bytes(),
            memory_limit_bytes: usable_bytes(Path::new("/"), limit, memory::current_bytes()),
        };
        let samples = room.samples()?;
        let forward_tokens_per_second = room.forward()?;
        let Room {
            layers,
            base_memory_bytes,
            memory_limit_bytes,
            ..
        } = room;
        Ok(Examined {
            weights,
            layers,
            base_memory_bytes,
            memory_limit_bytes,
            samples,
            forward_tokens_per_second,
            mean_tokens,
        })
    }
}

impl Room<'_> {
    fn samples(&self) -> Result<Vec<Sample>, Failure> {
        let whole = Stopwatch::start();
        let mut samples: Vec<Sample> = Vec::new();
        let mut too_large = None;
        for configuration in configurations(self.task.rank_max) {
            let enough = samples.len() >= NEEDED;
            if enough && whole.seconds() > ENOUGH_SECONDS {
                break;
            }
            let batch = self.batch(usize::from(configuration.batch), self.mean_length())?;
            if let Some(bytes) = self.beyond(&samples, configuration, &batch) {
                too_large = Some(bytes);
                continue;
            }
            samples.push(self.measure(configuration, &batch)?);
        }
        // Where memory ends early, shorter rows make more samples.
        let smallest = Configuration { batch: 1, rank: 1 };
        for part in 1..=NEEDED {
            if samples.len() >= NEEDED {
                break;
            }
            let batch = self.batch(1, self.mean_length() / part)?;
            if self.beyond(&samples, smallest, &batch).is_none() {
                samples.push(self.measure(smallest, &batch)?);
            }
        }
        match too_large {
            Some(bytes) if samples.len() < NEEDED => Err(Failure::new(
                Trouble::OutOfMemory,
                format!(
                    "training the smallest step would need {bytes} bytes of {} bytes of heap",
                    self.memory_limit_bytes
                ),
            )),
            _ => Ok(samples),
        }
    }

    /// The heap a step is predicted to need, if that is more than there is.
    fn beyond(&self, samples: &[Sample], next: Configuration, batch: &Batch) -> Option<u64> {
        let last = samples.last()?;
        let needed = last
            .peak_memory_bytes
            .saturating_sub(self.base_memory_bytes);
        let before = Need {
            tokens: f64::from(last.tokens),
            parameters: last.parameters as f64,
            bytes: needed as f64,
        };
        let parameters = self.ranks(next.rank).parameters(self.weights) as f64;
        let more = predicted(before, tokens(batch) as f64, parameters);
        let bytes = self.base_memory_bytes as f64 + more;
        (bytes > FILL * self.memory_limit_bytes as f64).then_some(bytes as u64)
    }

    fn measure(&self, configuration: Configuration, batch: &Batch) -> Result<Sample, Failure> {
        let ranks = self.ranks(configuration.rank);
        let training = &self.task.training;
        memory::reset_peak();
        // The scale changes no cost; the fresh adapter's change is zero.
        let fresh = Adapter::initialize(self.weights, &ranks, 1.0, training.seed);
        let fresh = fresh.map_err(|error| Failure::of(Trouble::PlanUnsupported, &error))?;
        let mut trainer = Trainer::new(self.model, &fresh, train::options(training, false))?;
        drop(fresh);
        let rate = training.learning_rate as f32;
        let seconds = self.timed(|| {
            trainer.step(batch, rate, self.running.stop.control())?;
            self.running.advance();
            Ok(())
        })?;
        let count = tokens(batch);
        Ok(Sample {
            batch: configuration.batch,
            tokens: u32::try_from(count).unwrap_or(u32::MAX),
            parameters: ranks.parameters(self.weights),
            step_seconds: self.running.site.pace().seconds(count, seconds),
            peak_memory_bytes: memory::peak_bytes(),
        })
    }

    fn forward(&self) -> Result<f64, Failure> {
        let batch = self.batch(2, self.mean_length())?;
        let mut evaluator = Evaluator::new(self.model, None)?;
        let seconds = self.timed(|| {
            evaluator.loss(&batch, self.running.stop.control())?;
            self.running.advance();
            Ok(())
        })?;
        let count = tokens(&batch);
        let seconds = self.running.site.pace().seconds(count, seconds);
        Ok(count as f64 / seconds.max(1e-9))
    }

    /// The median time of some work that was done once before, in seconds.
    fn timed(&self, mut work: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
        // Buffers are made and pages are touched the first time. Work that is long anyway is not
        // warmed up: its first time differs little.
        let watch = Stopwatch::start();
        work()?;
        let first = watch.seconds();
        if first > ENOUGH_SECONDS / 8.0 {
            return Ok(first);
        }
        let (mut times, mut spent) = (Vec::new(), 0.0);
        while times.len() < REPEATS && spent < LONG_ENOUGH_SECONDS {
            self.running.stop.check()?;
            let watch = Stopwatch::start();
            work()?;
            times.push(watch.seconds());
            spent += times.last().copied().unwrap_or(0.0);
        }
        times.sort_unstable_by(f64::total_cmp);
        Ok(times.get(times.len() / 2).copied().unwrap_or(first))
    }

    fn ranks(&self, rank: u16) -> RankTable {
        RankTable::uniform(&self.task.targets, self.layers, rank)
    }

    /// Tokens of a row: as many as a record has on average, so that no record's own length is told.
    fn mean_length(&self) -> usize {
        self.mean_tokens.round() as usize
    }

    fn batch(&self, records: usize, length: usize) -> Result<Batch, Failure> {
        let training = &self.task.training;
        let sampler: Sampler = train::sampler(self.data, records, training, self.running)?;
        let loader = Loader::new(&self.data.train, &self.encoder, &sampler);
        let loaded = loader.batch(0).map_err(|error| self.data.trouble(&error))?;
        Ok(sized(loaded.batch, length))
    }
}

fn tokens(batch: &Batch) -> usize {
    batch.rows.iter().map(|row| row.tokens.len()).sum()
}

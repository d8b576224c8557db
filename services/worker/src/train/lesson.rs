//! The steps of one round, on the compute thread.

use std::path::PathBuf;
use std::sync::Arc;

use chassis::clock::Stopwatch;
use chassis::failpoint::{self, Failpoint};
use chassis::memory;
use chassis::telemetry::{self, Metric};
use contract::message::task::Train;
use domain::cause::Trouble;
use domain::fleet::Stage;
use domain::job::aggregation::Trains;
use domain::job::spec::{Order, Training};
use domain::plan::WorkerPlan;
use domain::round::UpdateMetrics;
use engine::data::{self, Balance, Encoder, Loader, Sampler, SamplerOptions, Seed};
use engine::train::{Options, Step};

use super::{SharedLoss, begin, finish};
use crate::adapter_file;
use crate::compute::{Bench, Key, Loaded, ModelFiles};
use crate::data::Opened;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::running::Running;

/// Everything a round's training needs.
#[derive(Debug)]
pub struct Lesson {
    /// What is asked.
    pub task: Train,
    /// Which model, how.
    pub key: Key,
    /// Its files.
    pub files: ModelFiles,
    /// The merged adapter's file.
    pub global: PathBuf,
    /// The data.
    pub data: Arc<Opened>,
}

/// A trained update.
#[derive(Debug)]
pub struct Trained {
    /// A safetensors file with PEFT's keys.
    pub update: Vec<u8>,
    /// Its figures; transfers are not counted yet.
    pub metrics: UpdateMetrics,
}

/// Sums over the steps of a round.
#[derive(Debug, Default)]
struct Sums {
    records: u64,
    tokens: u64,
    loss: f64,
    steps: u32,
    /// At the site's pace.
    seconds: f64,
}

impl Lesson {
    /// Trains the round.
    ///
    /// # Errors
    /// What keeps the site from it; [`Failure::Stopped`] within one block of being stopped.
    pub fn train(&self, bench: &mut Bench, running: &Running) -> Result<Trained, Failure> {
        let Self { task, key, .. } = self;
        let plan = &task.plan;
        if !bench.holds(key) {
            running.stage(Stage::Loading, 0);
        }
        let runtime = bench.runtime().clone();
        let loaded = bench.model(key, &self.files)?;
        self.apply_side(loaded)?;
        let model = loaded.model();
        running.stage(Stage::Training, u64::from(plan.local_steps));
        memory::reset_peak();
        let trained = task.strategy.trains();
        let options = Options {
            b_alone: trained == Trains::B,
            ..options(&task.training, plan.checkpoint)
        };
        let mut trainer = begin(model, &self.global, &plan.ranks, task.scale, options)?;
        let encoder = self.data.encoder(model.tokenizer(), plan.sequence_length)?;
        let sampler = self.sampler(running)?;
        let loader = Loader::new(&self.data.train, &encoder, &sampler);
        let rate = task.training.learning_rate as f32;
        let first = u64::from(task.round.saturating_sub(1)) * u64::from(plan.local_steps);
        let pace = running.site.pace();

        let mut sums = Sums::default();
        let planned = u64::from(plan.batch) * u64::from(plan.local_steps);
        let consent = running.site.config.policy.share_small_counts;
        let mut shared = SharedLoss::new(planned, consent);
        for number in 0..plan.local_steps {
            running.stop.check()?;
            let watch = Stopwatch::start();
            let loaded = loader.batch(first + u64::from(number));
            let loaded = loaded.map_err(|error| self.data.trouble(&error))?;
            let step = trainer.step(&loaded.batch, rate, running.stop.control())?;
            let seconds = watch.seconds();
            pace.wait(&runtime, &running.stop, step.tokens, seconds, || {
                running.advance()
            })?;
            sums.add(
                loaded.batch.rows.len(),
                &step,
                pace.seconds(step.tokens, seconds),
            );
            let loss = shared.add(loaded.batch.rows.len() as u64, step.loss);
            tell(
                running,
                &step,
                &watch,
                loss,
                sums.tokens as f64 / sums.seconds,
            );
            if number == 0 {
                failpoint::hit(Failpoint::WorkerTrainAfterFirstStep);
            }
        }
        let update = finish(trainer, trained)?;
        let metrics = sums.metrics();
        Ok(Trained { update, metrics })
    }

    /// A rule with a side term has every site apply what stands behind the live slices.
    fn apply_side(&self, loaded: &mut Loaded) -> Result<(), Failure> {
        let Self { task, global, .. } = self;
        if !task.strategy.has_side_term() {
            return Ok(());
        }
        let shapes = loaded.model().weights();
        match adapter_file::side(global, &shapes, &task.live, task.scale)? {
            Some(side) => loaded.set_side(&side),
            None => Ok(()),
        }
    }

    /// Steps are counted through all rounds, so that every record is seen before any comes twice.
    fn sampler(&self, running: &Running) -> Result<Sampler, Failure> {
        let (plan, training) = (&self.task.plan, &self.task.training);
        sampler(&self.data, usize::from(plan.batch), training, running)
    }
}

/// Whether the loss of a round of this plan may leave the site.
///
/// # Errors
/// If it would be averaged over too few records.
pub fn admit(site: &Machine, plan: &WorkerPlan, data: &Opened) -> Result<(), Failure> {
    let drawn = u64::from(plan.batch) * u64::from(plan.local_steps);
    let averaged = drawn.min(data.summary().records);
    let admitted = site.config.policy.admit_count("the loss", averaged);
    admitted.map_err(|refusal| Failure::of(Trouble::PolicyRefused, &refusal))
}

/// The stream of batches of this worker in this job: a function of seed, worker and step.
///
/// # Errors
/// If the data set has nothing to draw, or no classes to balance.
pub fn sampler(
    data: &Opened,
    batch: usize,
    training: &Training,
    running: &Running,
) -> Result<Sampler, Failure> {
    let (order, balance) = match training.order {
        Order::Shuffle => (data::Order::Shuffled, Balance::None),
        Order::Balanced => (data::Order::Shuffled, Balance::Label),
        Order::File => (data::Order::File, Balance::None),
    };
    let options = SamplerOptions {
        batch,
        order,
        balance,
    };
    let seed = Seed {
        seed: training.seed,
        round: 0,
        worker: running.site.name.to_string(),
    };
    Sampler::new(&data.train, None, options, &seed).map_err(|error| data.trouble(&error))
}

/// How the engine trains under a job's settings.
#[must_use]
pub fn options(training: &Training, checkpoint: bool) -> Options {
    Options {
        weight_decay: training.weight_decay as f32,
        clip_norm: training.clip_norm as f32,
        checkpoint,
        proximal: training.proximal as f32,
        ..Options::default()
    }
}

fn tell(running: &Running, step: &Step, watch: &Stopwatch, loss: Option<f64>, speed: f64) {
    running.advance();
    telemetry::count(Metric::TrainingTokens, step.tokens as u64, &[]);
    telemetry::observe(Metric::TrainingStepSeconds, watch.seconds(), &[]);
    // A single step may average fewer records than may be told to anybody.
    if let Some(loss) = loss {
        telemetry::set(Metric::TrainingLoss, loss, &[]);
    }
    running.site.status.update(|progress| {
        progress.done += 1;
        progress.loss = loss;
        progress.tokens_per_second = speed.is_finite().then_some(speed);
    });
}

impl Sums {
    fn add(&mut self, records: usize, step: &Step, seconds: f64) {
        self.records += records as u64;
        self.tokens += step.tokens as u64;
        self.loss += step.loss;
        self.steps += 1;
        self.seconds += seconds;
    }

    fn metrics(&self) -> UpdateMetrics {
        UpdateMetrics {
            records: self.records,
            tokens: self.tokens,
            loss: self.loss / f64::from(self.steps.max(1)),
            steps: self.steps,
            compute_seconds: self.seconds,
            tokens_per_second: self.tokens as f64 / self.seconds.max(1e-9),
            peak_memory_bytes: memory::peak_data_bytes(),
            bytes_up: 0,
            bytes_down: 0,
            control_bytes_up: 0,
        }
    }
}

/// How long records are, as the model sees them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lengths {
    /// Mean tokens of a record.
    pub mean: f64,
    /// Mean of the square of a record's tokens.
    pub mean_square: f64,
}

/// The mean number of tokens of a record as the model sees it, and of its square, over all records that
/// have a row.
///
/// # Errors
/// If no record has one, or the task is stopped.
pub fn lengths(data: &Opened, encoder: &Encoder, running: &Running) -> Result<Lengths, Failure> {
    let (mut tokens, mut squares, mut rows) = (0.0, 0.0, 0u64);
    let stride = data.train.len().div_ceil(MEAN_RECORDS).max(1);
    for number in (0..data.train.len()).step_by(stride) {
        running.stop.check()?;
        let record = data
            .train
            .record(number)
            .map_err(|error| data.trouble(&error))?;
        match encoder.row(number, &record) {
            Ok(row) => {
                let length = row.tokens.len() as f64;
                tokens += length;
                squares += length * length;
                rows += 1;
            }
            Err(refusal) if refusal.is_of_this_record() => {}
            Err(refusal) => return Err(data.trouble(&refusal.into())),
        }
        running.advance();
    }
    if rows == 0 {
        return Err(data.trouble(&data::Refusal::NothingToLearn.into()));
    }
    let rows = rows as f64;
    Ok(Lengths {
        mean: tokens / rows,
        mean_square: squares / rows,
    })
}

/// Records that are encoded to know their mean length, evenly over the file.
const MEAN_RECORDS: usize = 4096;

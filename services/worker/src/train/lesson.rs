//! The steps of one round, on the compute thread.

use std::path::PathBuf;
use std::sync::Arc;

use chassis::clock::Stopwatch;
use chassis::failpoint::{self, Failpoint};
use chassis::memory;
use chassis::telemetry::{self, Metric};
use contract::message::task::Train;
use domain::artifact::Digest;
use domain::cause::Trouble;
use domain::energy::EnergyTable;
use domain::fleet::Stage;
use domain::id::WorkerName;
use domain::job::aggregation::Trains;
use domain::job::spec::{Optimizer, Order, Training};
use domain::plan::WorkerPlan;
use domain::round::UpdateMetrics;
use domain::zeroth::{GENERATOR, Scalars, Steps, Walk};
use engine::data::{self, Balance, Loader, Sampler, SamplerOptions, Seed};
use engine::train::{Emphasis, Options, Rule};

use super::kept::{Done, Stood};
use super::source::Source;
use super::{How, Kept, Learned, Learner, Passes, SharedLoss};
use crate::adapter_file;
use crate::compute::{Bench, Key, Loaded, ModelFiles, Pace};
use crate::data::Opened;
use crate::emphasis;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::running::Running;

/// What is said of a round without a loss.
const DIVERGED: &str = "the loss of no step was a finite number; lower training.learning_rate \
     (training.mezo.learning_rate where that is set) or set training.mezo.clip";

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
    /// That of the adapter which a mask goes by, where the round has one.
    pub mask: Option<PathBuf>,
    /// The data.
    pub data: Arc<Opened>,
    /// Where the round is kept when the worker is told to end.
    pub kept: Option<Kept>,
}

/// A trained round.
#[derive(Debug)]
pub struct Taught {
    /// What is sent.
    pub update: Outcome,
    /// Its figures; transfers are not counted yet.
    pub metrics: UpdateMetrics,
    /// How often its batches went through the model, those of steps by gradients once.
    pub passes: u64,
}

/// What a round's training leaves.
#[derive(Debug)]
pub enum Outcome {
    /// A safetensors file with PEFT's keys.
    Tensors(Vec<u8>),
    /// The scalars of zeroth-order steps, and where each site walks its own way the digest of the adapter
    /// that they led to.
    Scalars(Scalars, Option<Digest>),
}

/// Sums over the steps of a round.
#[derive(Debug, Default)]
struct Sums {
    records: u64,
    tokens: u64,
    loss: f64,
    steps: u32,
    skipped: u32,
    /// At the site's pace.
    seconds: f64,
}

impl Lesson {
    /// Trains the round.
    ///
    /// # Errors
    /// What keeps the site from it; [`Failure::Stopped`] within one block of being stopped.
    pub fn train(&self, bench: &mut Bench, running: &Running) -> Result<Taught, Failure> {
        let Self { task, key, .. } = self;
        let plan = &task.plan;
        if !bench.holds(key) {
            running.stage(Stage::Loading, 0);
        }
        let runtime = bench.runtime().clone();
        let loaded = bench.model(key, &self.files)?;
        self.apply_side(loaded)?;
        let model = loaded.model();
        let shapes = model.weights();
        running.stage(Stage::Training, u64::from(plan.local_steps));
        memory::reset_peak();
        let first = u64::from(task.round.saturating_sub(1)) * u64::from(plan.local_steps);
        let how = self.how(first)?;
        let global = (self.global.as_path(), task.scale);
        let control = running.stop.control();
        let learner = Learner::begin(model, global, &plan.ranks, how, control)?;
        let mut learner = learner.with_failpoint();
        let mut stood = Stood::new(self.data.summary().records);
        let earlier = self.kept.as_ref();
        let earlier = earlier.and_then(|kept| kept.take_up(&mut learner, &shapes, &stood));
        let earlier = earlier.unwrap_or_else(|| stood.clone());
        let encoder = self.data.encoder(
            model.tokenizer(),
            plan.sequence_length,
            (&task.training.labels, &task.training.choices),
        )?;
        super::enough(&self.data, &encoder, running)?;
        let sampler = self.sampler(running)?;
        let loader = Loader::new(&self.data.train, &encoder, &sampler);
        let mut source = Source::new(&task.training, plan, task.round, loader);
        let planned = source.records(running, &self.data)?;
        let (pace, _) = pace(&running.site, plan.optimizer, &task.training);

        let (mut sums, mut passes) = (Sums::default(), 0);
        let policy = &running.site.config.policy;
        let admitted = policy.admit_count("the loss", planned);
        admitted.map_err(|refusal| Failure::of(Trouble::PolicyRefused, &refusal))?;
        let consent = policy.share_small_counts;
        let mut shared = SharedLoss::new(planned, consent);
        for number in 0..plan.local_steps {
            let watch = Stopwatch::start();
            let batches = source.step(number);
            let batches = batches.map_err(|error| self.data.trouble(&error))?;
            if let Some(done) = earlier.steps.get(number as usize) {
                let step = done.learned();
                passes += step.passes as u64;
                sums.add(done.records, &step, done.seconds());
                let loss = step.loss.and_then(|loss| shared.add(done.records, loss));
                show(running, loss, sums.speed());
                stood.steps.push(*done);
                continue;
            }
            let rate = self.rate(number);
            let stopped = running.stop.check();
            let step = stopped.and_then(|()| Ok(learner.step(&batches, rate, control)?));
            let step =
                step.inspect_err(|failure| self.keep(failure, &mut learner, &mut stood, running))?;
            let seconds = watch.seconds();
            let tokens = step.passes * step.tokens;
            passes += step.passes as u64;
            let paced = pace.seconds(tokens, seconds);
            let records = batches.iter().map(|batch| batch.rows.len() as u64).sum();
            stood.steps.push(Done::new(records, &step, paced));
            pace.wait(&runtime, &running.stop, tokens, seconds, || {
                running.advance()
            })
            .inspect_err(|failure| self.keep(failure, &mut learner, &mut stood, running))?;
            sums.add(records, &step, paced);
            let loss = step.loss.and_then(|loss| shared.add(records, loss));
            tell(running, &step, &watch, loss);
            show(running, loss, sums.speed());
            if number == 0 {
                failpoint::hit(Failpoint::WorkerTrainAfterFirstStep);
            }
        }
        let refused = source.refused();
        if refused.total() > 0 {
            tracing::warn!(
                dataset = %task.head.dataset,
                round = task.round,
                "records could not be learned, others took their place: {refused}"
            );
        }
        let energies = learner.energies();
        // Of several steps none had a loss where the site has diverged, which whoever submitted the job has to know. A
        // round's only step may be skipped like any other; but if it is in every round, nobody else says so. Steps by
        // gradients are never skipped.
        if sums.skipped == sums.steps {
            if sums.steps > 1 {
                return Err(Failure::new(Trouble::NotFinite, DIVERGED));
            }
            tracing::warn!(round = task.round, "{DIVERGED}");
        }
        let update = if task.training.sends_scalars(plan.optimizer) {
            let own_way = !task.training.shares_directions();
            let (scalars, reached) = learner.scalars(own_way)?;
            Outcome::Scalars(scalars, reached)
        } else {
            Outcome::Tensors(learner.tensors(task.strategy.trains())?)
        };
        let mut metrics = sums.metrics(energies, refused.total());
        metrics.peak_memory_bytes = metrics.peak_memory_bytes.max(earlier.peak_bytes);
        Ok(Taught {
            update,
            metrics,
            passes,
        })
    }

    /// Keeps the round if it ends because the worker was told to, and if there is room for it: a worker that dies of
    /// being tidy would be told to have too little memory.
    fn keep(
        &self,
        failure: &Failure,
        learner: &mut Learner<'_>,
        stood: &mut Stood,
        running: &Running,
    ) {
        let stopped = matches!(failure, Failure::Stopped) && !stood.steps.is_empty();
        let Some(kept) = self
            .kept
            .as_ref()
            .filter(|kept| stopped && kept.is_wanted())
        else {
            return;
        };
        stood.peak_bytes = memory::peak_data_bytes();
        learner.release();
        // The merged adapter has every rank of the site's own, or more.
        let adapter = std::fs::metadata(&self.global).map_or(0, |about| about.len());
        let needed = memory::data_bytes() + learner.keeping_bytes(adapter);
        if needed <= running.site.memory_limit_bytes {
            kept.keep(learner, stood);
        } else {
            tracing::warn!(needed, "no room to keep the round, it begins anew");
        }
    }

    /// How the plan trains; `first` is the number of the round's first step.
    fn how(&self, first: u64) -> Result<How, Failure> {
        let Train {
            plan,
            training,
            strategy,
            walk,
            ..
        } = &self.task;
        if plan.optimizer == Optimizer::Mezo {
            let steps = supported(walk.as_ref())?;
            let source = walk
                .as_ref()
                .map(|walk| emphasis::Source::new(walk, self.mask.as_deref()));
            let emphasis = match source.transpose()? {
                Some(source) => source.of(self.task.round)?,
                None => Emphasis::default(),
            };
            return Ok(How::ZerothOrder(Passes {
                steps,
                first,
                abreast: plan.abreast,
                emphasis,
            }));
        }
        let options = Options {
            b_alone: strategy.trains() == Trains::B,
            // Masks of its own for every site and round.
            dropout_seed: seed(training, self.task.round, &self.task.head.worker).number("dropout"),
            ..options(training, (plan.optimizer, plan.checkpoint))
        };
        Ok(How::FirstOrder(options))
    }

    /// The learning rate of a step of the round.
    fn rate(&self, number: u32) -> f32 {
        let Train {
            plan,
            training,
            round,
            rounds,
            ..
        } = &self.task;
        training.rate((*round, number), plan.local_steps, *rounds) as f32
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

/// How the steps of a zeroth-order task are made, if this program can make them.
///
/// # Errors
/// If the task does not say, or its directions are another generator's.
pub fn supported(walk: Option<&Walk>) -> Result<Steps, Failure> {
    let Some(walk) = walk else {
        let detail = "the task does not say how zeroth-order steps are made";
        return Err(Failure::new(Trouble::PlanUnsupported, detail));
    };
    let steps = walk.own();
    if steps.generator != GENERATOR {
        let detail = format!(
            "the job's directions are of generator {}, this worker has generator {GENERATOR}",
            steps.generator
        );
        // No lasting trouble: a release can be taken back, and the site is asked again then.
        return Err(Failure::new(Trouble::Internal, detail));
    }
    Ok(steps)
}

/// Whether what a round of this plan tells may leave the site: its loss, and where it trains zeroth-order the
/// scalar of each step.
///
/// # Errors
/// If either would be averaged over too few records.
pub fn admit(site: &Machine, plan: &WorkerPlan, data: &Opened) -> Result<(), Failure> {
    let records = data.summary().records;
    let drawn = u64::from(plan.batch) * plan.batches();
    let step = u64::from(plan.batch).min(records);
    let policy = &site.config.policy;
    let loss = policy.admit_count("the loss", drawn.min(records));
    let scalar = match plan.optimizer {
        Optimizer::Mezo => policy.admit_count("the scalar of a step", step),
        _ => Ok(()),
    };
    let admitted = loss.and(scalar);
    admitted.map_err(|refusal| Failure::of(Trouble::PolicyRefused, &refusal))
}

/// The pace of a step, and how many times its tokens go through the model at that pace: a step without gradients
/// is two forward passes for each of its directions.
#[must_use]
pub fn pace(site: &Machine, optimizer: Optimizer, training: &Training) -> (Pace, usize) {
    match optimizer {
        Optimizer::Mezo => {
            let directions = usize::from(training.mezo.perturbations);
            (site.forward_pace(), 2 * directions)
        }
        Optimizer::Adamw | Optimizer::Sgd | Optimizer::Auto => (site.pace(), 1),
    }
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
    let seed = seed(training, 0, &running.site.name);
    Sampler::new(&data.train, None, options, &seed).map_err(|error| data.trouble(&error))
}

/// What a site's random numbers derive from: of a round, or with 0 of all rounds.
fn seed(training: &Training, round: u32, worker: &WorkerName) -> Seed {
    Seed {
        seed: training.seed,
        round,
        worker: worker.to_string(),
    }
}

/// How the engine trains under a job's settings, with this optimizer and with or without recomputing.
#[must_use]
pub fn options(training: &Training, (optimizer, checkpoint): (Optimizer, bool)) -> Options {
    Options {
        rule: match optimizer {
            Optimizer::Sgd => Rule::Sgd {
                momentum: training.momentum as f32,
            },
            Optimizer::Adamw | Optimizer::Mezo | Optimizer::Auto => Rule::AdamW,
        },
        dropout: training.dropout as f32,
        dropout_seed: training.seed,
        weight_decay: training.weight_decay as f32,
        clip_norm: training.clip_norm as f32,
        checkpoint,
        proximal: training.proximal as f32,
        ..Options::default()
    }
}

fn tell(running: &Running, step: &Learned, watch: &Stopwatch, loss: Option<f64>) {
    running.advance();
    telemetry::count(Metric::TrainingTokens, step.tokens as u64, &[]);
    telemetry::observe(Metric::TrainingStepSeconds, watch.seconds(), &[]);
    // A single step may average fewer records than may be told to anybody.
    if let Some(loss) = loss {
        telemetry::set(Metric::TrainingLoss, loss, &[]);
    }
}

/// One more step in the worker's beats.
fn show(running: &Running, loss: Option<f64>, speed: f64) {
    running.site.status.update(|progress| {
        progress.done += 1;
        progress.loss = loss;
        progress.tokens_per_second = speed.is_finite().then_some(speed);
    });
}

impl Sums {
    fn add(&mut self, records: u64, step: &Learned, seconds: f64) {
        self.records += records;
        self.tokens += step.tokens as u64;
        self.loss += step.loss.unwrap_or(0.0);
        self.skipped += u32::from(step.loss.is_none());
        self.steps += 1;
        self.seconds += seconds;
    }

    /// Tokens a second.
    fn speed(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }

    fn metrics(&self, energies: EnergyTable, refused_records: u64) -> UpdateMetrics {
        UpdateMetrics {
            records: self.records,
            tokens: self.tokens,
            loss: self.loss / f64::from((self.steps - self.skipped).max(1)),
            steps: self.steps,
            skipped_steps: self.skipped,
            refused_records,
            compute_seconds: self.seconds,
            tokens_per_second: self.tokens as f64 / self.seconds.max(1e-9),
            peak_memory_bytes: memory::peak_data_bytes(),
            bytes_up: 0,
            bytes_down: 0,
            control_bytes_up: 0,
            energies,
        }
    }
}

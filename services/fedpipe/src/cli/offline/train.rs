//! `fedpipe train`: trains an adapter on this machine.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use chassis::clock::Stopwatch;
use clap::{Args as Arguments, ValueEnum};
use domain::adapter::RankTable;
use domain::job::mezo::{Distribution, Mezo};
use domain::job::spec::Training;
use domain::zeroth::Steps;
use engine::adapter::{Adapter, Export, Factors};
use engine::control::Control;
use engine::data::{self, Balance, Batch, Dataset, Loader, Sampler, SamplerOptions, Seed};
use engine::memory;
use engine::model::{Inspected, Model};
use engine::plain::{self, Place};
use engine::train::{Options, Trainer, ZerothTrainer};
use serde_json::json;

use super::{DataArgs, MemoryArgs, ModelArgs, Targets, Work};
use crate::output;

/// Flags of `fedpipe train`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe train --model model.gguf --data train.jsonl --out adapter --steps 100 --rank 8
  fedpipe train --model model --data train.jsonl --init-adapter start --out adapter --steps 40 \\
    --order file --clip-norm 0 --metrics steps.jsonl
  fedpipe train --model model.gguf --data train.jsonl --out adapter --steps 400 --optimizer mezo --clip 50

The adapter folder loads in Hugging Face PEFT.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Folder for the trained adapter
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Adapter to start from; its shape wins over --rank, --targets and --alpha
    #[arg(long, value_name = "DIR")]
    init_adapter: Option<PathBuf>,
    /// Optimizer steps
    #[arg(long, value_name = "N")]
    steps: u64,
    /// By gradients, or in the memory of inference by forward passes alone
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: Optimizer,
    /// Learning rate [default: 1e-3, with mezo 1e-4]
    #[arg(long, value_name = "X")]
    learning_rate: Option<f32>,
    #[command(flatten)]
    mezo: MezoArgs,
    /// Records of a step
    #[arg(long, value_name = "B", default_value_t = 4)]
    batch: usize,
    /// Order of the records
    #[arg(long, value_enum, default_value = "shuffle")]
    order: Order,
    /// How the learning rate changes
    #[arg(long, value_enum, default_value = "constant")]
    schedule: Schedule,
    /// Largest norm of AdamW's gradient; 0 leaves it alone
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    clip_norm: f32,
    /// AdamW's decoupled weight decay
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    weight_decay: f32,
    /// Rank of the adapter
    #[arg(long, value_name = "R", default_value_t = 8)]
    rank: u16,
    /// Projections that carry it: q,k,v,o,gate,up,down, attention or all-linear
    #[arg(long, value_name = "LIST", default_value = "attention", value_parser = super::targets)]
    targets: Targets,
    /// LoRA's alpha: the scale is alpha / rank
    #[arg(long, value_name = "A", default_value_t = 16.0)]
    alpha: f32,
    /// Seed of the adapter's beginning and of the order
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Compute each block again in the backward pass: less memory, more time
    #[arg(long)]
    checkpoint: bool,
    /// Where to compute; only cpu is fast, and tested
    #[arg(long, value_enum, default_value = "cpu")]
    device: Device,
    /// A line of JSON for each step
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What mezo alone has.
#[derive(Debug, Arguments)]
struct MezoArgs {
    /// mezo: how far the adapter is moved along a direction
    #[arg(long, value_name = "X", default_value_t = 1e-2)]
    perturbation: f64,
    /// mezo: directions of a step, whose estimates are averaged
    #[arg(long, value_name = "P", default_value_t = 1)]
    perturbations: u16,
    /// mezo: what directions are drawn from
    #[arg(long, value_enum, default_value = "gaussian")]
    distribution: Draws,
    /// mezo: a slope beyond this, either way, counts as this; 0 turns it off
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    clip: f64,
}

/// Optimizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Optimizer {
    /// Backpropagation
    Adamw,
    /// Two forward passes for each direction
    Mezo,
}

/// What directions are drawn from.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Draws {
    /// The standard normal distribution
    Gaussian,
    /// One and minus one
    Rademacher,
}

/// Orders of the records.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    /// As they stand in the file
    File,
    /// Shuffled anew in each pass
    Shuffle,
    /// As shuffle, with equal shares of the distinct completions in each step
    Balanced,
}

/// Schedules of the learning rate.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Schedule {
    /// The same in each step
    Constant,
    /// Falling to 0 in a straight line
    Linear,
}

/// Devices.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Device {
    /// The processor, through the engine's own operations
    Cpu,
    /// The first NVIDIA GPU, through candle's plain operations; needs a build with the feature cuda
    Cuda,
}

/// Who trains.
enum Trains<'m> {
    Ours(Box<Trainer<'m>>),
    Plain(Box<plain::Trainer>),
    Zeroth(Box<ZerothTrainer<'m>>),
}

/// What a step found.
struct Step {
    /// Absent if it was not finite, and the step moved nothing.
    loss: Option<f64>,
    tokens: usize,
    labelled_tokens: usize,
    /// The norm of the gradient, or the root mean square of a zeroth-order step's slopes.
    gradient_norm: f64,
}

impl From<engine::train::Step> for Step {
    fn from(step: engine::train::Step) -> Self {
        Self {
            loss: Some(step.loss),
            tokens: step.tokens,
            labelled_tokens: step.labelled_tokens,
            gradient_norm: step.gradient_norm,
        }
    }
}

impl<'m> Trains<'m> {
    fn new(
        model: &'m Model,
        start: &Adapter,
        options: Options,
        device: Device,
    ) -> anyhow::Result<Self> {
        Ok(match device {
            Device::Cpu => Self::Ours(Box::new(Trainer::new(model, start, options)?)),
            Device::Cuda => {
                let made = plain::Trainer::new(model, start, options, Place::Cuda)?;
                Self::Plain(Box::new(made))
            }
        })
    }

    fn step(&mut self, batch: &Batch, rate: f32) -> anyhow::Result<Step> {
        let control = Control::new();
        Ok(match self {
            Self::Ours(trainer) => trainer.step(batch, rate, &control)?.into(),
            Self::Plain(trainer) => trainer.step(batch, rate, &control)?.into(),
            Self::Zeroth(trainer) => {
                let walked = trainer.step(batch, &control)?;
                Step {
                    loss: walked.loss,
                    tokens: walked.tokens,
                    labelled_tokens: walked.labelled_tokens,
                    gradient_norm: walked.slope,
                }
            }
        })
    }

    fn adapter(&self) -> anyhow::Result<Adapter> {
        Ok(match self {
            Self::Ours(trainer) => trainer.adapter()?,
            Self::Plain(trainer) => trainer.adapter()?,
            Self::Zeroth(trainer) => trainer.adapter()?,
        })
    }
}

impl Args {
    /// Trains.
    pub fn run(self) -> anyhow::Result<()> {
        self.check_optimizer()?;
        let dataset = self.data.open()?;
        let inspected = self.model.inspect()?;
        let start = self.start(&inspected)?;
        self.check_memory(&inspected, &start)?;
        let model = self.model.load()?;
        let encoder = self.data.encoder(&model)?;
        let sampler = self.sampler(&dataset)?;
        let loader = Loader::new(&dataset, &encoder, &sampler);
        let options = Options {
            weight_decay: self.weight_decay,
            clip_norm: self.clip_norm,
            checkpoint: self.checkpoint,
            ..Options::default()
        };
        let mut trainer = match self.optimizer {
            Optimizer::Adamw => Trains::new(&model, &start, options, self.device)?,
            Optimizer::Mezo => {
                let made = ZerothTrainer::new(&model, &start, self.steps(), 0)?;
                Trains::Zeroth(Box::new(made))
            }
        };
        drop(start);
        let mut metrics = match &self.metrics {
            Some(path) => Some(
                File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
            ),
            None => None,
        };
        let (whole, mut tokens, mut last, mut skipped) = (Stopwatch::start(), 0, None, 0u64);
        for number in 0..self.steps {
            let watch = Stopwatch::start();
            let loaded = loader.batch(number)?;
            for refused in &loaded.refused {
                output::note(format!("record {}: {}", refused.record, refused.refusal));
            }
            let step = trainer.step(&loaded.batch, self.rate(number))?;
            tokens += step.tokens;
            self.tell(number, &step, watch.seconds(), metrics.as_mut())?;
            skipped += u64::from(step.loss.is_none());
            last = step.loss.or(last);
        }
        let base_model = self.model.model.display().to_string();
        let export = Export {
            base_model: &base_model,
            layers: model.config().layers,
        };
        trainer.adapter()?.save(&self.out, &export)?;
        let (seconds, sha256) = (
            whole.seconds(),
            crate::client::archive::digest(&self.out.join("adapter_model.safetensors"))?,
        );
        if self.json {
            return output::json(&json!({
                "adapter": self.out, "sha256": sha256, "steps": self.steps, "skipped_steps": skipped, "loss": last,
                "tokens_per_second": tokens as f64 / seconds, "seconds": seconds,
                "peak_memory_bytes": chassis::memory::peak_bytes(),
            }));
        }
        output::line(format!("{}: adapter {sha256}", self.out.display()))
    }

    /// What the optimizer does not have.
    fn check_optimizer(&self) -> anyhow::Result<()> {
        if self.optimizer == Optimizer::Adamw {
            return Ok(());
        }
        let plain = matches!(self.device, Device::Cpu) && !self.checkpoint;
        ensure!(
            plain,
            "mezo computes on the cpu and keeps no activations: leave out --device and --checkpoint"
        );
        let constant = matches!(self.schedule, Schedule::Constant) && self.weight_decay == 0.0;
        ensure!(
            constant,
            "mezo has one rate and no decay: leave out --schedule and --weight-decay"
        );
        let MezoArgs {
            perturbation,
            perturbations,
            clip,
            ..
        } = self.mezo;
        let sound = perturbation > 0.0 && perturbation <= 1.0 && clip >= 0.0;
        ensure!(
            sound && perturbations > 0,
            "use a --perturbation above 0, at most 1, a --clip from 0, and at least 1 of --perturbations"
        );
        Ok(())
    }

    /// How zeroth-order steps are made.
    fn steps(&self) -> Steps {
        let mezo = Mezo {
            perturbation: self.mezo.perturbation,
            perturbations: self.mezo.perturbations,
            distribution: match self.mezo.distribution {
                Draws::Gaussian => Distribution::Gaussian,
                Draws::Rademacher => Distribution::Rademacher,
            },
            clip: self.mezo.clip,
            ..Mezo::default()
        };
        let training = Training {
            learning_rate: self.learning_rate().into(),
            mezo,
            ..Training::default()
        };
        Steps::of(&training, self.seed)
    }

    fn learning_rate(&self) -> f32 {
        self.learning_rate.unwrap_or(match self.optimizer {
            Optimizer::Adamw => 1e-3,
            Optimizer::Mezo => 1e-4,
        })
    }

    fn rate(&self, step: u64) -> f32 {
        match self.schedule {
            Schedule::Constant => self.learning_rate(),
            // Invariant: steps are far below 2^24, where f32 is exact.
            Schedule::Linear => {
                self.learning_rate() * (self.steps - step) as f32 / self.steps as f32
            }
        }
    }

    fn check_memory(&self, model: &Inspected, start: &Adapter) -> anyhow::Result<()> {
        if !matches!(self.device, Device::Cpu) {
            return Ok(());
        }
        let targets: BTreeSet<_> = start
            .factors()
            .map(|factors| factors.shape().name.projection())
            .collect();
        let targets: Vec<_> = targets.into_iter().collect();
        let rank = start.factors().map(Factors::rank).max().unwrap_or_default();
        let ranks = RankTable::uniform(&targets, super::layers(&model.config)?, rank);
        let work = Work {
            ranks: &ranks,
            optimizer: match self.optimizer {
                Optimizer::Adamw => memory::Optimizer::AdamW,
                Optimizer::Mezo => memory::Optimizer::Mezo,
            },
            checkpoint: self.checkpoint,
            batch: self.batch,
            sequence: self.data.sequence_length,
            labelled: self.data.sequence_length,
        };
        self.model.check(model, work, self.memory)?;
        Ok(())
    }

    fn start(&self, model: &Inspected) -> anyhow::Result<Adapter> {
        let weights = model.config.weights();
        if let Some(adapter) = super::adapter(self.init_adapter.as_deref(), &weights)? {
            return Ok(adapter);
        }
        let layers = super::layers(&model.config)?;
        let ranks = RankTable::uniform(&self.targets.0, layers, self.rank);
        let scale = self.alpha / f32::from(self.rank.max(1));
        Ok(Adapter::initialize(&weights, &ranks, scale, self.seed)?)
    }

    fn sampler(&self, dataset: &Dataset) -> anyhow::Result<Sampler> {
        let (order, balance) = match self.order {
            Order::File => (data::Order::File, Balance::None),
            Order::Shuffle => (data::Order::Shuffled, Balance::None),
            Order::Balanced => (data::Order::Shuffled, Balance::Label),
        };
        let options = SamplerOptions {
            batch: self.batch,
            order,
            balance,
        };
        let seed = Seed {
            seed: self.seed,
            round: 0,
            worker: "train".to_owned(),
        };
        Ok(Sampler::new(dataset, None, options, &seed)?)
    }

    fn tell(
        &self,
        number: u64,
        step: &Step,
        seconds: f64,
        metrics: Option<&mut File>,
    ) -> anyhow::Result<()> {
        let speed = step.tokens as f64 / seconds;
        if let Some(file) = metrics {
            let line = json!({
                "step": number, "loss": step.loss, "tokens": step.tokens, "labelled_tokens": step.labelled_tokens,
                "gradient_norm": step.gradient_norm, "seconds": seconds, "tokens_per_second": speed,
            });
            writeln!(file, "{line}").context("the metrics cannot be written")?;
        }
        if !self.json {
            output::line(format!(
                "step {}/{}  {}  {speed:.0} tokens/s",
                number + 1,
                self.steps,
                step.loss.map_or_else(
                    || "skipped, its loss is not finite".to_owned(),
                    |loss| format!("loss {loss:.4}")
                )
            ))?;
        }
        Ok(())
    }
}

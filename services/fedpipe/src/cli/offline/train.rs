//! `fedpipe train`: trains an adapter on this machine.

mod batches;
mod held_out;
mod kept;
mod preview;
mod resume;
mod settings;
mod told;
mod whole;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context;
use chassis::clock::Stopwatch;
use clap::builder::ArgPredicate;
use clap::{Args as Arguments, ValueEnum};
use domain::adapter::RankTable;
use engine::adapter::{Adapter, Export, Factors};
use engine::control::Control;
use engine::data::{self, Balance, Batch, Dataset, Loader, Sampler, SamplerOptions, Seed};
use engine::memory;
use engine::model::{Inspected, Model};
use engine::plain::{self, Place};
use engine::train::{Options, Trainer, Walked, ZerothTrainer};
use serde_json::json;

use super::{DataArgs, MemoryArgs, ModelArgs, Parameters, Targets, Work, labels};
use crate::output;
use batches::Batches;
use held_out::Course;
use kept::Kept;
use resume::Resume;
use told::Told;

/// Flags of `fedpipe train`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe train --model model.gguf --data train.jsonl --preview         what is read and what is learned
  fedpipe train --model hf://org/name@revision --data train.jsonl --out adapter --steps 100
  fedpipe train --model model.gguf --data train.jsonl --out adapter --steps 100 --rank 8
  fedpipe train --model model --data train.jsonl --init-adapter start --out adapter --steps 40 \\
    --order file --clip-norm 0 --metrics steps.jsonl
  fedpipe train --model model.gguf --data train.jsonl --out adapter --steps 400 --optimizer mezo --clip 50
  fedpipe train --model model.gguf --data mails.jsonl --out adapter --steps 400 --optimizer mezo --choice ' yes' --choice ' no'
  fedpipe train --model model --data train.jsonl --out trained --steps 400 --optimizer mezo --parameters all
  fedpipe train --model model --data train.jsonl --out adapter --steps 2000 --batch-tokens 1024 \\
    --held-out-share 0.05 --evaluate-every 100 --keep best --patience 3
  fedpipe train --model model --data train.jsonl --out adapter --steps 2000 --batch 4 --accumulate 4 \\
    --schedule cosine --warmup 100 --dropout 0.05 --save-every 50 --resume

The last may be killed and started again: it ends with the same adapter.
The adapter folder loads in Hugging Face PEFT; that of --parameters all is a whole model, for transformers.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten)]
    data: DataArgs,
    /// An answer that the loss is among, as MeZO trains classification: a short word with the blank before it, a single token of the
    /// model's; give two or more [default: the loss is of all words]
    #[arg(long = "choice", value_name = "TEXT", conflicts_with = "labels")]
    choices: Vec<String>,
    /// Show the first N records as the model reads them, tokens with loss within [ and ] or the class of all, and train nothing
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "3")]
    preview: Option<usize>,
    /// Folder for the trained adapter, or with --parameters all for the trained model
    #[arg(
        long,
        value_name = "DIR",
        required = false,
        required_unless_present = "preview",
        default_value_if("preview", ArgPredicate::IsPresent, ".")
    )]
    out: PathBuf,
    /// Adapter to start from; its shape wins over --rank, --targets and --alpha
    #[arg(long, value_name = "DIR")]
    init_adapter: Option<PathBuf>,
    /// Optimizer steps
    #[arg(
        long,
        value_name = "N",
        required = false,
        required_unless_present = "preview",
        default_value_if("preview", ArgPredicate::IsPresent, "1")
    )]
    steps: u64,
    /// By gradients, or in the memory of inference by forward passes alone
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: Optimizer,
    /// Learning rate [default: 1e-3, with mezo 1e-4, with --parameters all 1e-6]
    #[arg(long, value_name = "X")]
    learning_rate: Option<f32>,
    #[command(flatten)]
    mezo: MezoArgs,
    /// Records that are computed together
    #[arg(long, value_name = "B", default_value_t = 4)]
    batch: usize,
    /// In place of --batch: a batch takes records until it would have more tokens than this (packing)
    #[arg(long, value_name = "T", conflicts_with = "batch")]
    batch_tokens: Option<usize>,
    /// Batches of a step, whose gradients are added up: a step of N times as many records in the memory of one batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=65536))]
    accumulate: u64,
    /// How much of the last step's direction sgd keeps
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    momentum: f32,
    /// Order of the records
    #[arg(long, value_enum, default_value = "shuffle")]
    order: Order,
    /// How the learning rate changes after warming up
    #[arg(long, value_enum, default_value = "constant")]
    schedule: Schedule,
    /// Steps in which the learning rate rises to its full height
    #[arg(long, value_name = "N", default_value_t = 0)]
    warmup: u64,
    /// Largest norm of the gradient; 0 leaves it alone
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    clip_norm: f32,
    /// Weight decay: adamw's apart from the gradient, sgd's as part of it
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    weight_decay: f32,
    /// Rank of the adapter
    #[arg(long, value_name = "R", default_value_t = 8)]
    rank: u16,
    /// Projections that carry it: q,k,v,o,gate,up,down (GPT-2: c_attn,c_proj,c_fc), attention or all-linear
    #[arg(long, value_name = "LIST", default_value = "attention", value_parser = super::targets)]
    targets: Targets,
    /// LoRA's alpha: the scale is alpha / rank
    #[arg(long, value_name = "A", default_value_t = 16.0)]
    alpha: f32,
    /// Rank-stabilized LoRA: the scale is alpha / √rank
    #[arg(long)]
    rslora: bool,
    /// Share of the adapter's inputs that each step leaves out (LoRA dropout)
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    dropout: f32,
    /// Seed of the adapter's beginning and of the order
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Compute each block again in the backward pass: less memory, more time
    #[arg(long)]
    checkpoint: bool,
    /// Write a checkpoint, OUT.checkpoint, after every so many steps; 0 writes none. It goes away at the end
    #[arg(long, value_name = "N", default_value_t = 0)]
    save_every: u64,
    /// Go on from OUT.checkpoint, if it is there: the adapter is that of a run that was never interrupted
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    held_out: held_out::HeldOutArgs,
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
    /// mezo: what is trained; with `all` there is no adapter: --rank, --targets, --alpha and --rslora say nothing
    #[arg(long, value_enum, default_value = "adapter")]
    parameters: Parameters,
    /// mezo: the largest model all of whose parameters are trained
    #[arg(long, value_name = "N", default_value_t = 500_000_000)]
    most_parameters: u64,
    /// mezo: how far what is trained is moved along a direction [default: 1e-2, with --parameters all 1e-3]
    #[arg(long, value_name = "X")]
    perturbation: Option<f64>,
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
    /// By gradients, with two moments for each value
    Adamw,
    /// Straight down the gradient, or with --momentum
    Sgd,
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
    /// As shuffle, with equal shares of the distinct labels (64 at most) or completions (8 at most)
    Balanced,
}

/// Schedules of the learning rate.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Schedule {
    /// The same in each step
    Constant,
    /// Falling to 0 in a straight line
    Linear,
    /// Falling to 0 along half a cosine
    Cosine,
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

impl From<Walked> for Step {
    fn from(walked: Walked) -> Self {
        Self {
            loss: walked.loss,
            tokens: walked.tokens,
            labelled_tokens: walked.labelled_tokens,
            gradient_norm: walked.slope,
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

    /// One step over all these batches. The other trainer takes one.
    fn step(&mut self, batches: &[Batch], rate: f32) -> anyhow::Result<Step> {
        let control = Control::new();
        Ok(match (self, batches) {
            (Self::Ours(trainer), batches) => trainer.step_over(batches, rate, &control)?.into(),
            (Self::Plain(trainer), [batch]) => trainer.step(batch, rate, &control)?.into(),
            (Self::Zeroth(trainer), [batch]) => trainer.step(batch, &control)?.into(),
            (Self::Plain(_) | Self::Zeroth(_), _) => anyhow::bail!("it takes one batch a step"),
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
        self.check()?;
        if self.mezo.parameters == Parameters::All && self.preview.is_none() {
            return self.run_whole();
        }
        let dataset = self.data.open()?;
        let inspected = self.model.inspect()?;
        let start = self.start(&inspected)?;
        self.check_memory(&inspected, &start)?;
        let model = self.model.load()?;
        let from = self.init_adapter.as_deref();
        let labels = labels::of(&self.data.labels, (model.config(), None), &dataset, from)?;
        let start = labels::begun(start, &model, &labels, self.seed)?;
        let encoder = self.data.encoder(&model, (&labels, &self.choices))?;
        if let Some(count) = self.preview {
            return self.show(count, &dataset, &encoder);
        }
        let split = self.held_out.split(&dataset)?;
        let selection = split.as_ref().map(|split| split.training.as_slice());
        let sampler = self.sampler(&dataset, selection)?;
        let held_out = split.map(|split| split.held_out);
        let loader = Loader::new(&dataset, &encoder, &sampler);
        let mut trainer = match self.optimizer {
            Optimizer::Adamw | Optimizer::Sgd => {
                Trains::new(&model, &start, self.options(), self.device)?
            }
            Optimizer::Mezo => {
                let made = ZerothTrainer::new(&model, &start, self.walk(), 0)?;
                Trains::Zeroth(Box::new(made))
            }
        };
        let asked = self.asked_of(&start, (&dataset, &model))?;
        drop(start);
        let (every, directions) = (self.save_every, self.mezo.perturbations);
        let kept = Kept::new(&self.out, every, directions, asked.clone());
        let resume = Resume::new(&self.out, every, asked);
        let records = self.held_out.records(held_out, self.data.format)?;
        let mut course = Course::new(&self.held_out, records, &self.out);
        let made = match &mut trainer {
            Trains::Ours(trainer) if self.resume => {
                resume.begin(trainer, &model.weights(), &mut course)?
            }
            Trains::Zeroth(trainer) if self.resume => {
                kept.begin(|scalars, steps| trainer.resume(scalars, steps), &mut course)?
            }
            _ => 0,
        };
        let mut batches = Batches::new(loader, self.batch_tokens, self.accumulate, made)?;
        let mut told = Told::new(self.metrics.as_deref(), (made, self.steps), self.json)?;
        let (whole, mut tokens, mut last, mut skipped) = (Stopwatch::start(), 0, None, 0u64);
        let (with, mut ended) = ((&dataset, &encoder), made);
        for number in made..self.steps {
            if course.is_due(number, self.steps) {
                told.score(course.score(number, (&model, trainer.adapter()?), with)?)?;
            }
            // A run that is gone on with may have lost it before.
            if course.is_out_of_patience() {
                told.note(&format!(
                    "stopped after step {ended}: the held-out loss does not improve any more"
                ));
                break;
            }
            let watch = Stopwatch::start();
            let drawn = batches.step().with_context(|| self.unlearnable())?;
            let step = trainer.step(&drawn, self.rate(number))?;
            ended = number + 1;
            tokens += step.tokens;
            told.step(number, &step, watch.seconds())?;
            skipped += u64::from(step.loss.is_none());
            last = step.loss.or(last);
            if course.is_due(ended, self.steps) {
                told.score(course.score(ended, (&model, trainer.adapter()?), with)?)?;
            }
            match &trainer {
                Trains::Ours(trainer) => resume.step(trainer, course.scores())?,
                Trains::Zeroth(trainer) => {
                    kept.step(ended, || trainer.scalars(), course.scores())?;
                }
                Trains::Plain(_) => {}
            }
        }
        told.done();
        let refused = batches.refused();
        if refused.total() > 0 {
            output::note(format!("not learned, others took their place: {refused}"));
        }
        if course.refused().total() > 0 {
            output::note(format!("held out and not scored: {}", course.refused()));
        }
        let base_model = self.model.model.base_model();
        let export = Export {
            base_model: &base_model,
            layers: model.config().layers,
        };
        let best = course.best(&model.weights())?;
        let adapter = match &best {
            Some((_, adapter)) => adapter.clone(),
            None => trainer.adapter()?,
        };
        adapter.save(&self.out, &export)?;
        labels::keep(&self.out, &labels)?;
        resume.done();
        course.done();
        let (seconds, sha256) = (
            whole.seconds(),
            crate::client::archive::digest(&self.out.join("adapter_model.safetensors"))?,
        );
        if self.json {
            return output::json(&json!({
                "adapter": self.out, "sha256": sha256, "steps": self.steps, "skipped_steps": skipped, "loss": last,
                "tokens_per_second": tokens as f64 / seconds, "seconds": seconds, "ended_after": ended,
                "held_out": course.scores(), "kept": best.as_ref().map(|(scored, _)| scored),
                "refused": refused.counts().collect::<std::collections::BTreeMap<_, _>>(),
                "peak_memory_bytes": chassis::memory::peak_bytes(),
            }));
        }
        let of = best.map_or_else(String::new, |(scored, _)| {
            format!(
                " of step {}, held-out loss {:.4}",
                scored.steps, scored.loss
            )
        });
        output::line(format!("{}: adapter {sha256}{of}", self.out.display()))
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
                Optimizer::Adamw | Optimizer::Sgd => memory::Optimizer::AdamW,
                Optimizer::Mezo => memory::Optimizer::Mezo,
            },
            checkpoint: self.checkpoint,
            batch: self.rows(),
            sequence: self.data.sequence_length,
            labelled: self.data.sequence_length,
            beside: self.beside(model, start),
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
        let ranks = RankTable::uniform(&self.targets.of(&weights), layers, self.rank);
        let rank = f32::from(self.rank.max(1));
        let scale = self.alpha / if self.rslora { rank.sqrt() } else { rank };
        Ok(Adapter::initialize(&weights, &ranks, scale, self.seed)?)
    }

    fn sampler(&self, dataset: &Dataset, selection: Option<&[usize]>) -> anyhow::Result<Sampler> {
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
        Ok(Sampler::new(dataset, selection, options, &seed)?)
    }
}

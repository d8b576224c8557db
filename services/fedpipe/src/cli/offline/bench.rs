//! `fedpipe bench`: measured speed and memory of this machine.

use std::time::Duration;

use anyhow::ensure;
use chassis::clock::Stopwatch;
use clap::{Args as Arguments, Subcommand, ValueEnum};
use domain::adapter::RankTable;
use engine::bench::{self, Measured, Workload};
use engine::memory::{self, Estimate};
use engine::model::Model;
use serde_json::{Value, json};

use super::{
    MemoryArgs, ModelArgs, Parameters, Targets, Work, aggregate, agreement, packing, writing,
};
use crate::cli::bench_plan;
use crate::output;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Training steps of an adapter
    Train(TrainArgs),
    /// Forward passes with the loss, without an adapter
    Forward(ForwardArgs),
    /// Whether zeroth-order slopes in a faster arithmetic mean what they mean in f32
    ZoAgreement(agreement::Args),
    /// What filling batches by tokens gains over other ways of batching the same records
    Packing(packing::Args),
    /// Tokens per second of generation: of the base alone, with an adapter, and merged
    Generate(writing::Args),
    /// Merges of many updates by every rule: error, speed, memory
    Aggregate(aggregate::Args),
    /// The planner, for fleets of any size
    Plan(bench_plan::Args),
}

/// Flags of `fedpipe bench train`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe bench train --model model.gguf --rank 16 --targets all-linear --batch 4 --seq 256 --steps 5 --threads 2 --json
  fedpipe bench train --model model --base f32 --optimizer mezo --json
  fedpipe bench train --model model --optimizer mezo --parameters all

Tokens per second are of the median step; a zeroth-order step counts its tokens once. peak_mib is this
process's resident memory at its highest. The roofline is a plain f32 matrix product of the model's
shapes, measured after the steps; achieved counts only the operations that the result needs.")]
pub struct TrainArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    work: WorkArgs,
    /// Rank of the adapter
    #[arg(long, value_name = "R", default_value_t = 16)]
    rank: u16,
    /// Projections that carry it: q,k,v,o,gate,up,down (GPT-2: c_attn,c_proj,c_fc), attention or all-linear
    #[arg(long, value_name = "LIST", default_value = "all-linear", value_parser = super::targets)]
    targets: Targets,
    /// How to train
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: Optimizer,
    /// mezo: what is trained; with `all` there is no adapter, and --rank and --targets say nothing
    #[arg(long, value_enum, default_value = "adapter")]
    parameters: Parameters,
    /// Compute each block again in the backward pass: less memory, more time
    #[arg(long)]
    checkpoint: bool,
}

/// Flags of `fedpipe bench forward`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe bench forward --model model.gguf --batch 4 --seq 256 --json

Figures are those of `fedpipe bench train`.")]
pub struct ForwardArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    work: WorkArgs,
}

/// The size of a step, and how often it is measured.
#[derive(Debug, Arguments)]
pub struct WorkArgs {
    /// Rows of a step
    #[arg(long, value_name = "B", default_value_t = 4)]
    batch: usize,
    /// Tokens of a row
    #[arg(long, value_name = "L", default_value_t = 256)]
    seq: usize,
    /// Labelled tokens at the end of each row; otherwise all
    #[arg(long, value_name = "N")]
    labelled: Option<usize>,
    /// Steps that are measured, after one that is not
    #[arg(long, value_name = "N", default_value_t = 3)]
    steps: usize,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Optimizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Optimizer {
    /// Gradients and AdamW
    Adamw,
    /// Two forward passes along a random direction
    Mezo,
}

impl Command {
    /// Measures.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Train(args) => args.run(),
            Self::Forward(args) => args.run(),
            Self::ZoAgreement(args) => args.run(),
            Self::Packing(args) => args.run(),
            Self::Generate(args) => args.run(),
            Self::Aggregate(args) => args.run(),
            Self::Plan(args) => args.run(),
        }
    }
}

impl TrainArgs {
    fn run(self) -> anyhow::Result<()> {
        if self.parameters == Parameters::All {
            return self.run_whole();
        }
        let inspected = self.model.inspect()?;
        let layers = super::layers(&inspected.config)?;
        let targets = self.targets.of(&inspected.config.weights());
        let ranks = RankTable::uniform(&targets, layers, self.rank);
        let work = Work {
            optimizer: match self.optimizer {
                Optimizer::Adamw => memory::Optimizer::AdamW,
                Optimizer::Mezo => memory::Optimizer::Mezo,
            },
            checkpoint: self.checkpoint,
            ..self.work.work(&ranks)
        };
        let predicted = self.model.check(&inspected, work, self.work.memory)?;
        let model = self.model.load()?;
        let workload = Workload {
            targets: &targets,
            rank: self.rank,
            checkpoint: self.checkpoint,
            ..self.work.workload()
        };
        let clock = Clock::start();
        // As a worker does when it begins a round.
        let (now, begun) = (|| clock.now(), chassis::memory::give_back_small_blocks);
        let measured = match self.optimizer {
            Optimizer::Adamw => bench::first_order(&model, &workload, now, begun)?,
            Optimizer::Mezo => bench::zeroth_order(&model, &workload, now, begun)?,
        };
        let found = Found {
            model: &model,
            predicted,
            measured,
        };
        let about = json!({
            "what": "train",
            "optimizer": name(self.optimizer),
            "rank": self.rank,
            "targets": targets,
            "checkpoint": self.checkpoint,
        });
        tell(about, &self.model, &self.work, &found)
    }
}

impl TrainArgs {
    /// All parameters.
    fn run_whole(mut self) -> anyhow::Result<()> {
        ensure!(
            self.optimizer == Optimizer::Mezo && !self.checkpoint,
            "--parameters all is mezo's: gradients are of adapters alone, and no activations are kept"
        );
        self.model.hold_for_training()?;
        let (inspected, none) = (self.model.inspect()?, RankTable::default());
        let work = Work {
            beside: memory::whole(&inspected.config),
            ..self.work.work(&none)
        };
        let mut predicted = self.model.check(&inspected, work, self.work.memory)?;
        predicted.workspace += work.beside;
        let clock = Clock::start();
        let (model, workload) = (self.model.load()?, self.work.workload());
        let (measured, model) = bench::zeroth_order_whole(model, &workload, || clock.now())?;
        let found = Found {
            model: &model,
            predicted,
            measured,
        };
        let about = json!({
            "what": "train",
            "optimizer": name(self.optimizer),
            "parameters": name(self.parameters),
            "parameters_trained": Model::parameters_of(model.config()),
        });
        tell(about, &self.model, &self.work, &found)
    }
}

impl ForwardArgs {
    fn run(self) -> anyhow::Result<()> {
        let (inspected, none) = (self.model.inspect()?, RankTable::default());
        let work = self.work.work(&none);
        let predicted = self.model.check(&inspected, work, self.work.memory)?;
        let model = self.model.load()?;
        chassis::memory::give_back_small_blocks();
        let clock = Clock::start();
        let measured = bench::forward(&model, &self.work.workload(), || clock.now())?;
        let found = Found {
            model: &model,
            predicted,
            measured,
        };
        let about = json!({ "what": "forward" });
        tell(about, &self.model, &self.work, &found)
    }
}

impl WorkArgs {
    /// Inference alone, for a prediction of its memory.
    fn work<'a>(&self, ranks: &'a RankTable) -> Work<'a> {
        Work {
            ranks,
            optimizer: memory::Optimizer::None,
            checkpoint: false,
            batch: self.batch,
            sequence: self.seq,
            labelled: self.labelled.unwrap_or(self.seq),
            beside: 0,
        }
    }

    /// The work without an adapter.
    fn workload(&self) -> Workload<'static> {
        Workload {
            targets: &[],
            rank: 0,
            batch: self.batch,
            sequence: self.seq,
            labelled: self.labelled.unwrap_or(self.seq),
            steps: self.steps,
            checkpoint: false,
        }
    }
}

struct Clock(Stopwatch);

impl Clock {
    fn start() -> Self {
        Self(Stopwatch::start())
    }

    fn now(&self) -> Duration {
        Duration::from_secs_f64(self.0.seconds())
    }
}

/// The name of a value on the command line.
fn name(value: impl ValueEnum) -> String {
    let named = value.to_possible_value();
    named.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// What is known before the roofline is.
struct Found<'a> {
    model: &'a Model,
    predicted: Estimate,
    measured: Measured,
}

/// Measures the roofline and prints everything.
fn tell(
    mut about: Value,
    how: &ModelArgs,
    work: &WorkArgs,
    found: &Found<'_>,
) -> anyhow::Result<()> {
    let Found {
        model,
        predicted,
        measured,
    } = found;
    let clock = Clock::start();
    let roofline = bench::roofline(model, work.batch * work.seq, || clock.now());
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let peak_mib = measured.peak_bytes.map(mib);
    let (achieved, fraction) = (
        measured.flops_per_second,
        measured.flops_per_second / roofline,
    );
    if !work.json {
        return output::line(format!(
            "{:.1} tokens/s, {:.3} s a step, {} MiB at most, loss {:.4}; {:.0} Gflop/s, {:.2} of the roofline",
            measured.tokens_per_second,
            measured.step.as_secs_f64(),
            peak_mib.map_or_else(|| "?".to_owned(), |peak| format!("{peak:.0}")),
            measured.loss,
            achieved / 1e9,
            fraction,
        ));
    }
    let figures = json!({
        "tokens_per_second": measured.tokens_per_second,
        "step_seconds": measured.step.as_secs_f64(),
        "peak_mib": peak_mib,
        "predicted_mib": mib(predicted.total()),
        "predicted": {
            "base_mib": mib(predicted.base),
            "adapter_mib": mib(predicted.adapter),
            "activations_mib": mib(predicted.activations),
            "workspace_mib": mib(predicted.workspace),
            "process_mib": mib(predicted.process),
        },
        "loss": measured.loss,
        "achieved_gflops": achieved / 1e9,
        "roofline_gflops": roofline / 1e9,
        "fraction_of_roofline": fraction,
        "base": name(how.base),
        "compute": name(how.compute),
        "kernel": model.kernel().to_string(),
        "base_bytes": model.base_bytes(),
        "threads": model.threads().count(),
        "batch": work.batch,
        "sequence_length": work.seq,
        "steps": work.steps,
    });
    if let (Some(about), Value::Object(figures)) = (about.as_object_mut(), figures) {
        about.extend(figures);
    }
    output::json(&about)
}

//! `fedpipe bench train|forward`: measured speed and memory of this machine.

use std::time::Duration;

use chassis::clock::Stopwatch;
use clap::{Args as Arguments, Subcommand};
use engine::bench::{Measured, Workload, forward, train_step};
use engine::train::Options;
use serde_json::json;

use super::{ModelArgs, Targets};
use crate::output;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Training steps of an adapter
    Train(Args),
    /// Forward passes with the loss, without an adapter
    Forward(Args),
}

/// Flags of `fedpipe bench`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe bench train --model model.gguf --rank 16 --targets all-linear --batch 4 --seq 256 --steps 5 --threads 2 --json
  fedpipe bench forward --model model.gguf --batch 4 --seq 256 --json

Tokens per second are of the median step; peak_mib is this process's resident memory at its highest.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Rank of the adapter
    #[arg(long, value_name = "R", default_value_t = 16)]
    rank: u16,
    /// Projections that carry it: q,k,v,o,gate,up,down, attention or all-linear
    #[arg(long, value_name = "LIST", default_value = "all-linear", value_parser = super::targets)]
    targets: Targets,
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
    /// Compute each block again in the backward pass
    #[arg(long)]
    checkpoint: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    /// Measures.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Train(args) => args.run(true),
            Self::Forward(args) => args.run(false),
        }
    }
}

impl Args {
    fn run(self, trains: bool) -> anyhow::Result<()> {
        let model = self.model.load()?;
        let workload = Workload {
            targets: &self.targets.0,
            rank: self.rank,
            batch: self.batch,
            sequence: self.seq,
            labelled: self.labelled.unwrap_or(self.seq),
            steps: self.steps,
            options: Options {
                checkpoint: self.checkpoint,
                ..Options::default()
            },
        };
        let watch = Stopwatch::start();
        let now = || Duration::from_secs_f64(watch.seconds());
        let measured: Measured = if trains {
            train_step(&model, &workload, now)?
        } else {
            forward(&model, &workload, now)?
        };
        let peak_mib = measured.peak_bytes.map(|bytes| bytes as f64 / 1_048_576.0);
        if self.json {
            return output::json(&json!({
                "what": if trains { "train" } else { "forward" },
                "tokens_per_second": measured.tokens_per_second,
                "step_seconds": measured.step.as_secs_f64(),
                "peak_mib": peak_mib,
                "loss": measured.loss,
                "batch": self.batch,
                "sequence_length": self.seq,
                "threads": model.threads().count(),
                "base_bytes": model.base_bytes(),
            }));
        }
        output::line(format!(
            "{:.1} tokens/s, {:.3} s a step, {} MiB at most, loss {:.4}",
            measured.tokens_per_second,
            measured.step.as_secs_f64(),
            peak_mib.map_or_else(|| "?".to_owned(), |peak| format!("{peak:.0}")),
            measured.loss
        ))
    }
}

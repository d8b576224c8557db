//! `fedpipe bench zo-agreement`: whether a faster arithmetic may stand in for f32 where steps are zeroth-order.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args as Arguments;
use domain::adapter::RankTable;
use engine::adapter::Adapter;
use engine::bench::{self, Workload};
use engine::data::{
    self, Balance, Batch, Dataset, EncodeOptions, Encoder, Format, Loader, Sampler, SamplerOptions,
    Seed,
};
use engine::memory::Optimizer;
use engine::model::Model;
use engine::train::Gate;
use serde_json::json;

use super::{ComputeName, MemoryArgs, ModelArgs, Targets, Work};
use crate::output;

/// Batches that the pairs take in turn.
const BATCHES: usize = 16;

/// Flags of `fedpipe bench zo-agreement`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe bench zo-agreement --model model.gguf --compute bf16 --data train.jsonl
  fedpipe bench zo-agreement --model model --compute int8 --perturbation 1e-3 --labelled 32 --json

A zeroth-order step goes by a small difference of two losses, which rounding may drown. For 64 pairs of seed and batch
this compares that slope in --compute with the one in f32, on a fresh adapter. The arithmetic passes if the signs agree
in at least 95 % and the differences have a root mean square of at most 10 % of the slopes'. Without --data the records
are made up; a job's own tell more. A step of the comparison takes four forward passes.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Records to look at: JSONL of text, prompt/completion, messages or text/label; or plain text
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// How far the adapter is moved along a direction: the job's training.mezo.perturbation
    #[arg(long, value_name = "X", default_value_t = 1e-2)]
    perturbation: f64,
    /// Records of a batch
    #[arg(long, value_name = "B", default_value_t = 2)]
    batch: usize,
    /// Tokens of a record at most
    #[arg(long, value_name = "L", default_value_t = 128)]
    seq: usize,
    /// Labelled tokens at the end of each made-up record; otherwise all. Records of --data are labelled as they are
    #[arg(long, value_name = "N", conflicts_with = "data")]
    labelled: Option<usize>,
    /// Rank of the adapter
    #[arg(long, value_name = "R", default_value_t = 16)]
    rank: u16,
    /// Projections that carry it: q,k,v,o,gate,up,down (GPT-2: c_attn,c_proj,c_fc), attention or all-linear
    #[arg(long, value_name = "LIST", default_value = "all-linear", value_parser = super::targets)]
    targets: Targets,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Compares.
    pub fn run(self) -> anyhow::Result<()> {
        let mu = self.perturbation;
        ensure!(
            mu > 0.0 && mu <= 1.0,
            "use a --perturbation above 0, at most 1"
        );
        ensure!(
            self.batch > 0 && self.seq > 1,
            "use a --batch from 1 and a --seq from 2"
        );
        ensure!(
            (1..=self.seq).contains(&self.labelled()),
            "use a --labelled from 1, at most --seq"
        );
        let inspected = self.model.inspect()?;
        let targets = self.targets.of(&inspected.config.weights());
        let ranks = RankTable::uniform(&targets, super::layers(&inspected.config)?, self.rank);
        let work = Work {
            ranks: &ranks,
            optimizer: Optimizer::Mezo,
            checkpoint: false,
            batch: self.batch,
            sequence: self.seq,
            labelled: self.labelled(),
            beside: 0,
        };
        self.model.check(&inspected, work, self.memory)?;
        let exact = self.model.load_for(ComputeName::F32)?;
        let batches = self.batches(&exact)?;
        let adapter = Adapter::initialize(&exact.weights(), &ranks, 2.0, 0)?;
        let kernel = exact.kernel().to_string();
        let slopes = bench::slopes(&exact, &adapter, mu, &batches)?;
        // One model in memory at a time.
        drop(exact);
        let fast = self.model.load()?;
        let gate = bench::agreement(&slopes, &bench::slopes(&fast, &adapter, mu, &batches)?);
        self.tell(&gate, &kernel, &fast)
    }

    /// Labelled tokens of a record, at most.
    fn labelled(&self) -> usize {
        self.labelled.unwrap_or(self.seq)
    }

    fn tell(&self, gate: &Gate, exact: &str, fast: &Model) -> anyhow::Result<()> {
        let (signs, difference) = (gate.signs(), gate.difference());
        let kernel = fast.kernel().to_string();
        if self.json {
            return output::json(&json!({
                "what": "zo-agreement", "passes": gate.passes(), "pairs": Gate::PAIRS,
                "signs": signs, "least_signs": Gate::SIGNS,
                "difference": difference.is_finite().then_some(difference), "most_difference": Gate::DIFFERENCE,
                "perturbation": self.perturbation, "kernel": kernel, "exact_kernel": exact,
                "base_bytes": fast.base_bytes(), "rank": self.rank,
                "targets": self.targets.of(&fast.weights()),
                "batch": self.batch, "sequence_length": self.seq, "data": self.data,
                "labelled": self.data.is_none().then(|| self.labelled()),
            }));
        }
        let verdict = if gate.passes() {
            "passes"
        } else {
            "does not pass"
        };
        output::line(format!(
            "{kernel} {verdict}: of {} slopes {:.1} % have the sign that they have in {exact} (at least {:.0} %), off by {:.1} % (at most {:.0} %)",
            Gate::PAIRS,
            100.0 * signs,
            100.0 * Gate::SIGNS,
            100.0 * difference,
            100.0 * Gate::DIFFERENCE,
        ))
    }

    /// What the slopes are taken on.
    fn batches(&self, model: &Model) -> anyhow::Result<Vec<Batch>> {
        let Some(path) = &self.data else {
            let workload = Workload {
                targets: &self.targets.0,
                rank: self.rank,
                batch: self.batch,
                sequence: self.seq,
                labelled: self.labelled(),
                steps: 0,
                checkpoint: false,
            };
            return Ok(workload.batches(model, BATCHES));
        };
        let dataset = Dataset::open(path, Format::Auto)?;
        let encoder = Encoder::new(model.tokenizer().clone(), EncodeOptions::new(self.seq))?;
        let options = SamplerOptions {
            batch: self.batch,
            order: data::Order::File,
            balance: Balance::None,
        };
        let seed = Seed {
            seed: 0,
            round: 0,
            worker: String::new(),
        };
        let sampler = Sampler::new(&dataset, None, options, &seed)?;
        let loader = Loader::new(&dataset, &encoder, &sampler);
        let mut batches = Vec::new();
        for number in 0..BATCHES as u64 {
            batches.push(loader.batch(number)?.batch);
        }
        Ok(batches)
    }
}

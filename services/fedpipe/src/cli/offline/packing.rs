//! `fedpipe bench packing`: what filling batches by tokens gains over other ways of batching the same records.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use chassis::clock::Stopwatch;
use clap::Args as Arguments;
use domain::adapter::RankTable;
use engine::adapter::Adapter;
use engine::bench::{self, Batched, Batching};
use engine::data::{Dataset, EncodeOptions, Encoder, Format, Row};
use engine::memory::Optimizer;
use engine::model::Model;
use serde_json::json;

use super::{MemoryArgs, ModelArgs, Targets, Work};
use crate::output;

/// Losses of the same records may differ by so much: the order of sums, nothing else.
const LOSS_TOLERANCE: f64 = 1e-4;

/// Flags of `fedpipe bench packing`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe bench packing --model model.gguf --batch-tokens 1024 --seq 512 --records 64 --json
  fedpipe bench packing --model model.gguf --data train.jsonl --threads 2

The same records, with the same loss, four times: each alone; as many to a batch as fill the budget at full length,
padded to the batch's longest; as many without padding; and packed: as many as fit the budget. A step is over all
records, at rate 0; the ways are measured in turn and the median is told. Without --data the records are made up, most
of them short. Tokens per second count the records' own tokens, never padding.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Records to batch: JSONL of text, prompt/completion, messages or text/label; or plain text
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Records, from the beginning of the file
    #[arg(long, value_name = "N", default_value_t = 64)]
    records: usize,
    /// Tokens of a packed batch at most
    #[arg(long, value_name = "T", default_value_t = 1024)]
    batch_tokens: usize,
    /// Tokens of a record at most
    #[arg(long, value_name = "L", default_value_t = 512)]
    seq: usize,
    /// Rank of the adapter
    #[arg(long, value_name = "R", default_value_t = 16)]
    rank: u16,
    /// Projections that carry it: q,k,v,o,gate,up,down (GPT-2: c_attn,c_proj,c_fc), attention or all-linear
    #[arg(long, value_name = "LIST", default_value = "all-linear", value_parser = super::targets)]
    targets: Targets,
    /// Times that each way is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeats: usize,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Measures.
    pub fn run(self) -> anyhow::Result<()> {
        ensure!(
            self.seq > 1 && self.batch_tokens >= self.seq && self.records > 0,
            "use a --seq from 2, --batch-tokens from that, and --records from 1"
        );
        let inspected = self.model.inspect()?;
        let layers = super::layers(&inspected.config)?;
        let targets = self.targets.of(&inspected.config.weights());
        let ranks = RankTable::uniform(&targets, layers, self.rank);
        let work = Work {
            ranks: &ranks,
            optimizer: Optimizer::AdamW,
            checkpoint: false,
            batch: self.batch_tokens.div_ceil(self.seq),
            sequence: self.seq,
            labelled: self.seq,
            // The sum of the batches' gradients.
            beside: 4 * ranks.parameters(&inspected.config.weights()),
        };
        self.model.check(&inspected, work, self.memory)?;
        let model = self.model.load()?;
        let rows = self.rows(&model)?;
        let adapter = Adapter::initialize(&model.weights(), &ranks, 2.0, 0)?;
        let clock = Stopwatch::start();
        let now = || Duration::from_secs_f64(clock.seconds());
        let asked = (rows.as_slice(), self.batch_tokens, self.seq);
        let found = bench::packing(&model, &adapter, asked, self.repeats, now)?;
        self.tell(&model, &rows, &found)
    }

    fn rows(&self, model: &Model) -> anyhow::Result<Vec<Row>> {
        let Some(path) = &self.data else {
            return Ok(bench::mixed_rows(model, self.records, self.seq));
        };
        let dataset = Dataset::open(path, Format::Auto)?;
        let encoder = Encoder::new(model.tokenizer().clone(), EncodeOptions::new(self.seq))?;
        let mut rows = Vec::new();
        for number in 0..dataset.len() {
            if rows.len() >= self.records {
                break;
            }
            match encoder.row(number, &dataset.record(number)?) {
                Ok(row) => rows.push(row),
                Err(refusal) if refusal.is_of_this_record() => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        ensure!(!rows.is_empty(), "no record can be learned");
        Ok(rows)
    }

    fn tell(&self, model: &Model, rows: &[Row], found: &[Batched]) -> anyhow::Result<()> {
        let lengths = rows.iter().map(|row| row.tokens.len());
        let (tokens, longest) = (lengths.clone().sum::<usize>(), lengths.max().unwrap_or(0));
        let packed = found.iter().find(|one| one.batching == Batching::Packed);
        let packed = packed.map_or(f64::NAN, |one| one.step.as_secs_f64());
        let first = found.first().map_or(f64::NAN, |one| one.loss);
        let apart = found.iter().map(|one| (one.loss - first).abs());
        let apart = apart.fold(0.0, f64::max);
        let seconds = |one: &Batched| one.step.as_secs_f64();
        if self.json {
            let way = |one: &Batched| {
                let figures = json!({
                    "batches": one.batches, "computed_tokens": one.computed_tokens, "seconds": seconds(one),
                    "tokens_per_second": tokens as f64 / seconds(one), "loss": one.loss,
                    "packed_is_faster_by": seconds(one) / packed,
                });
                (one.batching.name().to_owned(), figures)
            };
            let ways: serde_json::Map<_, _> = found.iter().map(way).collect();
            output::json(&json!({
                "what": "packing", "records": rows.len(), "tokens": tokens, "longest": longest,
                "batch_tokens": self.batch_tokens, "sequence_length": self.seq, "rank": self.rank,
                "threads": model.threads().count(), "kernel": model.kernel().to_string(),
                "losses_apart": apart, "ways": ways,
            }))?;
        } else {
            output::line(format!(
                "{} records of {tokens} tokens, the longest of {longest}; batches of at most {} tokens",
                rows.len(),
                self.batch_tokens
            ))?;
            for one in found {
                output::line(format!(
                    "{:8} {:4} batches, {:6} tokens computed, {:.3} s, {:.0} tokens/s; packed is faster by {:.2}",
                    one.batching.name(),
                    one.batches,
                    one.computed_tokens,
                    seconds(one),
                    tokens as f64 / seconds(one),
                    seconds(one) / packed,
                ))?;
            }
        }
        ensure!(
            apart <= LOSS_TOLERANCE,
            "the ways' losses are {apart} apart, more than {LOSS_TOLERANCE}"
        );
        Ok(())
    }
}

//! `fedpipe bench generate`: tokens per second of a model alone, with an adapter beside it, and with the adapter merged into it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use chassis::clock::Stopwatch;
use clap::Args as Arguments;
use domain::adapter::RankTable;
use engine::adapter::{Adapter, Export, Factors};
use engine::bench::{self, Workload, Written};
use engine::control::Control;
use engine::export::{self, Format, Precision};
use engine::generate::Generator;
use engine::memory::Optimizer;
use engine::model::{Inspected, Model};
use serde_json::json;

use super::{MemoryArgs, ModelArgs, Targets, Work};
use crate::output;

/// In the order of their measuring.
const WAYS: [&str; 3] = ["base", "adapter", "merged"];

/// Flags of `fedpipe bench generate`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe bench generate --model model.gguf --base bf16 --prompt-tokens 64 --tokens 64 --threads 2 --json
  fedpipe bench generate --model model --adapter adapter --base f32

The same prompt is continued by the likeliest tokens in three ways, in turn: by the base alone, with the adapter beside it, and by
the model that `fedpipe export` makes of both (in a temporary folder, as it came: gguf of gguf, merged of a folder). Figures
are of the median; the time of a token is without the prompt's. A merged model is as fast as its base where both are held
in the same precision: give a --base other than source for a file of integers, for what an export changes has none.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Adapter folder; otherwise one is made up
    #[arg(long, value_name = "DIR", conflicts_with_all = ["rank", "targets"])]
    adapter: Option<PathBuf>,
    /// Rank of the adapter that is made up
    #[arg(long, value_name = "R", default_value_t = 16)]
    rank: u16,
    /// Projections that carry it: q,k,v,o,gate,up,down (GPT-2: c_attn,c_proj,c_fc), attention or all-linear
    #[arg(long, value_name = "LIST", default_value = "all-linear", value_parser = super::targets)]
    targets: Targets,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 64)]
    prompt_tokens: usize,
    /// Tokens that are written
    #[arg(long, value_name = "N", default_value_t = 64)]
    tokens: usize,
    /// Times that each way is measured
    #[arg(long, value_name = "N", default_value_t = 5)]
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
        let inspected = self.model.inspect()?;
        let config = &inspected.config;
        ensure!(
            !config.architecture.is_encoder(),
            "an encoder classifies and writes nothing: give a decoder"
        );
        let whole = self.prompt_tokens.saturating_add(self.tokens);
        ensure!(
            self.prompt_tokens > 0 && self.tokens > 1 && whole <= config.context,
            "use --prompt-tokens from 1 and --tokens from 2, together at most the model's context of {}",
            config.context
        );
        let adapter = self.adapter(&inspected)?;
        self.fits(&inspected, &adapter, whole)?;
        let folder = tempfile::tempdir().context("no temporary folder can be made")?;
        let merged = self.merged(&inspected, &adapter, folder.path())?;
        let model = self.model.load()?;
        let workload = Workload {
            targets: &[],
            rank: 0,
            batch: 1,
            sequence: self.prompt_tokens,
            labelled: 0,
            steps: 0,
            checkpoint: false,
        };
        let batches = workload.batches(&model, 1);
        let row = batches.first().and_then(|batch| batch.rows.first());
        let prompt = row.map_or(&[][..], |row| row.tokens.as_slice());
        let mut generators = [
            Generator::new(&model, None)?,
            Generator::new(&model, Some(&adapter))?,
            Generator::new(&merged, None)?,
        ];
        let clock = Stopwatch::start();
        let now = || Duration::from_secs_f64(clock.seconds());
        let found = bench::writing(&mut generators, (prompt, self.tokens), self.repeats, now)?;
        self.tell(&model, &adapter, &found)
    }

    /// The adapter: the one that was named, or one of which every factor changes something.
    fn adapter(&self, model: &Inspected) -> anyhow::Result<Adapter> {
        let weights = model.config.weights();
        if let Some(own) = super::adapter(self.adapter.as_deref(), &weights)? {
            return Ok(own);
        }
        let layers = super::layers(&model.config)?;
        let ranks = RankTable::uniform(&self.targets.of(&weights), layers, self.rank);
        let fresh = Adapter::initialize(&weights, &ranks, 2.0, 0)?;
        let wave = |place: usize| 1e-3 * (0.37 * place as f32).sin();
        let factors = fresh.factors().map(|own| {
            let b = (0..own.b().len()).map(wave).collect();
            Factors::new(own.shape(), own.rank(), own.a().to_vec(), b)
        });
        let factors = factors.collect::<Result<Vec<_>, _>>()?;
        Ok(Adapter::new(fresh.scale(), factors)?)
    }

    /// Refuses what would not fit: two models are held.
    fn fits(&self, model: &Inspected, adapter: &Adapter, tokens: usize) -> anyhow::Result<()> {
        let ranks = adapter.factors().map(|own| (own.shape().name, own.rank()));
        let ranks: RankTable = ranks.collect();
        let work = Work {
            ranks: &ranks,
            optimizer: Optimizer::None,
            checkpoint: false,
            batch: 1,
            sequence: tokens,
            labelled: 1,
            beside: 0,
        };
        let alone = self.model.check(model, work, self.memory)?;
        let both = Work {
            beside: alone.base,
            ..work
        };
        self.model.check(model, both, self.memory).map(drop)
    }

    /// The model with the adapter in its weights, as an export leaves it, held as the base is.
    fn merged(&self, model: &Inspected, adapter: &Adapter, place: &Path) -> anyhow::Result<Model> {
        let from = self.model.model.path()?;
        let (own, out) = (place.join("adapter"), place.join("merged"));
        let about = Export {
            base_model: "base",
            layers: model.config.layers,
        };
        adapter.save(&own, &about)?;
        let of_folder = from.join("config.json").is_file();
        let request = export::Request {
            adapter: &own,
            model: from,
            format: if of_folder {
                Format::Merged
            } else {
                Format::Gguf
            },
            precision: Precision::Source,
            output: &out,
            replace: false,
            name: "merged",
            labels: &[],
            threads: self.model.threads(),
        };
        export::export(request, &Control::new()).context("the merged model cannot be made")?;
        let merged = ModelArgs {
            model: out.display().to_string().parse()?,
            base: self.model.base,
            compute: self.model.compute,
            threads: self.model.threads,
            quantized_cache: Some("none".into()),
        };
        merged.load()
    }

    fn tell(&self, model: &Model, adapter: &Adapter, found: &[Written]) -> anyhow::Result<()> {
        let seconds = |one: &Written| one.token.as_secs_f64();
        let base = found.first().map_or(f64::NAN, seconds);
        let mut others = found.iter().skip(1).map(|one| one.tokens.as_slice());
        let (beside, merged) = (others.next(), others.next());
        let pairs = beside
            .unwrap_or_default()
            .iter()
            .zip(merged.unwrap_or_default());
        let same = pairs.take_while(|(one, other)| one == other).count();
        let ways = || WAYS.iter().zip(found);
        if self.json {
            let way = |(name, one): (&&str, &Written)| {
                let figures = json!({
                    "tokens": one.tokens.len(), "prompt_seconds": one.prompt.as_secs_f64(), "token_seconds": seconds(one),
                    "tokens_per_second": 1.0 / seconds(one), "times_the_base": seconds(one) / base,
                });
                ((*name).to_owned(), figures)
            };
            let all: serde_json::Map<_, _> = ways().map(way).collect();
            return output::json(&json!({
                "what": "generate", "prompt_tokens": self.prompt_tokens, "repeats": self.repeats,
                "adapter_parameters": adapter.parameters(), "base_bytes": model.base_bytes(),
                "threads": model.threads().count(), "kernel": model.kernel().to_string(),
                "same_tokens": same, "ways": all,
            }));
        }
        for (name, one) in ways() {
            output::line(format!(
                "{name:8} {:.1} tokens/s, {:.2} ms a token, {:.2} of the base's; {:.0} ms for the prompt",
                1.0 / seconds(one),
                1000.0 * seconds(one),
                seconds(one) / base,
                1000.0 * one.prompt.as_secs_f64(),
            ))?;
        }
        output::line(format!(
            "the first {same} tokens of the merged model are those of the base with its adapter"
        ))
    }
}

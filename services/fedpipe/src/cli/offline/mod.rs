//! Commands that use the engine on this machine, without services.

pub mod aggregate;
pub mod agreement;
pub mod bench;
pub mod eval;
pub mod export;
pub mod generate;
pub mod labels;
mod made;
mod packing;
mod prompt;
pub mod quantized;
pub mod train;
mod writing;

use std::collections::BTreeSet;
use std::env;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{Args as Arguments, ValueEnum};
use domain::adapter::{Projection, RankTable, WeightShape};
use engine::data::{Dataset, EncodeOptions, Encoder, Format};
use engine::kernel::{Compute, Kernel};
use engine::memory::{Demand, Estimate, Optimizer};
use engine::model::{Base, Config, Inspected, LoadOptions, Model};

use crate::cli::source::Source;
use crate::output;

/// The model, and how it is held.
#[derive(Debug, Arguments)]
pub struct ModelArgs {
    /// GGUF file, Hugging Face folder, or hf://org/name[@revision][/file.gguf] of the Hub
    #[arg(long, value_name = "DIR|FILE|hf://…")]
    pub model: Source,
    /// Precision of the frozen base
    #[arg(long, value_name = "BASE", default_value = "source")]
    pub base: BaseName,
    /// Arithmetic of the products with the frozen base
    #[arg(long, value_name = "COMPUTE", default_value = "f32")]
    pub compute: ComputeName,
    /// Compute threads; otherwise as many as this process may use
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Where a base in int8 or nf4 is kept for the next time, at most 8 GiB, the oldest deleted first;
    /// `none` keeps nothing [default: $XDG_CACHE_HOME/fedpipe/quantized or ~/.cache/fedpipe/quantized]
    #[arg(long, value_name = "DIR|none")]
    pub quantized_cache: Option<PathBuf>,
}

/// Whether to begin what is predicted not to fit.
#[derive(Debug, Clone, Copy, Arguments)]
pub struct MemoryArgs {
    /// Begin even if more memory is predicted to be needed than this process may use
    #[arg(long)]
    ignore_memory: bool,
}

/// What a command is about to compute, as far as memory depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// Rank of every adapted weight, at most.
    pub ranks: &'a RankTable,
    /// What is done with the adapter.
    pub optimizer: Optimizer,
    /// Whether blocks are computed again in backward.
    pub checkpoint: bool,
    /// Rows of a step.
    pub batch: usize,
    /// Tokens of a row at most.
    pub sequence: usize,
    /// Labelled tokens of a row at most.
    pub labelled: usize,
    /// Bytes of what is held beside what the engine predicts.
    pub beside: u64,
}

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Parameters {
    /// An adapter beside the frozen model
    Adapter,
    /// The model itself: embedding, output layer, weights, biases, normalizations
    All,
}

/// Names of precisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BaseName {
    /// As the file stores it
    Source,
    /// 32-bit floating point
    F32,
    /// Brain floating point
    Bf16,
    /// 8-bit integers
    Int8,
    /// 4-bit NormalFloat
    Nf4,
}

/// Names of arithmetics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ComputeName {
    /// 32-bit floating point
    F32,
    /// Brain floating point, summed in f32
    Bf16,
    /// 8-bit integers forward, bf16 backward
    Int8,
}

impl From<ComputeName> for Compute {
    fn from(name: ComputeName) -> Self {
        match name {
            ComputeName::F32 => Self::F32,
            ComputeName::Bf16 => Self::Bf16,
            ComputeName::Int8 => Self::Int8,
        }
    }
}

impl ModelArgs {
    /// Holds the base in f32, whatever the file's precision, for its own parameters are trained.
    pub fn hold_for_training(&mut self) -> anyhow::Result<()> {
        let in_f32 = matches!(self.base, BaseName::Source | BaseName::F32);
        ensure!(
            in_f32 && self.compute == ComputeName::F32,
            "--parameters all holds the model in f32 and computes in f32: leave out --base and --compute"
        );
        self.base = BaseName::F32;
        Ok(())
    }

    /// Loads it.
    pub fn load(&self) -> anyhow::Result<Model> {
        self.load_for(self.compute)
    }

    /// Loads it for this arithmetic, whatever the flags say.
    pub fn load_for(&self, compute: ComputeName) -> anyhow::Result<Model> {
        let (base, threads) = (self.base(), self.threads());
        let kernel = Kernel::best(compute.into());
        let options = LoadOptions {
            base,
            kernel,
            cache: quantized::cache(self.quantized_cache.as_deref(), |name| env::var_os(name)),
            threads,
        };
        let loaded = Model::load(self.model.path()?, &options);
        loaded.with_context(|| format!("cannot use the model {}", self.model))
    }

    /// The sizes of the model, before it is loaded.
    pub fn inspect(&self) -> anyhow::Result<Inspected> {
        let found = Model::inspect(self.model.path()?);
        found.with_context(|| format!("cannot use the model {}", self.model))
    }

    /// Predicts the memory of some work; refuses what would not fit, before it is begun.
    pub fn check(
        &self,
        model: &Inspected,
        work: Work<'_>,
        memory: MemoryArgs,
    ) -> anyhow::Result<Estimate> {
        let allowed = chassis::memory::allowed_bytes(Path::new("/"))?;
        let allowed = allowed.saturating_sub(work.beside);
        let demand = Demand {
            base: self.base(),
            kernel: Kernel::best(self.compute.into()),
            ranks: work.ranks,
            optimizer: work.optimizer,
            checkpoint: work.checkpoint,
            batch: work.batch,
            sequence: work.sequence,
            labelled: work.labelled,
            threads: self.threads().get(),
        };
        match engine::memory::check(&model.config, model.bytes, &demand, allowed) {
            Ok(predicted) => Ok(predicted),
            Err(too_large) if memory.ignore_memory => Ok(too_large.needed),
            Err(too_large) => {
                Err(too_large).context("this would not fit; --ignore-memory begins all the same")
            }
        }
    }

    fn base(&self) -> Base {
        match self.base {
            BaseName::Source => Base::Source,
            BaseName::F32 => Base::F32,
            BaseName::Bf16 => Base::Bf16,
            BaseName::Int8 => Base::Int8,
            BaseName::Nf4 => Base::Nf4,
        }
    }

    fn threads(&self) -> NonZeroUsize {
        self.threads
            .or_else(|| NonZeroUsize::new(chassis::memory::threads()))
            .unwrap_or(NonZeroUsize::MIN)
    }
}

/// The records, and how they become tokens.
#[derive(Debug, Arguments)]
pub struct DataArgs {
    /// JSONL of text, prompt/completion, messages or text/label; or plain text
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// What the file holds: auto, jsonl, text, completion, messages, label or plain
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = format)]
    pub format: Format,
    /// Tokens of a record at most
    #[arg(long, value_name = "L", default_value_t = 128)]
    pub sequence_length: usize,
    /// A class of an encoder's classification head, as the records' labels say it; give two or more, always in the same
    /// order [default: those beside the adapter, those that the configuration of a model with a head names, or those of the records in
    /// the order of their text, 64 at most, where the model is an encoder]
    #[arg(long = "label", value_name = "TEXT")]
    pub labels: Vec<String>,
}

impl DataArgs {
    /// Opens the file; what was skipped is said.
    pub fn open(&self) -> anyhow::Result<Dataset> {
        let dataset = Dataset::open(&self.data, self.format)?;
        if dataset.skipped().total() > 0 {
            output::note(format!("{}: {}", self.data.display(), dataset.skipped()));
        }
        Ok(dataset)
    }

    /// What makes rows of records for this model: for classes if there are labels, for a loss among answers if these are
    /// given.
    pub fn encoder(
        &self,
        model: &Model,
        (labels, among): (&[String], &[String]),
    ) -> anyhow::Result<Encoder> {
        anyhow::ensure!(
            labels.is_empty() || among.is_empty(),
            "an encoder tells its labels apart and writes no words: leave out --choice"
        );
        let options = EncodeOptions {
            labels: labels.to_vec(),
            among: among.to_vec(),
            ..EncodeOptions::new(self.sequence_length)
        };
        Ok(Encoder::new(model.tokenizer().clone(), options)?)
    }
}

fn format(text: &str) -> Result<Format, String> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|error| error.to_string())
}

/// What `attention` names.
const ATTENTION: [Projection; 4] = [Projection::Q, Projection::K, Projection::V, Projection::O];

/// Reads `q,k,v,o`, `attention` or `all-linear`.
pub fn targets(text: &str) -> Result<Targets, String> {
    match text {
        "all-linear" | "all" => return Ok(Targets(Projection::ALL.to_vec())),
        "attention" => {
            return Ok(Targets(ATTENTION.to_vec()));
        }
        _ => {}
    }
    let mut list = Vec::new();
    for name in text.split(',').map(str::trim) {
        // PEFT's name of both.
        if name == "c_proj" {
            list.extend([Projection::AttnCProj, Projection::MlpCProj]);
            continue;
        }
        let own = serde_json::from_value::<Projection>(serde_json::Value::from(name));
        list.push(own.map_err(|_| {
            format!(
                "{name:?} is no projection: use q, k, v, o, gate, up, down (of GPT-2: c_attn, attn.c_proj, c_fc, \
                 mlp.c_proj), attention or all-linear"
            )
        })?);
    }
    list.sort_unstable();
    list.dedup();
    Ok(Targets(list))
}

/// Which projections carry an adapter.
#[derive(Debug, Clone)]
pub struct Targets(pub Vec<Projection>);

impl Targets {
    /// Those that are meant of a model: all of them are those that it has, and attention is its own.
    pub fn of(&self, weights: &[WeightShape]) -> Vec<Projection> {
        let projections = weights.iter().map(|weight| weight.name.projection());
        let own: BTreeSet<Projection> = projections.collect();
        if self.0 == Projection::ALL && !own.is_empty() {
            return own.into_iter().collect();
        }
        if self.0 == ATTENTION && own.contains(&Projection::CAttn) {
            return vec![Projection::CAttn, Projection::AttnCProj];
        }
        self.0.clone()
    }
}

/// Loads an adapter if one is named.
pub fn adapter(
    folder: Option<&Path>,
    weights: &[WeightShape],
) -> anyhow::Result<Option<engine::adapter::Adapter>> {
    let Some(folder) = folder else {
        return Ok(None);
    };
    let loaded = engine::adapter::Adapter::load(folder, weights);
    loaded
        .map(Some)
        .with_context(|| format!("cannot use the adapter {}", folder.display()))
}

/// Blocks of a model as adapters count them.
pub fn layers(config: &Config) -> anyhow::Result<u16> {
    match u16::try_from(config.layers) {
        Ok(layers) => Ok(layers),
        Err(_) => bail!("the model has more blocks than an adapter can name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_one_by_one_or_together() {
        assert_eq!(targets("v,q").unwrap().0, [Projection::Q, Projection::V]);
        assert_eq!(targets("attention").unwrap().0.len(), 4);
        assert_eq!(targets("all-linear").unwrap().0.len(), 7);
        assert!(targets("q,x").unwrap_err().contains("\"x\""));
        let both = [Projection::AttnCProj, Projection::MlpCProj];
        assert_eq!(targets("c_proj").unwrap().0, both);
    }

    #[test]
    fn groups_of_targets_are_those_of_the_model() {
        let of_model = |all: &[Projection]| -> Vec<WeightShape> {
            let shape = |own: &Projection| WeightShape {
                name: domain::adapter::WeightName::new(0, *own),
                out: 1,
                inp: 1,
            };
            all.iter().map(shape).collect()
        };
        let (llama, gpt2) = (of_model(&Projection::ALL), of_model(&Projection::GPT2));
        let meant = |text: &str, weights: &[WeightShape]| targets(text).unwrap().of(weights);
        assert_eq!(meant("all-linear", &llama), Projection::ALL);
        assert_eq!(meant("all-linear", &gpt2), Projection::GPT2);
        assert_eq!(meant("attention", &llama), ATTENTION);
        let own = [Projection::CAttn, Projection::AttnCProj];
        assert_eq!(meant("attention", &gpt2), own);
        // A name that the model does not have is left to whoever looks for its weight.
        assert_eq!(meant("q", &gpt2), [Projection::Q]);
    }

    #[test]
    fn formats_are_named_as_in_a_site_file() {
        assert_eq!(format("completion"), Ok(Format::Completion));
        assert!(format("xml").is_err());
    }
}

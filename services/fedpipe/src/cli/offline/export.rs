//! `fedpipe export`: a trained adapter in the formats that other tools load.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args as Arguments, ValueEnum};
use engine::control::Control;
use engine::export::{Format, Precision, Request, export};
use serde_json::json;

use super::labels;
use crate::cli::source::Source;
use crate::output;

/// Flags of `fedpipe export`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe export --adapter adapter --model model.gguf --to gguf -o out        out/model.gguf, for llama.cpp
  fedpipe export --adapter adapter --model model.gguf --to gguf-lora -o out   out/adapter.gguf, for llama.cpp's --lora
  fedpipe export --adapter adapter --model model --to merged -o out           a folder for Hugging Face transformers
  fedpipe export --adapter adapter --model minilm --to merged -o out          an encoder with its head, for transformers
  fedpipe export --adapter adapter --model model --to peft -o out             a folder for Hugging Face PEFT

Each is read back and held to the engine's own weights and logits before it gets its name.")]
pub struct Args {
    /// Folder of the trained adapter
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The model it was trained on: GGUF file, Hugging Face folder, or hf://…
    #[arg(long, value_name = "DIR|FILE|hf://…")]
    model: Source,
    /// The format
    #[arg(long, value_enum)]
    to: To,
    /// Precision of the weights in `merged` and `gguf`
    #[arg(long, value_enum, default_value = "source")]
    precision: PrecisionName,
    /// Folder to make
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Replace what is there
    #[arg(long)]
    force: bool,
    /// What the export calls the model; otherwise as the model's file or folder is called
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A class of an encoder's head, for `merged`; give one for each, in the head's order [default: those in labels.json beside the
    /// adapter, or the model's own names]
    #[arg(long = "label", value_name = "TEXT")]
    labels: Vec<String>,
    /// Compute threads; otherwise as many as this process may use
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Names of formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    /// Folder of the adapter for Hugging Face PEFT
    Peft,
    /// Folder of the changed model for Hugging Face transformers
    Merged,
    /// The adapter for llama.cpp
    GgufLora,
    /// The changed model for llama.cpp
    Gguf,
}

/// Names of precisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PrecisionName {
    /// As the model came; weights that change and came in integers in f16
    Source,
    /// 32-bit floating point
    F32,
    /// 16-bit floating point
    F16,
    /// Brain floating point
    Bf16,
    /// Blocks of 8-bit integers, for gguf
    #[value(name = "q8_0")]
    Q8,
}

impl Args {
    /// Exports.
    pub fn run(self) -> anyhow::Result<()> {
        let format = match self.to {
            To::Peft => Format::Peft,
            To::Merged => Format::Merged,
            To::GgufLora => Format::GgufLora,
            To::Gguf => Format::Gguf,
        };
        let precision = match self.precision {
            PrecisionName::Source => Precision::Source,
            PrecisionName::F32 => Precision::F32,
            PrecisionName::F16 => Precision::F16,
            PrecisionName::Bf16 => Precision::Bf16,
            PrecisionName::Q8 => Precision::Q8,
        };
        let threads = self
            .threads
            .or_else(|| NonZeroUsize::new(chassis::memory::threads()))
            .unwrap_or(NonZeroUsize::MIN);
        let name = self.name.clone().unwrap_or_else(|| self.called());
        let classes = self.classes()?;
        let request = Request {
            adapter: &self.adapter,
            model: self.model.path()?,
            format,
            precision,
            output: &self.output,
            replace: self.force,
            name: &name,
            labels: &classes,
            threads,
        };
        let place = self.output.display();
        let exported = export(request, &Control::new()).map_err(|error| {
            let there = matches!(error, engine::export::Error::Exists { .. });
            let error = anyhow::Error::new(error);
            if there {
                error.context("--force replaces it")
            } else {
                error
            }
        });
        let exported = exported.with_context(|| format!("nothing was exported to {place}"))?;
        if self.to == To::Peft {
            // PEFT's files name no classes.
            labels::keep(&self.output, &classes)?;
        }
        if self.json {
            let to = self.to.to_possible_value();
            return output::json(&json!({
                "folder": self.output,
                "format": to.as_ref().map(clap::builder::PossibleValue::get_name),
                "tensors_compared": exported.tensors,
                "logits_off": exported.logits_off,
                "logits_bound": exported.logits_bound,
                "tokenizer_differs": exported.tokenizer_differs,
            }));
        }
        if let Some(texts) = exported.tokenizer_differs {
            output::line(format!(
                "{place}: readers of this format make other token ids than the model's own tokenizer of {texts}"
            ))?;
        }
        output::line(format!(
            "{place}: {} tensors read back; logits off by {:.1e} of their norm (accepted: {:.0e})",
            exported.tensors, exported.logits_off, exported.logits_bound
        ))
    }

    /// What the classes of an encoder's head are called: as was asked, or as whoever trained it left beside it.
    fn classes(&self) -> anyhow::Result<Vec<String>> {
        if !self.labels.is_empty() {
            anyhow::ensure!(
                self.to == To::Merged,
                "--label names the classes of an encoder's head in a `merged` model: the other formats have no place for it"
            );
            return Ok(self.labels.clone());
        }
        Ok(labels::kept(Some(&self.adapter))?.unwrap_or_default())
    }

    /// PEFT finds its base model by the path or name that an adapter says; the others show a short name.
    fn called(&self) -> String {
        match self.to {
            To::Merged | To::Gguf | To::GgufLora => self.model.short(),
            To::Peft => self.model.base_model(),
        }
    }
}

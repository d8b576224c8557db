//! A trained adapter in the formats that other tools load.
//!
//! Promises: what was written is read back and held to the engine's own numbers before it gets its name; what
//! stands under the name is whole; the same inputs give the same bytes.
//!
//! Does not: change a tokenizer or a template. They are copied, or said in the other format's words and compared.

mod error;

mod output;
mod precision;
mod tokenizer;
mod verify;

mod tensors;

mod classes;
mod gguf;
mod gguf_file;
pub mod gguf_lora;
mod merged;
mod peft;
mod safetensors;
mod trained;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

pub use error::Error;
pub use precision::Precision;
pub use trained::{beside_trained, check_trained, export_trained};

use crate::adapter::Adapter;
use crate::compute;
use crate::control::Control;
use crate::kernel::{Compute, Kernel};
use crate::source::Source;
use crate::threads::Threads;
use output::Output;
use tensors::Merged;

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Hugging Face PEFT's folder.
    Peft,
    /// A Hugging Face folder of the changed model.
    Merged,
    /// The adapter alone for llama.cpp.
    GgufLora,
    /// The changed model for llama.cpp.
    Gguf,
}

/// What to export.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The adapter's folder.
    pub adapter: &'a Path,
    /// Its model: a GGUF file, or a folder.
    pub model: &'a Path,
    /// Into which format.
    pub format: Format,
    /// In which precision; adapters alone are always `f32`.
    pub precision: Precision,
    /// The folder to make.
    pub output: &'a Path,
    /// Whether what is there goes away.
    pub replace: bool,
    /// What the model is called in the export.
    pub name: &'a str,
    /// What the classes of an encoder's head are called, in its order; empty: as the model says, or by their numbers.
    pub labels: &'a [String],
    /// Compute threads.
    pub threads: NonZeroUsize,
}

/// What was exported, and how near it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// Tensors that were read back and compared, each off by rounding at most; adapted weights, where the
    /// adapter alone was exported.
    pub tensors: usize,
    /// The norm of the difference of logits, relative to that of the engine's.
    pub logits_off: f64,
    /// What would have been accepted of it.
    pub logits_bound: f64,
    /// Of which texts the export's tokenizer makes other ids than the model's own, which the format cannot help.
    pub tokenizer_differs: Option<&'static str>,
}

/// Exports an adapter. The folder is there when this returns, whole and verified, or not at all. Cancelled, it ends with the
/// tensor or the block that it is at.
///
/// # Errors
/// The adapter, the model or its tokenizer cannot be read, or said in the format; something is there; the
/// disk refuses; or what was read back is not what the engine computes with.
pub fn export(request: Request<'_>, control: &Control) -> Result<Exported, Error> {
    let output = Output::begin(request.output, request.replace)?;
    let mut source = Source::open(request.model)?;
    let config = source.config()?;
    let is_encoder = config.architecture.is_encoder();
    if is_encoder && matches!(request.format, Format::GgufLora | Format::Gguf) {
        return Err(Error::Encoder);
    }
    let tokenizer = source.tokenizer().map_err(Error::Model)?;
    let adapter = Adapter::load(request.adapter, &config.weights())?;
    // The kind of thread matters: sums must be taken in the same order on both sides.
    let unit = Kernel::best(Compute::F32).unit();
    let threads = Threads::new(request.threads, unit)?;
    let folder = output.folder();
    let mut merged = Merged {
        source: &mut source,
        config: &config,
        adapter: &adapter,
        trained: BTreeMap::new(),
        control,
    };
    if request.format == Format::Merged {
        check_head(&merged, request.labels)?;
    }
    let asked = request.precision;
    let want = || verify::logits(request.model, Some(&adapter), request.threads, control);
    let again = |path: &Path| verify::logits(path, None, request.threads, control);
    let of_base =
        |adapter: &Adapter| verify::logits(request.model, Some(adapter), request.threads, control);
    let adapted = adapter.factors().count();
    let (tensors, got, bound) = match request.format {
        Format::Peft => {
            peft::write(&adapter, &config, request.name, folder)?;
            let read = peft::read_back(&adapter, &config, folder)?;
            (adapted, of_base(&read)?, 0.0)
        }
        Format::GgufLora => {
            let path = folder.join(gguf_lora::FILE);
            gguf_lora::write(&adapter, &config, request.name, &path)?;
            let read = gguf_lora::read_back(&adapter, &config, &path)?;
            (adapted, of_base(&read)?, 1e-5)
        }
        Format::Merged => {
            let kind = |merged: &Merged<'_>, name, _: &[usize]| merged::kind(merged, name, asked);
            let tensors = threads.run(|| {
                merged::write(&mut merged, &tokenizer, (asked, request.labels), folder)?;
                verify::weights(&mut merged, folder, &kind)
            })?;
            (tensors, again(folder)?, bound(&merged, &kind)?)
        }
        Format::Gguf => {
            let path = folder.join(gguf::FILE);
            let kind = |merged: &Merged<'_>, name, shape: &[usize]| {
                gguf::kind(merged, (name, shape), asked)
            };
            let tensors = threads.run(|| {
                gguf::write(&mut merged, &tokenizer, (asked, request.name), &path)?;
                verify::weights(&mut merged, &path, &kind)
            })?;
            (tensors, again(&path)?, bound(&merged, &kind)?)
        }
    };
    let logits_off = verify::compare(&want()?, &got, bound)?;
    let tokenizer_differs = match request.format {
        Format::Merged | Format::Gguf => tokenizer::compare(&tokenizer, folder)?,
        Format::Peft | Format::GgufLora => None,
    };
    output.finish()?;
    Ok(Exported {
        tensors,
        logits_off,
        logits_bound: bound,
        tokenizer_differs,
    })
}

/// Whether an encoder has a head that fits it and these labels; a decoder has neither.
fn check_head(merged: &Merged<'_>, labels: &[String]) -> Result<(), Error> {
    let is_encoder = merged.config.architecture.is_encoder();
    if let Some(head) = merged.adapter.head() {
        merged.config.takes_head(head.shape())?;
    }
    if !is_encoder && !labels.is_empty() {
        return Err(Error::NoClasses);
    }
    let classes = merged.classes();
    if is_encoder && classes == 0 {
        return Err(compute::Error::NoHead.into());
    }
    if !labels.is_empty() && labels.len() != classes {
        let labels = labels.len();
        return Err(Error::Labels { labels, classes });
    }
    Ok(())
}

/// The widest bound of the kinds that some tensor was rounded to.
fn bound(merged: &Merged<'_>, kind: &verify::Kind<'_>) -> Result<f64, Error> {
    let mut widest = precision::logits_bound(candle_core::quantized::GgmlDType::F32);
    for (name, shape) in merged.names() {
        let meant = kind(merged, name, &shape)?;
        if meant != merged.source_kind(name)? || merged.changes(name) {
            widest = widest.max(precision::logits_bound(meant));
        }
    }
    Ok(widest)
}

//! The adapter as a GGUF file that llama.cpp applies to its model (`--lora`).
//!
//! As llama.cpp's `convert_lora_to_gguf.py` writes it and `llama-adapter.cpp` reads it: a weight's factors
//! are `<tensor>.lora_a` `[rank, in]` and `<tensor>.lora_b` `[out, rank]`, and it applies
//! `alpha / rank · B·A` with *that weight's* rank. Ours have one scale for every rank, so B is multiplied by
//! `rank / highest rank` and alpha is the scale times the highest rank. Rows of B that belong to queries and
//! keys are reordered as the model's own are.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};
use domain::adapter::WeightShape;

use super::Error;
use super::error::{damaged, unreadable};
use super::gguf_file::{Info, Metadata, Writer};
use super::tensors::decoded;
use crate::adapter::{Adapter, Factors};
use crate::model::Config;
use crate::source::{Name, rows};

/// The file's name in a folder.
pub const FILE: &str = "adapter.gguf";

/// Writes the file.
///
/// # Errors
/// [`Error::Encoder`] for an encoder, or a head: the format has neither. It cannot be written.
pub fn write(adapter: &Adapter, config: &Config, name: &str, path: &Path) -> Result<(), Error> {
    // llama.cpp would take the factors, and give the words of a model without its head.
    if config.architecture.is_encoder() || adapter.head().is_some() {
        return Err(Error::Encoder);
    }
    let highest = highest(adapter);
    let about = Metadata::from([
        text("general.type", "adapter"),
        text("general.architecture", config.gguf_architecture()),
        text("general.name", name),
        text("adapter.type", "lora"),
        (
            "adapter.lora.alpha".to_owned(),
            Value::F32(adapter.scale() * f32::from(highest)),
        ),
    ]);
    let infos: Vec<Info> = adapter.factors().flat_map(infos).collect();
    let mut writer = Writer::create(path, &about, &infos)?;
    for factors in adapter.factors() {
        writer.tensor(&bytes(factors.a().iter().copied()))?;
        let part = f32::from(factors.rank()) / f32::from(highest);
        let b = bytes(factors.b().iter().map(|value| value * part));
        let row = 4 * usize::from(factors.rank());
        writer.tensor(&match config.turned(factors.shape().name.projection()) {
            Some(head) => rows::reorder(&b, row, head),
            None => b,
        })?;
    }
    writer.finish()
}

/// Reads a file that [`write`] wrote; `config` is its model's.
///
/// # Errors
/// It is damaged, or not an adapter of such a model.
pub fn read(config: &Config, path: &Path) -> Result<Adapter, Error> {
    let mut file = BufReader::new(File::open(path).map_err(unreadable(path))?);
    let content = Content::read(&mut file).map_err(damaged)?;
    let said = |key: &str| {
        let value = content.metadata.get(key);
        value.and_then(|value| value.to_string().ok()).cloned()
    };
    let expected = [
        ("general.type", "adapter"),
        ("adapter.type", "lora"),
        ("general.architecture", config.gguf_architecture()),
    ];
    for (key, wanted) in expected {
        if said(key).as_deref() != Some(wanted) {
            return Err(damaged(format!("its {key} is not {wanted}")));
        }
    }
    let alpha = content.metadata.get("adapter.lora.alpha");
    let alpha = alpha.and_then(|alpha| alpha.to_f32().ok());
    let alpha = alpha.ok_or_else(|| damaged("it has no adapter.lora.alpha"))?;
    let mut found = Vec::new();
    for shape in config.weights() {
        let [a_name, b_name] = names(shape);
        let Some(info) = content.tensor_infos.get(&a_name) else {
            continue;
        };
        let rank = info.shape.dims().first().copied().unwrap_or_default();
        let mut tensor = |name: &str, wanted: [usize; 2]| {
            let tensor = content.tensor(&mut file, name, &candle_core::Device::Cpu);
            let tensor = tensor.map_err(damaged)?;
            if tensor.shape().dims() != wanted {
                return Err(damaged(format!("{name} has another shape")));
            }
            decoded(&tensor, &wanted)
        };
        let a = tensor(&a_name, [rank, shape.inp])?;
        let b = tensor(&b_name, [shape.out, rank])?;
        let b = match config.turned(shape.name.projection()) {
            Some(head) => rows::restore(&b, rank, head),
            None => b,
        };
        found.push((shape, u16::try_from(rank).map_err(damaged)?, a, b));
    }
    if 2 * found.len() != content.tensor_infos.len() {
        return Err(damaged("it holds tensors that its model does not have"));
    }
    let highest = found.iter().map(|(_, rank, ..)| *rank).max().unwrap_or(1);
    let factors = found.into_iter().map(|(shape, rank, a, mut b)| {
        let part = f32::from(highest) / f32::from(rank.max(1));
        b.iter_mut().for_each(|value| *value *= part);
        Factors::new(shape, rank, a, b)
    });
    let factors = factors.collect::<Result<Vec<_>, _>>()?;
    Ok(Adapter::new(alpha / f32::from(highest.max(1)), factors)?)
}

/// Reads the file back: the same adapter but for the rounding of the factor that B was multiplied by.
///
/// # Errors
/// It is damaged, or another adapter.
pub fn read_back(adapter: &Adapter, config: &Config, path: &Path) -> Result<Adapter, Error> {
    let again = read(config, path)?;
    let near = |a: &[f32], b: &[f32]| {
        let pairs = a.iter().zip(b);
        a.len() == b.len()
            && pairs
                .into_iter()
                .all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs())
    };
    let scales = near(&[again.scale()], &[adapter.scale()]);
    let alike = again.factors().zip(adapter.factors()).all(|(again, own)| {
        again.shape() == own.shape() && again.a() == own.a() && near(again.b(), own.b())
    });
    if !(scales && alike && again.factors().count() == adapter.factors().count()) {
        return Err(damaged("it is another adapter"));
    }
    Ok(again)
}

/// An adapter in PEFT's two files to a GGUF file at `path`, which is read back.
///
/// # Errors
/// The files are damaged or do not fit the model, the format has nothing like it, or the file cannot be written.
pub fn convert(
    (tensors, peft): (&[u8], &[u8]),
    config: &Config,
    name: &str,
    path: &Path,
) -> Result<(), Error> {
    let adapter = Adapter::from_peft(tensors, peft, &config.weights())?;
    write(&adapter, config, name, path)?;
    read_back(&adapter, config, path).map(drop)
}

fn highest(adapter: &Adapter) -> u16 {
    adapter.factors().map(Factors::rank).max().unwrap_or(1)
}

fn text(key: &str, value: &str) -> (String, Value) {
    (key.to_owned(), Value::String(value.to_owned()))
}

fn names(shape: WeightShape) -> [String; 2] {
    let weight = Name::Weight(shape.name).in_gguf();
    [format!("{weight}.lora_a"), format!("{weight}.lora_b")]
}

fn infos(factors: &Factors) -> [Info; 2] {
    let (shape, rank) = (factors.shape(), usize::from(factors.rank()));
    let [a, b] = names(shape);
    let info = |name, shape| Info {
        name,
        kind: GgmlDType::F32,
        shape,
    };
    [
        info(a, vec![rank, shape.inp]),
        info(b, vec![shape.out, rank]),
    ]
}

fn bytes(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

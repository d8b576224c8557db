//! A GGUF file of the model with the adapter's change in its weights, tokenizer and chat template inside.
//!
//! Metadata come from the source: all of them where it is a GGUF file, otherwise made of `config.json` and the
//! tokenizer's files as llama.cpp's `convert_hf_to_gguf.py` makes them. Rows of queries and keys are reordered
//! for llama.cpp's rotation of adjacent pairs where the architecture needs it.

use std::path::Path;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;

use super::gguf_file::{Info, Metadata, Writer};
use super::tensors::Merged;
use super::{Error, Precision, precision};
use crate::source::{Name, gguf_config, rows};
use crate::text::Tokenizer;

/// The file's name in a folder.
pub(super) const FILE: &str = "model.gguf";

/// In which kind a tensor is written.
pub(super) fn kind(
    merged: &Merged<'_>,
    (name, shape): (Name, &[usize]),
    asked: Precision,
) -> Result<GgmlDType, Error> {
    let own = merged.source_kind(name)?;
    // As llama.cpp's own tools leave it.
    if matches!(name, Name::Positions) {
        return Ok(GgmlDType::F32);
    }
    let [_, cols] = shape else {
        // Vectors are few, and llama.cpp wants them in f32.
        return Ok(GgmlDType::F32);
    };
    Ok(match asked.kind() {
        // As llama.cpp's own converter does where rows are no whole blocks.
        Some(kind) if !cols.is_multiple_of(kind.block_size()) => GgmlDType::F16,
        Some(kind) => kind,
        None if merged.changes(name) => precision::floating(own),
        None => own,
    })
}

/// Writes the file.
pub(super) fn write(
    merged: &mut Merged<'_>,
    tokenizer: &Tokenizer,
    (asked, name): (Precision, &str),
    path: &Path,
) -> Result<(), Error> {
    if let Some(what) = merged.config.unsaid_in_gguf() {
        return Err(Error::Model(crate::model::Error::Feature {
            what: format!("{what}, in gguf"),
        }));
    }
    let names = Name::all(merged.config);
    let mut infos = Vec::with_capacity(names.len());
    for (name, shape) in &names {
        infos.push(Info {
            name: name.in_gguf(),
            kind: kind(merged, (*name, shape), asked)?,
            shape: shape.clone(),
        });
    }
    // Gemma's one factor is among the metadata.
    let factors: &[f32] = match merged.config.linear_factor() {
        Some(_) => &[],
        None => &merged.config.rope_factors,
    };
    if !factors.is_empty() {
        infos.insert(
            0,
            Info {
                name: gguf_config::ROPE_FACTORS.to_owned(),
                kind: GgmlDType::F32,
                shape: vec![factors.len()],
            },
        );
    }
    let about = about(merged, tokenizer, (asked, name))?;
    let mut writer = Writer::create(path, &about, &infos)?;
    if !factors.is_empty() {
        writer.tensor(
            &factors
                .iter()
                .flat_map(|f| f.to_le_bytes())
                .collect::<Vec<u8>>(),
        )?;
    }
    let infos = infos.iter().skip(usize::from(!factors.is_empty()));
    for ((name, shape), info) in names.iter().zip(infos) {
        let stored = merged.stored(*name, shape, (info.kind, 0.0))?;
        let head = match name {
            Name::Weight(weight) => merged.config.turned(weight.projection()),
            _ => None,
        };
        let row_bytes = stored.len() / shape.first().copied().unwrap_or(1).max(1);
        match head {
            Some(head) => writer.tensor(&rows::reorder(&stored, row_bytes, head))?,
            None => writer.tensor(&stored)?,
        }
    }
    writer.finish()
}

fn about(
    merged: &Merged<'_>,
    tokenizer: &Tokenizer,
    (asked, name): (Precision, &str),
) -> Result<Metadata, Error> {
    let mut about: Metadata = match merged.source.metadata() {
        Some(own) => own.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        None => {
            let mut made: Metadata = tokenizer
                .to_gguf(merged.config.vocabulary)?
                .into_iter()
                .collect();
            made.extend(merged.config.to_gguf());
            made.insert("general.name".to_owned(), Value::String(name.to_owned()));
            made.insert("general.type".to_owned(), Value::String("model".to_owned()));
            made
        }
    };
    // Data are written at multiples of the format's default.
    about.remove("general.alignment");
    let from_folder = merged.source.metadata().is_none();
    let kind = asked.kind().or(if from_folder {
        Some(merged.source_kind(Name::Embedding)?)
    } else {
        None
    });
    if let Some(number) = kind.and_then(file_type) {
        about.insert("general.file_type".to_owned(), Value::U32(number));
    }
    about.insert("general.quantization_version".to_owned(), Value::U32(2));
    Ok(about)
}

/// `llama_ftype`
const fn file_type(kind: GgmlDType) -> Option<u32> {
    match kind {
        GgmlDType::F32 => Some(0),
        GgmlDType::F16 => Some(1),
        GgmlDType::Q8_0 => Some(7),
        GgmlDType::BF16 => Some(32),
        _ => None,
    }
}

//! A Hugging Face folder of the model with the adapter's change in its weights: `model.safetensors`,
//! `config.json` and the tokenizer's files. An encoder's has its head in it.

use std::fs;
use std::path::Path;

use candle_core::quantized::GgmlDType;
use serde_json::Value;

use super::error::{damaged, unreadable, unwritable};
use super::safetensors::{Info, Writer};
use super::tensors::Merged;
use super::{Error, Precision, classes, precision};
use crate::model::{Architecture, Config};
use crate::source::{Name, Source, gpt2};
use crate::text::Tokenizer;

/// What stands beside the weights and is copied as it is.
const COPIED: [&str; 10] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
];
pub(super) const CONFIG: &str = "config.json";

/// In which kind a tensor is written.
pub(super) fn kind(merged: &Merged<'_>, name: Name, asked: Precision) -> Result<GgmlDType, Error> {
    if asked == Precision::Q8 {
        return Err(Error::Precision {
            format: "merged",
            precision: asked.name(),
        });
    }
    if let Some(kind) = asked.kind() {
        return Ok(kind);
    }
    // A folder keeps each tensor's own; a GGUF file mixes kinds, where a folder has one.
    let folder = merged.source.folder().is_some();
    let own = merged.source_kind(if folder { name } else { Name::Embedding })?;
    Ok(precision::floating(own))
}

/// Writes the folder.
pub(super) fn write(
    merged: &mut Merged<'_>,
    tokenizer: &Tokenizer,
    (asked, labels): (Precision, &[String]),
    folder: &Path,
) -> Result<(), Error> {
    let names = merged.names();
    let mut infos = Vec::with_capacity(names.len());
    for (name, shape) in &names {
        infos.push(Info {
            name: name.in_folder(merged.config.architecture),
            kind: kind(merged, *name, asked)?,
            shape: match shape.as_slice() {
                [out, inp] if lies_transposed(merged.config, *name) => vec![*inp, *out],
                _ => shape.clone(),
            },
        });
    }
    let mut config = describe((&*merged.source, merged.config), tokenizer, folder)?;
    let mut writer = Writer::create(&folder.join("model.safetensors"), &infos)?;
    for ((name, shape), info) in names.iter().zip(&infos) {
        let offset = if name.is_norm() {
            merged.config.norm_offset()
        } else {
            0.0
        };
        let stored = merged.stored(*name, shape, (info.kind, offset))?;
        match shape.as_slice() {
            [_, inp] if lies_transposed(merged.config, *name) => {
                writer.write(&gpt2::transposed(&stored, *inp, info.kind.type_size()))?;
            }
            _ => writer.write(&stored)?,
        }
    }
    writer.finish()?;
    let most = infos.first().map_or(GgmlDType::F32, |info| info.kind);
    if let (Some(fields), true) = (
        config.as_object_mut(),
        asked != Precision::Source || merged.source.folder().is_none(),
    ) {
        let name = match most {
            GgmlDType::F16 => "float16",
            GgmlDType::BF16 => "bfloat16",
            _ => "float32",
        };
        // transformers 5 reads the first, 4 the second.
        fields.insert("dtype".to_owned(), name.into());
        fields.insert("torch_dtype".to_owned(), name.into());
    }
    let family = merged.config.architecture;
    if let (Some(fields), true) = (config.as_object_mut(), family.is_encoder()) {
        classes::tell((fields, family), merged.classes(), labels);
    }
    write_config(&config, folder)
}

/// Writes what stands beside the weights, but for what this gives: the model's configuration as it came, or as it follows
/// from the sizes.
pub(super) fn describe(
    (source, config): (&Source, &Config),
    tokenizer: &Tokenizer,
    folder: &Path,
) -> Result<Value, Error> {
    match source.folder() {
        Some(from) => {
            copy(from, folder)?;
            read(&from.join(CONFIG))
        }
        None if !config.rope_factors.is_empty() && config.linear_factor().is_none() => {
            Err(Error::Model(crate::model::Error::Feature {
                what:
                    "scaled rotary positions of a gguf file in a folder, which says them otherwise"
                        .to_owned(),
            }))
        }
        None => {
            tokenizer.write_folder(folder)?;
            Ok(config.to_hugging_face(tokenizer))
        }
    }
}

/// Writes the model's configuration.
pub(super) fn write_config(config: &Value, folder: &Path) -> Result<(), Error> {
    let path = folder.join(CONFIG);
    fs::write(&path, format!("{config:#}\n")).map_err(unwritable(&path))
}

/// Whether a folder holds the rows of a weight as columns.
fn lies_transposed(config: &Config, name: Name) -> bool {
    config.architecture == Architecture::Gpt2 && matches!(name, Name::Weight(_))
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    for name in COPIED {
        let (from, to) = (from.join(name), to.join(name));
        if from.is_file() {
            fs::copy(&from, &to).map_err(unwritable(&to))?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Value, Error> {
    let bytes = fs::read(path).map_err(unreadable(path))?;
    serde_json::from_slice(&bytes).map_err(damaged)
}

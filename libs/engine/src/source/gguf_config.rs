//! A model's sizes from GGUF metadata.

use std::io::{Read, Seek};

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};

use super::Name;
use crate::model::{Architecture, Config, Error, Norms, Sliding, Window};

/// Divisors of the rotary frequencies, where a file has them; its own name for them.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Reads them from the metadata and, if there are divisors of the rotary frequencies, from the tensor of these, which
/// `factors` reads.
pub(super) fn read(
    content: &Content,
    factors: impl FnOnce(&TensorInfo) -> Result<Vec<f32>, Error>,
) -> Result<Config, Error> {
    let found = match content.metadata.get("general.architecture") {
        Some(Value::String(found)) => found,
        _ => return Err(misfit("general.architecture")),
    };
    let architecture = Architecture::of_gguf(found).ok_or_else(|| Error::Architecture {
        found: found.clone(),
    })?;
    let said = Said {
        content,
        prefix: architecture.facts().gguf,
    };
    let (heads, hidden) = (
        said.number("attention.head_count")?,
        said.number("embedding_length")?,
    );
    let embedding = content.tensor_infos.get(&Name::Embedding.in_gguf());
    let vocabulary = embedding
        .and_then(|info| info.shape.dims().first())
        .copied();
    let scaled = said.linear_factor(architecture)?;
    if said.number_or("expert_count", 0)? > 0 {
        return Err(Error::Feature {
            what: "mixture of experts".to_owned(),
        });
    }
    let head_size = said.number_or(
        "attention.key_length",
        hidden.checked_div(heads).unwrap_or(0),
    )?;
    if said.number_or("rope.dimension_count", head_size)? != head_size {
        return Err(Error::Feature {
            what: "partly rotated heads".to_owned(),
        });
    }
    let context = said.number("context_length")?;
    let facts = architecture.facts();
    let sliding = match facts.window {
        Window::Layers if said.has("attention.sliding_window") => Some(said.sliding()?),
        _ => None,
    };
    let near = match facts.window {
        Window::Layers => context,
        // Up to a window's length a token sees everything before it.
        _ => said.number_or("attention.sliding_window", context)?.max(1),
    };
    let epsilon = match facts.norm {
        Norms::Layer => "attention.layer_norm_epsilon",
        Norms::Rms | Norms::RmsLessOne => "attention.layer_norm_rms_epsilon",
    };
    let mut config = Config {
        architecture,
        layers: said.number("block_count")?,
        hidden,
        intermediate: said.number("feed_forward_length")?,
        heads,
        kv_heads: said.number_or("attention.head_count_kv", heads)?,
        head_size,
        vocabulary: vocabulary.ok_or_else(|| Error::Missing {
            name: Name::Embedding.in_gguf(),
        })?,
        context: context.min(near),
        padding: None,
        epsilon: said.real(epsilon)?,
        rope_theta: if said.has("rope.freq_base") {
            said.real("rope.freq_base")?
        } else {
            match architecture {
                Architecture::Gemma3 => 1_000_000.0,
                _ => 10_000.0,
            }
        },
        rope_factors: match (scaled, content.tensor_infos.get(ROPE_FACTORS)) {
            // llama.cpp has no such tensor of it.
            (_, Some(_)) if architecture == Architecture::Gemma3 => {
                return Err(Error::Feature {
                    what: "rotations of Gemma 3 that are scaled one by one".to_owned(),
                });
            }
            // Bounded before anything of its length is made.
            (Some(factor), _) if head_size <= 1 << 16 => vec![factor; head_size / 2],
            (None, Some(info)) => factors(info)?,
            _ => Vec::new(),
        },
        tied: !content.tensor_infos.contains_key(&Name::Output.in_gguf()),
        score_scale: None,
        sliding: sliding.filter(|own| own.every != 1),
    };
    config.score_scale = config.score_scale_in_gguf();
    config.checked()
}

/// The values of a small tensor in `f32`.
pub(super) fn vector<R: Read + Seek>(
    reader: &mut R,
    content: &Content,
    info: &TensorInfo,
) -> Result<Vec<f32>, Error> {
    let tensor = info.read(reader, content.tensor_data_offset, &Device::Cpu);
    let values = tensor.and_then(|tensor| tensor.dequantize(&Device::Cpu)?.to_vec1());
    values.map_err(Error::Decode)
}

/// What the metadata say of the architecture.
struct Said<'a> {
    content: &'a Content,
    /// The architecture's name, with which each key begins.
    prefix: &'static str,
}

impl<'a> Said<'a> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn has(&self, key: &str) -> bool {
        self.content.metadata.contains_key(&self.key(key))
    }

    fn value(&self, key: &str) -> Result<&'a Value, Error> {
        let key = self.key(key);
        self.content.metadata.get(&key).ok_or_else(|| misfit(&key))
    }

    fn number(&self, key: &str) -> Result<usize, Error> {
        let value = self.value(key)?;
        let wide = value
            .to_u64()
            .or_else(|_| value.to_u32().map(u64::from))
            .or_else(|_| value.to_i32().map(|v| v.max(0) as u64));
        wide.ok()
            .and_then(|v| usize::try_from(v).ok())
            .ok_or_else(|| misfit(&self.key(key)))
    }

    fn number_or(&self, key: &str, default: usize) -> Result<usize, Error> {
        if self.has(key) {
            self.number(key)
        } else {
            Ok(default)
        }
    }

    fn real(&self, key: &str) -> Result<f32, Error> {
        let real = self.value(key)?.to_f32();
        real.map_err(|_| misfit(&self.key(key)))
    }

    /// The layers with a window. llama.cpp took every sixth as one without and 10000 as their base of rotations before
    /// files could say so.
    fn sliding(&self) -> Result<Sliding, Error> {
        let theta = "rope.freq_base_swa";
        Ok(Sliding {
            window: self.number("attention.sliding_window")?,
            theta: if self.has(theta) {
                self.real(theta)?
            } else {
                10_000.0
            },
            every: self.number_or("attention.sliding_window_pattern", 6)?,
        })
    }

    /// What positions are divided by in layers without a window, as Gemma 3's of 4B and larger say it; none where they are not
    /// scaled.
    fn linear_factor(&self, architecture: Architecture) -> Result<Option<f32>, Error> {
        let Ok(kind) = self.value("rope.scaling.type") else {
            return Ok(None);
        };
        match kind.to_string().map(String::as_str) {
            Ok("none") | Err(_) => Ok(None),
            Ok("linear") if architecture == Architecture::Gemma3 => {
                self.real("rope.scaling.factor").map(Some)
            }
            Ok(kind) => Err(Error::Feature {
                what: format!(
                    "rotary positions that are scaled in the way {kind}; supported: llama 3's, of Gemma 3 linear"
                ),
            }),
        }
    }
}

fn misfit(key: &str) -> Error {
    Error::Setting {
        key: key.to_owned(),
    }
}

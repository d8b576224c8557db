//! Hugging Face folders: `config.json` and `model.safetensors`, whole or in shards.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;

use super::broken::Broken;
use super::{Name, bert, gemma3, gpt2};
use crate::model::rope::Llama3;
use crate::model::{Architecture, Config, Curve, Error, Window};

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Written limits: the largest headers seen are below 10 MB.
const HEADER_LIMIT_BYTES: u64 = 100 << 20;
const JSON_LIMIT_BYTES: u64 = 64 << 20;

pub(crate) struct Folder {
    path: PathBuf,
    /// The family says what the tensors are called and how they lie; Llama's where it is none that is known.
    family: Architecture,
    files: Vec<Shard>,
    /// Tensor name → index of its file.
    places: BTreeMap<String, usize>,
}

struct Shard {
    path: PathBuf,
    file: fs::File,
    bytes: u64,
    data_start: u64,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let mut files = Vec::new();
        let mut places = BTreeMap::new();
        if path.join(INDEX).is_file() && !path.join(WHOLE).is_file() {
            let index: Index = json(&path.join(INDEX))?;
            let mut names: Vec<&String> = index.weight_map.values().collect();
            names.sort_unstable();
            names.dedup();
            for name in &names {
                if name.contains(['/', '\\']) || name.starts_with('.') {
                    return Err(Error::Setting {
                        key: format!("weight_map → {name:?}"),
                    });
                }
                files.push(Shard::open(&path.join(name))?);
            }
            for (tensor, file) in &index.weight_map {
                places.insert(
                    tensor.clone(),
                    names.binary_search(&file).unwrap_or_default(),
                );
            }
        } else {
            let shard = Shard::open(&path.join(WHOLE))?;
            places.extend(shard.metadata.tensors().into_keys().map(|name| (name, 0)));
            files.push(shard);
        }
        let family = json::<bert::Family>(&path.join("config.json"));
        Ok(Self {
            path: path.to_owned(),
            family: family.ok().and_then(|own| own.known()).unwrap_or_default(),
            files,
            places,
        })
    }

    /// What the files call a tensor: an encoder's may lie there without the name of the model around it, its normalizations
    /// under older names.
    pub(super) fn called(&self, name: Name) -> String {
        let whole = name.in_folder(self.family);
        let prefix = match self.family {
            Architecture::Gpt2 => gpt2::PREFIX,
            other => bert::prefix(other.encoder().unwrap_or_default()),
        };
        let bare = whole.strip_prefix(prefix).unwrap_or(&whole).to_owned();
        let older = [&whole, &bare].map(|name| bert::older(name));
        let names = [Some(whole), Some(bare.clone())].into_iter().chain(older);
        let mut names = names.flatten();
        let there = names.find(|name| self.places.contains_key(name));
        there.unwrap_or(bare)
    }

    pub(super) fn rows_of(&self, name: Name) -> Option<usize> {
        let name = self.called(name);
        let shard = self.files.get(*self.places.get(&name)?)?;
        shard.metadata.info(&name)?.shape.first().copied()
    }

    pub(super) fn kind(&self, name: Name) -> Option<GgmlDType> {
        let name = self.called(name);
        let shard = self.files.get(*self.places.get(&name)?)?;
        kind(shard.metadata.info(&name)?.dtype)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration, then the shards by name, then what says which tensor is in which.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let shards = self.files.iter().map(|shard| shard.path.clone());
        let index = Some(self.path.join(INDEX)).filter(|index| index.is_file());
        let config = self.path.join("config.json");
        [config].into_iter().chain(shards).chain(index).collect()
    }

    pub(super) fn config(&self) -> Result<Config, Error> {
        let path = self.path.join("config.json");
        let family = json::<bert::Family>(&path)?;
        match family.known() {
            None => Err(family.unsupported()),
            Some(own) if own.is_encoder() => json::<bert::Said>(&path)?.config(own),
            Some(Architecture::Gpt2) => json::<gpt2::Said>(&path)?.config(),
            Some(Architecture::Gemma3) => {
                let own = json::<gemma3::Said>(&path)?;
                json::<HuggingFace>(&path)?.gemma(&own)
            }
            Some(own) => json::<HuggingFace>(&path)?.config(own),
        }
    }

    pub(super) fn tensor(&mut self, name: Name, expected: &[usize]) -> Result<QTensor, Error> {
        if let (Architecture::Gpt2, Name::Weight(_), [out, inp]) = (self.family, name, expected) {
            let lies = self.rows(name, &[*inp, *out], 0..*inp)?;
            let kind = lies.dtype();
            let data = lies.data().map_err(Error::Decode)?;
            let data = gpt2::transposed(&data, *out, kind.type_size());
            let storage = QStorage::from_data(Cow::Owned(data), &Device::Cpu, kind);
            let tensor = storage.and_then(|storage| QTensor::new(storage, expected));
            return tensor.map_err(Error::Decode);
        }
        let all = 0..expected.first().copied().unwrap_or_default();
        self.rows(name, expected, all)
    }

    /// Some rows of the tensor, which is of the expected shape.
    pub(super) fn rows(
        &mut self,
        name: Name,
        expected: &[usize],
        range: Range<usize>,
    ) -> Result<QTensor, Error> {
        let name = self.called(name);
        let shard = self
            .places
            .get(&name)
            .and_then(|place| self.files.get_mut(*place));
        shard
            .ok_or_else(|| Error::Missing { name: name.clone() })?
            .rows(&name, expected, range)
    }
}

impl Shard {
    fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let header = |source: Box<dyn std::error::Error + Send + Sync>| Error::Header {
            path: path.to_owned(),
            source,
        };
        let mut file = fs::File::open(path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix).map_err(|_| Error::Magic {
            path: path.to_owned(),
        })?;
        let length = u64::from_le_bytes(prefix);
        if length > HEADER_LIMIT_BYTES || length > bytes {
            return Err(Error::Magic {
                path: path.to_owned(),
            });
        }
        let mut buffer = Vec::new();
        (&mut file)
            .take(length)
            .read_to_end(&mut buffer)
            .map_err(unreadable)?;
        let metadata = serde_json::from_slice(&buffer)
            .map_err(|source| header(Broken::json(8, &buffer, &source)))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
            data_start: 8 + length,
            metadata,
        })
    }

    fn rows(
        &mut self,
        name: &str,
        expected: &[usize],
        range: Range<usize>,
    ) -> Result<QTensor, Error> {
        let info = self.metadata.info(name).ok_or_else(|| Error::Missing {
            name: name.to_owned(),
        })?;
        if info.shape != expected {
            return Err(Error::Shape {
                name: name.to_owned(),
                expected: expected.to_vec(),
                found: info.shape.clone(),
            });
        }
        let kind = kind(info.dtype).ok_or_else(|| Error::Feature {
            what: format!("tensors of type {:?}", info.dtype),
        })?;
        let (start, end) = info.data_offsets;
        let last = self.data_start + end as u64;
        if last > self.bytes {
            return Err(Error::Truncated {
                path: self.path.clone(),
                name: name.to_owned(),
                bytes: self.bytes,
                missing_bytes: last - self.bytes,
            });
        }
        let unreadable = |source| Error::Read {
            path: self.path.clone(),
            source,
        };
        let (count, rest) = expected.split_first().unwrap_or((&1, &[]));
        let row_bytes = (end - start) / (*count).max(1);
        let first = start + range.start * row_bytes;
        self.file
            .seek(SeekFrom::Start(self.data_start + first as u64))
            .map_err(unreadable)?;
        let mut data = vec![0; range.len() * row_bytes];
        self.file.read_exact(&mut data).map_err(unreadable)?;
        let storage =
            QStorage::from_data(Cow::Owned(data), &Device::Cpu, kind).map_err(Error::Decode)?;
        let shape = [&[range.len()], rest].concat();
        QTensor::new(storage, shape).map_err(Error::Decode)
    }
}

pub(super) fn config_of(text: &[u8]) -> Result<Config, Error> {
    let family = parsed::<bert::Family>(text)?;
    match family.known() {
        None => Err(family.unsupported()),
        Some(own) if own.is_encoder() => parsed::<bert::Said>(text)?.config(own),
        Some(Architecture::Gpt2) => parsed::<gpt2::Said>(text)?.config(),
        Some(Architecture::Gemma3) => {
            parsed::<HuggingFace>(text)?.gemma(&parsed::<gemma3::Said>(text)?)
        }
        Some(own) => parsed::<HuggingFace>(text)?.config(own),
    }
}

fn parsed<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|source| Error::Header {
        path: "config.json".into(),
        source: source.into(),
    })
}

const fn kind(dtype: Dtype) -> Option<GgmlDType> {
    match dtype {
        Dtype::F32 => Some(GgmlDType::F32),
        Dtype::F16 => Some(GgmlDType::F16),
        Dtype::BF16 => Some(GgmlDType::BF16),
        _ => None,
    }
}

fn json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, Error> {
    let unreadable = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(JSON_LIMIT_BYTES)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    serde_json::from_slice(&text).map_err(|source| Error::Header {
        path: path.to_owned(),
        source: source.into(),
    })
}

/// What is read of `config.json`.
#[derive(Deserialize)]
struct HuggingFace {
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    rope_theta: Option<f32>,
    rope_scaling: Option<RopeParameters>,
    rope_parameters: Option<RopeParameters>,
    tie_word_embeddings: Option<bool>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    hidden_act: Option<String>,
    /// Gemma's word for it, which wins.
    hidden_activation: Option<String>,
    sliding_window: Option<usize>,
    #[serde(default)]
    use_sliding_window: bool,
}

/// Where transformers 5 keeps what was `rope_theta` and `rope_scaling`.
#[derive(Deserialize)]
struct RopeParameters {
    /// Where kinds of layers have their own.
    sliding_attention: Option<Box<RopeParameters>>,
    full_attention: Option<Box<RopeParameters>>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
}

impl RopeParameters {
    /// What the frequencies of a head are divided by; none where they are not scaled.
    fn factors(
        &self,
        architecture: Architecture,
        size: usize,
        theta: f32,
    ) -> Result<Option<Vec<f32>>, Error> {
        let gemma = architecture == Architecture::Gemma3;
        let needed = |value: Option<f32>, key: &str| {
            value.ok_or_else(|| Error::Setting {
                key: key.to_owned(),
            })
        };
        match self.rope_type.as_deref() {
            None | Some("default") => Ok(None),
            // transformers divides positions by it, which is the same.
            Some("linear") if gemma => {
                let factor = needed(self.factor, "factor")?;
                Ok(Some(vec![factor; size / 2]))
            }
            Some("llama3") if !gemma => {
                let scaling = Llama3 {
                    factor: needed(self.factor, "factor")?,
                    low: needed(self.low_freq_factor, "low_freq_factor")?,
                    high: needed(self.high_freq_factor, "high_freq_factor")?,
                    original: needed(
                        self.original_max_position_embeddings,
                        "original_max_position_embeddings",
                    )?,
                };
                scaling.factors(size, theta).map(Some)
            }
            Some(kind) => Err(Error::Feature {
                what: format!(
                    "rotary positions of type {kind}; supported: default, {}",
                    if gemma { "linear" } else { "llama3" }
                ),
            }),
        }
    }
}

impl HuggingFace {
    fn config(self, architecture: Architecture) -> Result<Config, Error> {
        if self.attention_bias || self.mlp_bias {
            return Err(Error::Feature {
                what: "biases in linear layers where the architecture has none".to_owned(),
            });
        }
        let facts = architecture.facts();
        let known = match facts.curve {
            Curve::Silu => "silu",
            Curve::GeluTanh => "gelu_pytorch_tanh",
        };
        let curve = self.hidden_activation.as_ref().or(self.hidden_act.as_ref());
        if let Some(other) = curve.filter(|act| *act != known) {
            return Err(Error::Feature {
                what: format!("the activation {other}"),
            });
        }
        let rope = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let rope = rope.map(|rope| rope.full_attention.as_deref().unwrap_or(rope));
        let theta = rope.and_then(|rope| rope.rope_theta).or(self.rope_theta);
        let theta = theta.unwrap_or(match architecture {
            Architecture::Gemma3 => 1_000_000.0,
            _ => 10_000.0,
        });
        let heads = self.num_attention_heads;
        let even = || self.hidden_size.checked_div(heads).unwrap_or(0);
        let head_size = self.head_dim.unwrap_or_else(even);
        // Bounded before anything of its length is made.
        let factors = match rope {
            Some(rope) if head_size <= 1 << 16 => rope.factors(architecture, head_size, theta)?,
            _ => None,
        };
        let config = Config {
            architecture,
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            intermediate: self.intermediate_size,
            heads,
            kv_heads: self.num_key_value_heads.unwrap_or(heads),
            head_size,
            vocabulary: self.vocab_size,
            context: self.context(architecture),
            padding: None,
            epsilon: self.rms_norm_eps,
            rope_theta: theta,
            rope_factors: factors.unwrap_or_default(),
            tied: self.tie_word_embeddings.unwrap_or(facts.tied),
            score_scale: None,
            sliding: None,
        };
        config.checked()
    }

    /// With what Gemma 3 says beside.
    fn gemma(self, own: &gemma3::Said) -> Result<Config, Error> {
        own.refuse_unsupported()?;
        let (window, layers) = (self.sliding_window, self.num_hidden_layers);
        let near = self.rope_parameters.as_ref();
        let near = near.and_then(|rope| rope.sliding_attention.as_deref());
        let scaled = near.and_then(|rope| rope.rope_type.as_deref());
        if let Some(kind) = scaled.filter(|kind| *kind != "default") {
            return Err(Error::Feature {
                what: format!("rotary positions of type {kind} in layers with a window"),
            });
        }
        let theta = near.and_then(|rope| rope.rope_theta);
        let mut config = self.config(Architecture::Gemma3)?;
        let sliding = window.map(|window| own.sliding((window, theta), layers));
        config.sliding = sliding.transpose()?.flatten();
        let scale = own.score_scale();
        config.score_scale = (scale != config.scores_by()).then_some(scale);
        config.checked()
    }

    /// Up to a window's length a token sees everything before it: there the context ends.
    fn context(&self, architecture: Architecture) -> usize {
        let window = match architecture.facts().window {
            Window::Never | Window::Layers => None,
            Window::Given => self.sliding_window,
            Window::Used => self.sliding_window.filter(|_| self.use_sliding_window),
        };
        let whole = self.max_position_embeddings;
        whole.min(window.unwrap_or(whole))
    }
}

//! Model files: their configuration and their tensors by logical name.
//!
//! Tensors are read one by one and the file is never mapped, so that after loading nothing of it
//! stays in memory but what was asked for.

pub(crate) mod rows;

pub(crate) mod bert;
mod broken;
mod gemma3;
mod gguf;
pub(crate) mod gguf_config;
pub(crate) mod gpt2;
mod safetensors;

use std::collections::HashMap;
use std::fs;
use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use domain::adapter::{Projection, WeightName};

use crate::model::{Architecture, Config, Error, Norms};
use crate::text::Tokenizer;

/// A tensor of a model, whatever the file calls it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name {
    Embedding,
    Output,
    /// What is added at each position.
    Positions,
    FinalNorm,
    FinalNormBias,
    AttentionNorm(u16),
    AttentionNormBias(u16),
    FeedForwardNorm(u16),
    FeedForwardNormBias(u16),
    /// Behind attention, and behind the feed-forward network.
    AttentionPostNorm(u16),
    FeedForwardPostNorm(u16),
    /// Of each head of the queries, or of the keys.
    QueryNorm(u16),
    KeyNorm(u16),
    Bias(WeightName),
    Weight(WeightName),
    /// Of an encoder.
    Of(&'static str),
    /// A module's part in a layer of an encoder.
    OfLayer(u16, &'static str, &'static str),
    /// Beside an encoder.
    Top(&'static str),
}

/// An opened model.
pub(crate) enum Source {
    Gguf(gguf::File),
    Folder(safetensors::Folder),
}

impl Source {
    /// Opens a `.gguf` file, a folder with exactly one, or a Hugging Face folder.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let about = fs::metadata(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        if about.is_file() {
            return Ok(Self::Gguf(gguf::File::open(path)?));
        }
        if path.join("config.json").is_file() {
            return Ok(Self::Folder(safetensors::Folder::open(path)?));
        }
        Ok(Self::Gguf(gguf::File::open(&only_gguf(path)?)?))
    }

    pub(crate) fn config(&self) -> Result<Config, Error> {
        match self {
            Self::Gguf(file) => file.config(),
            Self::Folder(folder) => folder.config(),
        }
    }

    /// The sizes of a model from the beginning of one of its files: `config.json`, or a GGUF file as far as its
    /// tensors' data.
    pub(crate) fn config_of_start(file_name: &str, start: &[u8]) -> Result<Config, Error> {
        if file_name == "config.json" {
            return safetensors::config_of(start);
        }
        let mut start = Cursor::new(start);
        let content = Content::read(&mut start);
        let content = content.map_err(|source| Error::Header {
            path: file_name.into(),
            source: source.into(),
        })?;
        gguf_config::read(&content, |info| {
            gguf_config::vector(&mut start, &content, info)
        })
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, Error> {
        let tokenizer = match self {
            Self::Gguf(file) => file.tokenizer(),
            Self::Folder(folder) => Tokenizer::from_folder(folder.path()),
        };
        tokenizer.map_err(Error::Tokenizer)
    }

    /// The tensor `[rows, cols]` in the precision of the file.
    ///
    /// Rows of queries and keys come in Hugging Face's order, whatever the file's.
    pub(crate) fn matrix(
        &mut self,
        name: Name,
        rows: usize,
        cols: usize,
        config: &Config,
    ) -> Result<QTensor, Error> {
        match self {
            Self::Gguf(file) => file.matrix(name, rows, cols, config),
            Self::Folder(folder) => folder.tensor(name, &[rows, cols]),
        }
    }

    /// Rows of the embedding or output table `[rows, cols]`, `[range, cols]`, in the precision of
    /// the file: the one kind of tensor that may be too large to read whole.
    pub(crate) fn table_rows(
        &mut self,
        name: Name,
        (rows, cols): (usize, usize),
        range: Range<usize>,
    ) -> Result<QTensor, Error> {
        match self {
            Self::Gguf(file) => file.rows(name, &[rows, cols], range),
            Self::Folder(folder) => folder.rows(name, &[rows, cols], range),
        }
    }

    /// The tensor of this shape, `[rows, cols]` or `[len]`, in the precision of the file and in Hugging Face's
    /// order.
    pub(crate) fn tensor(
        &mut self,
        name: Name,
        shape: &[usize],
        config: &Config,
    ) -> Result<QTensor, Error> {
        match (self, shape) {
            (source, [rows, cols]) => source.matrix(name, *rows, *cols, config),
            (Self::Gguf(file), _) => file.rows(name, shape, 0..shape.iter().product()),
            (Self::Folder(folder), _) => folder.tensor(name, shape),
        }
    }

    /// How the files hold a tensor; none if they have none of that name.
    pub(crate) fn kind(&self, name: Name) -> Option<GgmlDType> {
        match self {
            Self::Gguf(file) => file.kind(name),
            Self::Folder(folder) => folder.kind(name),
        }
    }

    /// Rows of a tensor; none if the files have none of that name.
    pub(crate) fn rows_of(&self, name: Name) -> Option<usize> {
        match self {
            Self::Gguf(_) => None,
            Self::Folder(folder) => folder.rows_of(name),
        }
    }

    /// What a GGUF file says beside its tensors.
    pub(crate) const fn metadata(&self) -> Option<&HashMap<String, Value>> {
        match self {
            Self::Gguf(file) => Some(file.metadata()),
            Self::Folder(_) => None,
        }
    }

    /// The Hugging Face folder.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Gguf(_) => None,
            Self::Folder(folder) => Some(folder.path()),
        }
    }

    /// What the files call a tensor.
    pub(crate) fn called(&self, name: Name) -> String {
        match self {
            Self::Gguf(_) => name.in_gguf(),
            Self::Folder(folder) => folder.called(name),
        }
    }

    /// What is added to the values of a tensor for what is computed with: some folders hold weights less one.
    pub(crate) fn offset(&self, name: Name, config: &Config) -> f32 {
        match self {
            Self::Folder(_) if name.is_norm() => config.norm_offset(),
            _ => 0.0,
        }
    }

    /// Every file that the weights depend on, in a fixed order.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Gguf(file) => vec![file.path().to_owned()],
            Self::Folder(folder) => folder.files(),
        }
    }

    /// The values of a vector, or of the table of positions, in `f32`, as they are computed with.
    pub(crate) fn vector(
        &mut self,
        name: Name,
        len: usize,
        config: &Config,
    ) -> Result<Vec<f32>, Error> {
        let shape: &[usize] = match name {
            Name::Positions => &[config.context, config.hidden],
            _ => &[len],
        };
        let tensor = self.tensor(name, shape, config)?;
        let values = tensor
            .dequantize(&candle_core::Device::Cpu)
            .and_then(|tensor| tensor.flatten_all()?.to_vec1());
        let mut values: Vec<f32> = values.map_err(Error::Decode)?;
        let offset = self.offset(name, config);
        if offset != 0.0 {
            values.iter_mut().for_each(|value| *value += offset);
        }
        Ok(values)
    }
}

fn only_gguf(folder: &Path) -> Result<PathBuf, Error> {
    let unreadable = |source| Error::Read {
        path: folder.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "gguf")
        {
            found.push(path);
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        many => Err(Error::NoModel {
            path: folder.to_owned(),
            gguf_files: many.len(),
        }),
    }
}

/// The part of a block's tensor name that says which weight it is.
const fn gguf_module(projection: Projection) -> &'static str {
    match projection {
        Projection::Q => "attn_q",
        Projection::K => "attn_k",
        Projection::V => "attn_v",
        Projection::CAttn => "attn_qkv",
        Projection::O | Projection::AttnCProj => "attn_output",
        Projection::Gate => "ffn_gate",
        Projection::Up | Projection::CFc => "ffn_up",
        Projection::Down | Projection::MlpCProj => "ffn_down",
    }
}

/// What a folder of a model of this family calls the module of a weight.
fn module(weight: WeightName, family: Architecture) -> String {
    let encoder = family.encoder();
    let own = encoder.and_then(|encoder| weight.in_encoder(encoder));
    own.unwrap_or_else(|| weight.to_string())
}

fn in_gguf(name: WeightName, part: &str) -> String {
    let (layer, module) = (name.layer(), gguf_module(name.projection()));
    format!("blk.{layer}.{module}.{part}")
}

impl Name {
    /// Every tensor of a decoder with its shape, in a fixed order; an encoder's are [`bert::tensors`].
    pub(crate) fn all(config: &Config) -> Vec<(Self, Vec<usize>)> {
        let Config {
            hidden, vocabulary, ..
        } = *config;
        let table = vec![vocabulary, hidden];
        let mut all = vec![(Self::Embedding, table.clone())];
        if !config.tied {
            all.push((Self::Output, table));
        }
        let facts = config.architecture.facts();
        if facts.learned_positions {
            all.push((Self::Positions, vec![config.context, hidden]));
        }
        let biased = facts.norm == Norms::Layer;
        for layer in (0u16..).take(config.layers) {
            let mut norm = |name: fn(u16) -> Self| all.push((name(layer), vec![hidden]));
            norm(Self::AttentionNorm);
            norm(Self::FeedForwardNorm);
            if biased {
                norm(Self::AttentionNormBias);
                norm(Self::FeedForwardNormBias);
            }
            if facts.post_norms {
                norm(Self::AttentionPostNorm);
                norm(Self::FeedForwardPostNorm);
            }
            let biases = config.projections().filter(|own| config.has_bias(*own));
            all.extend(biases.map(|projection| {
                let weight = WeightName::new(layer, projection);
                (Self::Bias(weight), vec![config.shape(projection).0])
            }));
            if facts.head_norms {
                let head = vec![config.head_size];
                all.push((Self::QueryNorm(layer), head.clone()));
                all.push((Self::KeyNorm(layer), head));
            }
            all.extend(config.projections().map(|projection| {
                let (out, inp) = config.shape(projection);
                let weight = WeightName::new(layer, projection);
                (Self::Weight(weight), vec![out, inp])
            }));
        }
        all.push((Self::FinalNorm, vec![hidden]));
        if biased {
            all.push((Self::FinalNormBias, vec![hidden]));
        }
        all
    }

    /// Whether it is the weight of a normalization.
    pub(crate) const fn is_norm(self) -> bool {
        matches!(
            self,
            Self::FinalNorm
                | Self::AttentionNorm(_)
                | Self::FeedForwardNorm(_)
                | Self::AttentionPostNorm(_)
                | Self::FeedForwardPostNorm(_)
                | Self::QueryNorm(_)
                | Self::KeyNorm(_)
        )
    }

    pub(crate) fn in_gguf(self) -> String {
        match self {
            Self::Embedding => "token_embd.weight".to_owned(),
            Self::Output => "output.weight".to_owned(),
            Self::Positions => "position_embd.weight".to_owned(),
            Self::FinalNorm => "output_norm.weight".to_owned(),
            Self::FinalNormBias => "output_norm.bias".to_owned(),
            Self::AttentionNormBias(layer) => format!("blk.{layer}.attn_norm.bias"),
            Self::FeedForwardNormBias(layer) => format!("blk.{layer}.ffn_norm.bias"),
            Self::AttentionPostNorm(layer) => format!("blk.{layer}.post_attention_norm.weight"),
            Self::FeedForwardPostNorm(layer) => format!("blk.{layer}.post_ffw_norm.weight"),
            Self::AttentionNorm(layer) => format!("blk.{layer}.attn_norm.weight"),
            Self::FeedForwardNorm(layer) => format!("blk.{layer}.ffn_norm.weight"),
            Self::QueryNorm(layer) => format!("blk.{layer}.attn_q_norm.weight"),
            Self::KeyNorm(layer) => format!("blk.{layer}.attn_k_norm.weight"),
            Self::Bias(name) => in_gguf(name, "bias"),
            Self::Weight(name) => in_gguf(name, "weight"),
            // There are no encoders in GGUF here.
            Self::Of(_) | Self::OfLayer(..) | Self::Top(_) => self.in_folder(Architecture::Bert),
        }
    }

    /// What a folder of a model of this family calls it.
    pub(crate) fn in_folder(self, family: Architecture) -> String {
        if let (Architecture::Gpt2, Some(own)) = (family, gpt2::called(self)) {
            return own;
        }
        let encoder = family.encoder().unwrap_or_default();
        let pre = match family {
            Architecture::Gemma3 => "pre_feedforward_layernorm",
            _ => "post_attention_layernorm",
        };
        match self {
            Self::Embedding => "model.embed_tokens.weight".to_owned(),
            Self::Output => "lm_head.weight".to_owned(),
            Self::FinalNorm => "model.norm.weight".to_owned(),
            Self::AttentionNorm(layer) => format!("model.layers.{layer}.input_layernorm.weight"),
            Self::FeedForwardNorm(layer) => format!("model.layers.{layer}.{pre}.weight"),
            Self::AttentionPostNorm(layer) => {
                format!("model.layers.{layer}.post_attention_layernorm.weight")
            }
            Self::FeedForwardPostNorm(layer) => {
                format!("model.layers.{layer}.post_feedforward_layernorm.weight")
            }
            // Of GPT-2 alone, which names them above.
            Self::Positions => "model.embed_positions.weight".to_owned(),
            Self::FinalNormBias => "model.norm.bias".to_owned(),
            Self::AttentionNormBias(layer) => format!("model.layers.{layer}.input_layernorm.bias"),
            Self::FeedForwardNormBias(layer) => format!("model.layers.{layer}.{pre}.bias"),
            Self::QueryNorm(layer) => format!("model.layers.{layer}.self_attn.q_norm.weight"),
            Self::KeyNorm(layer) => format!("model.layers.{layer}.self_attn.k_norm.weight"),
            Self::Bias(name) => format!("{}.bias", module(name, family)),
            Self::Weight(name) => format!("{}.weight", module(name, family)),
            Self::Of(name) => format!("{}{name}", bert::prefix(encoder)),
            Self::OfLayer(layer, module, part) => bert::of_layer(encoder, (layer, module, part)),
            Self::Top(name) => name.to_owned(),
        }
    }
}

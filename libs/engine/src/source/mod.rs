//! Model files: their configuration and their tensors by logical name.
//!
//! Tensors are read one by one and the file is never mapped, so that after loading nothing of it
//! stays in memory but what was asked for.

pub(crate) mod rows;

mod gguf;
pub(crate) mod gguf_config;
mod safetensors;

use std::collections::HashMap;
use std::fs;
use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use domain::adapter::{Projection, WeightName};

use crate::model::{Config, Error};
use crate::text::Tokenizer;

/// A tensor of a model, whatever the file calls it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name {
    Embedding,
    Output,
    FinalNorm,
    AttentionNorm(u16),
    FeedForwardNorm(u16),
    /// Of each head of the queries, or of the keys.
    QueryNorm(u16),
    KeyNorm(u16),
    Bias(WeightName),
    Weight(WeightName),
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
            Self::Folder(_) => name.in_folder(),
        }
    }

    /// Every file that the weights depend on, in a fixed order.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Gguf(file) => vec![file.path().to_owned()],
            Self::Folder(folder) => folder.files(),
        }
    }

    /// The vector `[len]` in `f32`.
    pub(crate) fn vector(&mut self, name: Name, len: usize) -> Result<Vec<f32>, Error> {
        let tensor = match self {
            Self::Gguf(file) => file.vector(name, len),
            Self::Folder(folder) => folder.tensor(name, &[len]),
        }?;
        let values = tensor
            .dequantize(&candle_core::Device::Cpu)
            .and_then(|t| t.to_vec1());
        values.map_err(Error::Decode)
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
        Projection::O => "attn_output",
        Projection::Gate => "ffn_gate",
        Projection::Up => "ffn_up",
        Projection::Down => "ffn_down",
    }
}

fn in_gguf(name: WeightName, part: &str) -> String {
    let (layer, module) = (name.layer(), gguf_module(name.projection()));
    format!("blk.{layer}.{module}.{part}")
}

impl Name {
    /// Every tensor of a model with its shape, in a fixed order.
    pub(crate) fn all(config: &Config) -> Vec<(Self, Vec<usize>)> {
        let Config {
            hidden, vocabulary, ..
        } = *config;
        let table = vec![vocabulary, hidden];
        let mut all = vec![(Self::Embedding, table.clone())];
        if !config.tied {
            all.push((Self::Output, table));
        }
        for layer in (0u16..).take(config.layers) {
            all.push((Self::AttentionNorm(layer), vec![hidden]));
            all.push((Self::FeedForwardNorm(layer), vec![hidden]));
            let facts = config.architecture.facts();
            if facts.biases {
                all.extend(
                    [Projection::Q, Projection::K, Projection::V].map(|projection| {
                        let weight = WeightName::new(layer, projection);
                        (Self::Bias(weight), vec![config.shape(projection).0])
                    }),
                );
            }
            if facts.head_norms {
                let head = vec![config.head_size];
                all.push((Self::QueryNorm(layer), head.clone()));
                all.push((Self::KeyNorm(layer), head));
            }
            all.extend(Projection::ALL.map(|projection| {
                let (out, inp) = config.shape(projection);
                let weight = WeightName::new(layer, projection);
                (Self::Weight(weight), vec![out, inp])
            }));
        }
        all.push((Self::FinalNorm, vec![hidden]));
        all
    }

    pub(crate) fn in_gguf(self) -> String {
        match self {
            Self::Embedding => "token_embd.weight".to_owned(),
            Self::Output => "output.weight".to_owned(),
            Self::FinalNorm => "output_norm.weight".to_owned(),
            Self::AttentionNorm(layer) => format!("blk.{layer}.attn_norm.weight"),
            Self::FeedForwardNorm(layer) => format!("blk.{layer}.ffn_norm.weight"),
            Self::QueryNorm(layer) => format!("blk.{layer}.attn_q_norm.weight"),
            Self::KeyNorm(layer) => format!("blk.{layer}.attn_k_norm.weight"),
            Self::Bias(name) => in_gguf(name, "bias"),
            Self::Weight(name) => in_gguf(name, "weight"),
        }
    }

    pub(crate) fn in_folder(self) -> String {
        match self {
            Self::Embedding => "model.embed_tokens.weight".to_owned(),
            Self::Output => "lm_head.weight".to_owned(),
            Self::FinalNorm => "model.norm.weight".to_owned(),
            Self::AttentionNorm(layer) => format!("model.layers.{layer}.input_layernorm.weight"),
            Self::FeedForwardNorm(layer) => {
                format!("model.layers.{layer}.post_attention_layernorm.weight")
            }
            Self::QueryNorm(layer) => format!("model.layers.{layer}.self_attn.q_norm.weight"),
            Self::KeyNorm(layer) => format!("model.layers.{layer}.self_attn.k_norm.weight"),
            Self::Bias(name) => format!("{name}.bias"),
            Self::Weight(name) => format!("{name}.weight"),
        }
    }
}

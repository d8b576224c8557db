//! Model files: their configuration and their tensors by logical name.
//!
//! Tensors are read one by one and the file is never mapped, so that after loading nothing of it
//! stays in memory but what was asked for.

mod gguf;
mod safetensors;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::quantized::QTensor;
use domain::adapter::{Projection, WeightName};

use crate::model::{Config, Error};
use crate::text::Tokenizer;

/// A tensor of a Llama, whatever the file calls it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name {
    Embedding,
    Output,
    FinalNorm,
    AttentionNorm(u16),
    FeedForwardNorm(u16),
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

impl Name {
    fn in_gguf(self) -> String {
        match self {
            Self::Embedding => "token_embd.weight".to_owned(),
            Self::Output => "output.weight".to_owned(),
            Self::FinalNorm => "output_norm.weight".to_owned(),
            Self::AttentionNorm(layer) => format!("blk.{layer}.attn_norm.weight"),
            Self::FeedForwardNorm(layer) => format!("blk.{layer}.ffn_norm.weight"),
            Self::Weight(name) => format!(
                "blk.{}.{}.weight",
                name.layer(),
                gguf_module(name.projection())
            ),
        }
    }

    fn in_folder(self) -> String {
        match self {
            Self::Embedding => "model.embed_tokens.weight".to_owned(),
            Self::Output => "lm_head.weight".to_owned(),
            Self::FinalNorm => "model.norm.weight".to_owned(),
            Self::AttentionNorm(layer) => format!("model.layers.{layer}.input_layernorm.weight"),
            Self::FeedForwardNorm(layer) => {
                format!("model.layers.{layer}.post_attention_layernorm.weight")
            }
            Self::Weight(name) => format!("{name}.weight"),
        }
    }
}

//! GGUF files of architecture `llama`.
//!
//! llama.cpp's converter reorders the rows of queries and keys for a rotation of adjacent pairs.
//! They are put back at loading (whole rows, so that quantized blocks stay as they are), and
//! everything above, adapters included, sees Hugging Face's order.

use std::borrow::Cow;
use std::fs;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{QStorage, QTensor};
use domain::adapter::Projection;

use super::Name;
use crate::model::{Config, Error};
use crate::text::{self, Tokenizer};

const MAGIC: &[u8; 4] = b"GGUF";

pub(crate) struct File {
    path: PathBuf,
    reader: BufReader<fs::File>,
    bytes: u64,
    content: Content,
}

impl File {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let file = fs::File::open(path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        let mut reader = BufReader::new(file);
        let mut magic = [0; 4];
        if reader.read_exact(&mut magic).is_err() || &magic != MAGIC {
            return Err(Error::Magic {
                path: path.to_owned(),
            });
        }
        reader.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        let content = Content::read(&mut reader).map_err(|source| Error::Header {
            path: path.to_owned(),
            source: source.into(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            reader,
            bytes,
            content,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn tokenizer(&self) -> Result<Tokenizer, text::Error> {
        Tokenizer::from_gguf(&self.content)
    }

    pub(super) fn config(&self) -> Result<Config, Error> {
        let found = self
            .value("general.architecture")?
            .to_string()
            .map_err(|_| misfit("general.architecture"))?;
        if found != "llama" {
            return Err(Error::Architecture {
                found: found.clone(),
            });
        }
        let number = |key: &'static str| self.number(key);
        let (heads, hidden) = (
            number("llama.attention.head_count")?,
            number("llama.embedding_length")?,
        );
        let optional = |key: &'static str, default: usize| {
            if self.content.metadata.contains_key(key) {
                number(key)
            } else {
                Ok(default)
            }
        };
        let embedding = self.content.tensor_infos.get(&Name::Embedding.in_gguf());
        let vocabulary = embedding
            .and_then(|info| info.shape.dims().first())
            .copied();
        if self.content.tensor_infos.contains_key("rope_freqs.weight") || self.scaled_rope() {
            return Err(Error::Feature {
                what: "scaled rotary positions".to_owned(),
            });
        }
        if optional("llama.expert_count", 0)? > 0 {
            return Err(Error::Feature {
                what: "mixture of experts".to_owned(),
            });
        }
        let head_size = optional(
            "llama.attention.key_length",
            hidden.checked_div(heads).unwrap_or(0),
        )?;
        if optional("llama.rope.dimension_count", head_size)? != head_size {
            return Err(Error::Feature {
                what: "partly rotated heads".to_owned(),
            });
        }
        let config = Config {
            layers: number("llama.block_count")?,
            hidden,
            intermediate: number("llama.feed_forward_length")?,
            heads,
            kv_heads: optional("llama.attention.head_count_kv", heads)?,
            head_size,
            vocabulary: vocabulary.ok_or_else(|| Error::Missing {
                name: Name::Embedding.in_gguf(),
            })?,
            context: number("llama.context_length")?,
            epsilon: self.real("llama.attention.layer_norm_rms_epsilon")?,
            rope_theta: if self.content.metadata.contains_key("llama.rope.freq_base") {
                self.real("llama.rope.freq_base")?
            } else {
                10_000.0
            },
            tied: !self
                .content
                .tensor_infos
                .contains_key(&Name::Output.in_gguf()),
        };
        config.checked()
    }

    fn scaled_rope(&self) -> bool {
        let kind = self.content.metadata.get("llama.rope.scaling.type");
        kind.and_then(|kind| kind.to_string().ok())
            .is_some_and(|kind| kind != "none")
    }

    fn value(&self, key: &'static str) -> Result<&Value, Error> {
        self.content.metadata.get(key).ok_or_else(|| misfit(key))
    }

    fn number(&self, key: &'static str) -> Result<usize, Error> {
        let value = self.value(key)?;
        let wide = value
            .to_u64()
            .or_else(|_| value.to_u32().map(u64::from))
            .or_else(|_| value.to_i32().map(|v| v.max(0) as u64));
        wide.ok()
            .and_then(|v| usize::try_from(v).ok())
            .ok_or_else(|| misfit(key))
    }

    fn real(&self, key: &'static str) -> Result<f32, Error> {
        self.value(key)?.to_f32().map_err(|_| misfit(key))
    }

    pub(super) fn vector(&mut self, name: Name, len: usize) -> Result<QTensor, Error> {
        self.rows(name, &[len], 0..len)
    }

    pub(super) fn matrix(
        &mut self,
        name: Name,
        rows: usize,
        cols: usize,
        config: &Config,
    ) -> Result<QTensor, Error> {
        let tensor = self.rows(name, &[rows, cols], 0..rows)?;
        match name {
            Name::Weight(weight)
                if matches!(weight.projection(), Projection::Q | Projection::K) =>
            {
                restore_rows(&tensor, rows, cols, config.head_size)
            }
            _ => Ok(tensor),
        }
    }

    /// Some rows of the tensor, which is of the expected shape, in the file's order.
    pub(super) fn rows(
        &mut self,
        name: Name,
        expected: &[usize],
        range: Range<usize>,
    ) -> Result<QTensor, Error> {
        let name = name.in_gguf();
        let info = self
            .content
            .tensor_infos
            .get(&name)
            .ok_or_else(|| Error::Missing { name: name.clone() })?;
        let (kind, dims) = (info.ggml_dtype, info.shape.dims());
        let whole = dims
            .last()
            .is_some_and(|last| last.is_multiple_of(kind.block_size()));
        if dims != expected || !whole {
            return Err(Error::Shape {
                name,
                expected: expected.to_vec(),
                found: dims.to_vec(),
            });
        }
        let size = expected.iter().product::<usize>() / kind.block_size() * kind.type_size();
        let start = self.content.tensor_data_offset.saturating_add(info.offset);
        let end = start.saturating_add(size as u64);
        if end > self.bytes {
            return Err(Error::Truncated {
                path: self.path.clone(),
                name,
                missing_bytes: end - self.bytes,
            });
        }
        let (count, rest) = expected.split_first().unwrap_or((&1, &[]));
        let row_bytes = size / (*count).max(1);
        let unreadable = |source| Error::Read {
            path: self.path.clone(),
            source,
        };
        let first = start + (range.start * row_bytes) as u64;
        self.reader
            .seek(SeekFrom::Start(first))
            .map_err(unreadable)?;
        let mut data = vec![0; range.len() * row_bytes];
        self.reader.read_exact(&mut data).map_err(unreadable)?;
        let storage =
            QStorage::from_data(Cow::Owned(data), &Device::Cpu, kind).map_err(Error::Decode)?;
        let shape = [&[range.len()], rest].concat();
        QTensor::new(storage, shape).map_err(Error::Decode)
    }
}

fn misfit(key: &'static str) -> Error {
    Error::Setting {
        key: key.to_owned(),
    }
}

/// Undoes llama.cpp's reordering: its row `2·j + half` of a head is ours `half·size/2 + j`.
fn restore_rows(
    tensor: &QTensor,
    rows: usize,
    cols: usize,
    head_size: usize,
) -> Result<QTensor, Error> {
    let kind = tensor.dtype();
    let row_bytes = cols / kind.block_size() * kind.type_size();
    let data = tensor.data().map_err(Error::Decode)?;
    let mut restored = Vec::with_capacity(data.len());
    for row in 0..rows {
        let (head, inner) = (row / head_size, row % head_size);
        let (half, j) = (inner / (head_size / 2), inner % (head_size / 2));
        let from = (head * head_size + 2 * j + half) * row_bytes;
        restored.extend_from_slice(data.get(from..from + row_bytes).unwrap_or_default());
    }
    let storage =
        QStorage::from_data(Cow::Owned(restored), &Device::Cpu, kind).map_err(Error::Decode)?;
    QTensor::new(storage, (rows, cols)).map_err(Error::Decode)
}

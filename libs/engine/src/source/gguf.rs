//! GGUF files.
//!
//! llama.cpp's converter reorders the rows of queries and keys for a rotation of adjacent pairs.
//! They are put back at loading (whole rows, so that quantized blocks stay as they are), and
//! everything above, adapters included, sees Hugging Face's order.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};

use super::broken::Broken;
use super::{Name, gguf_config, rows};
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
        let content = Content::read(&mut reader);
        let content = content.map_err(|source| Error::Header {
            path: path.to_owned(),
            source: Broken::at(reader.stream_position().unwrap_or_default(), &source),
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

    pub(super) fn kind(&self, name: Name) -> Option<GgmlDType> {
        let info = self.content.tensor_infos.get(&name.in_gguf());
        info.map(|info| info.ggml_dtype)
    }

    pub(super) const fn metadata(&self) -> &HashMap<String, Value> {
        &self.content.metadata
    }

    pub(super) fn tokenizer(&self) -> Result<Tokenizer, text::Error> {
        Tokenizer::from_gguf(&self.content)
    }

    pub(super) fn config(&self) -> Result<Config, Error> {
        gguf_config::read(&self.content, |info| {
            // Another handle: whoever asks for sizes only borrows this one.
            let mut file = fs::File::open(&self.path).map_err(|source| Error::Read {
                path: self.path.clone(),
                source,
            })?;
            gguf_config::vector(&mut file, &self.content, info)
        })
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
            Name::Weight(weight) => match config.turned(weight.projection()) {
                Some(head) => restored(&tensor, head),
                None => Ok(tensor),
            },
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
                bytes: self.bytes,
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

/// The rows in Hugging Face's order.
fn restored(tensor: &QTensor, head: usize) -> Result<QTensor, Error> {
    let (kind, shape) = (tensor.dtype(), tensor.shape().clone());
    let data = tensor.data().map_err(Error::Decode)?;
    let count = shape.dims().first().copied().unwrap_or(1).max(1);
    let data = rows::restore(&data, data.len() / count, head);
    let storage =
        QStorage::from_data(Cow::Owned(data), &Device::Cpu, kind).map_err(Error::Decode)?;
    QTensor::new(storage, shape).map_err(Error::Decode)
}

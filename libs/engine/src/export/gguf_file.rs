//! A GGUF file, written tensor by tensor.
//!
//! Version 3 of <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>: metadata, what the tensors are
//! called and where they lie, then their data, each at a multiple of 32 bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;

use super::Error;
use super::error::unwritable;

const ALIGNMENT: usize = 32;
const VERSION: u32 = 3;
/// The type of an empty list, of which nothing says what it would hold.
const STRINGS: u32 = 8;

/// What a file says beside its tensors, in a fixed order.
pub(super) type Metadata = BTreeMap<String, Value>;

/// What the header says of a tensor.
pub(super) struct Info {
    pub(super) name: String,
    pub(super) kind: GgmlDType,
    /// Rows first; the file has it the other way round.
    pub(super) shape: Vec<usize>,
}

/// A file under way.
pub(super) struct Writer {
    path: PathBuf,
    out: BufWriter<File>,
}

impl Writer {
    /// Writes everything before the data; the tensors are to follow in the same order.
    pub(super) fn create(path: &Path, about: &Metadata, tensors: &[Info]) -> Result<Self, Error> {
        let mut header = Vec::new();
        header.extend_from_slice(b"GGUF");
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
        header.extend_from_slice(&(about.len() as u64).to_le_bytes());
        for (key, value) in about {
            string(&mut header, key);
            header.extend_from_slice(&type_of(value).to_le_bytes());
            put(&mut header, value);
        }
        let mut offset = 0;
        for Info { name, kind, shape } in tensors {
            string(&mut header, name);
            header.extend_from_slice(&(shape.len() as u32).to_le_bytes());
            for width in shape.iter().rev() {
                header.extend_from_slice(&(*width as u64).to_le_bytes());
            }
            header.extend_from_slice(&number(*kind).to_le_bytes());
            header.extend_from_slice(&(offset as u64).to_le_bytes());
            offset += bytes(*kind, shape).next_multiple_of(ALIGNMENT);
        }
        let file = File::create(path).map_err(unwritable(path))?;
        let mut writer = Self {
            path: path.to_owned(),
            out: BufWriter::new(file),
        };
        writer.tensor(&header)?;
        Ok(writer)
    }

    /// The next tensor's bytes, and what makes the one after it begin where it must.
    pub(super) fn tensor(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let padding = [0; ALIGNMENT];
        let missing = bytes.len().next_multiple_of(ALIGNMENT) - bytes.len();
        let written = self.out.write_all(bytes);
        let written = written.and_then(|()| self.out.write_all(padding.split_at(missing).0));
        written.map_err(unwritable(self.path.clone()))
    }

    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.out.flush().map_err(unwritable(self.path))
    }
}

/// Bytes of a tensor.
fn bytes(kind: GgmlDType, shape: &[usize]) -> usize {
    shape.iter().product::<usize>() / kind.block_size() * kind.type_size()
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// `gguf_metadata_value_type`
fn type_of(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => STRINGS,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.push(*v),
        Value::I8(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(text) => string(out, text),
        Value::Array(values) => {
            let kind = values.first().map_or(STRINGS, type_of);
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&(values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| put(out, value));
        }
    }
}

/// `ggml_type`
const fn number(kind: GgmlDType) -> u32 {
    match kind {
        GgmlDType::F32 => 0,
        GgmlDType::F16 => 1,
        GgmlDType::Q4_0 => 2,
        GgmlDType::Q4_1 => 3,
        GgmlDType::Q5_0 => 6,
        GgmlDType::Q5_1 => 7,
        GgmlDType::Q8_0 => 8,
        GgmlDType::Q8_1 => 9,
        GgmlDType::Q2K => 10,
        GgmlDType::Q3K => 11,
        GgmlDType::Q4K => 12,
        GgmlDType::Q5K => 13,
        GgmlDType::Q6K => 14,
        GgmlDType::Q8K => 15,
        GgmlDType::BF16 => 30,
    }
}

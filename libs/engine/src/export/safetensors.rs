//! A safetensors file, written tensor by tensor: its header needs only kinds and shapes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use serde_json::{Map, Value, json};

use super::Error;
use super::error::unwritable;

/// What the header says of a tensor.
pub(super) struct Info {
    pub(super) name: String,
    pub(super) kind: GgmlDType,
    pub(super) shape: Vec<usize>,
}

/// A file under way.
pub(super) struct Writer {
    path: PathBuf,
    out: BufWriter<File>,
}

impl Writer {
    /// Writes the header; the tensors are to follow in the same order. All kinds are floating-point.
    pub(super) fn create(path: &Path, tensors: &[Info]) -> Result<Self, Error> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
        let mut offset = 0;
        for Info { name, kind, shape } in tensors {
            let end = offset + shape.iter().product::<usize>() * kind.type_size();
            let about =
                json!({ "dtype": dtype(*kind), "shape": shape, "data_offsets": [offset, end] });
            header.insert(name.clone(), about);
            offset = end;
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        // The data begins at a multiple of eight, as the format's own writer has it.
        text.resize(text.len().next_multiple_of(8), b' ');
        let file = File::create(path).map_err(unwritable(path))?;
        let mut writer = Self {
            path: path.to_owned(),
            out: BufWriter::new(file),
        };
        writer.write(&(text.len() as u64).to_le_bytes())?;
        writer.write(&text)?;
        Ok(writer)
    }

    /// The next tensor's bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out
            .write_all(bytes)
            .map_err(unwritable(self.path.clone()))
    }

    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.out.flush().map_err(unwritable(self.path))
    }
}

const fn dtype(kind: GgmlDType) -> &'static str {
    match kind {
        GgmlDType::F16 => "F16",
        GgmlDType::BF16 => "BF16",
        // Invariant: whoever writes this format asks for floating-point kinds alone.
        _ => "F32",
    }
}

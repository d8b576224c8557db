//! How a quantized model lies in a file.
//!
//! Magic, version, base, the identity of its source; then every weight in the order of
//! [`Parts::gather`](crate::model::load::Parts::gather), numbers little-endian and without lengths,
//! which follow from the configuration; then the SHA-256 of all of it.

use std::fs;
use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use super::Identity;
use crate::model::load::Weights;
use crate::model::quantize::{Int8, Magnitudes, Nf4};
use crate::model::{Base, Matrix};
use crate::source::Name;

/// Raise it with every change of the layout or of what quantization gives.
pub(super) const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"fedpipeQ";
const DIGEST_BYTES: u64 = 32;
/// Numbers converted at once.
const CHUNK: usize = 1 << 14;

/// The base's name in files.
pub(super) const fn name(base: Base) -> &'static str {
    match base {
        Base::Source => "source",
        Base::F32 => "f32",
        Base::Bf16 => "bf16",
        Base::Int8 => "int8",
        Base::Nf4 => "nf4",
    }
}

fn header(identity: &Identity, base: Base) -> Vec<u8> {
    let mut base_name = [0; 8];
    for (own, byte) in base_name.iter_mut().zip(name(base).bytes()) {
        *own = byte;
    }
    [
        MAGIC.as_slice(),
        &VERSION.to_le_bytes(),
        &base_name,
        identity.bytes(),
    ]
    .concat()
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes and hashes.
pub(super) struct Writer<W> {
    out: W,
    hasher: Sha256,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, identity: &Identity, base: Base) -> io::Result<Self> {
        let hasher = Sha256::new();
        let mut writer = Self { out, hasher };
        writer.bytes(&header(identity, base))?;
        Ok(writer)
    }

    pub(super) fn vector(&mut self, values: &[f32]) -> io::Result<()> {
        for chunk in values.chunks(CHUNK) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|v| v.to_le_bytes()).collect();
            self.bytes(&bytes)?;
        }
        Ok(())
    }

    pub(super) fn matrix(&mut self, matrix: &Matrix) -> io::Result<()> {
        match matrix {
            Matrix::Int8(matrix) => {
                for chunk in matrix.codes().chunks(CHUNK) {
                    let bytes: Vec<u8> = chunk.iter().map(|code| code.cast_unsigned()).collect();
                    self.bytes(&bytes)?;
                }
                self.vector(matrix.scales())
            }
            Matrix::Nf4(matrix) => {
                let Magnitudes {
                    codes,
                    scales,
                    offset,
                } = matrix.magnitudes();
                self.bytes(matrix.codes())?;
                self.bytes(codes)?;
                self.vector(scales)?;
                self.vector(&[*offset])
            }
            Matrix::Dense { .. } | Matrix::Source { .. } | Matrix::Bf16(_) => {
                Err(io::Error::other("only int8 and nf4 are kept"))
            }
        }
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        let digest = self.hasher.finalize();
        self.out.write_all(&digest)?;
        self.out.flush()
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Reads and hashes. What it gave counts only if [`Reader::finish`] agrees.
pub(super) struct Reader {
    file: fs::File,
    hasher: Sha256,
    /// Bytes before the digest that are not read yet: nothing larger is ever allocated.
    left: u64,
}

impl Reader {
    pub(super) fn new(file: fs::File, identity: &Identity, base: Base) -> io::Result<Self> {
        let left = file.metadata()?.len().saturating_sub(DIGEST_BYTES);
        let mut reader = Self {
            file,
            hasher: Sha256::new(),
            left,
        };
        let wanted = header(identity, base);
        if reader.bytes(wanted.len())? != wanted {
            return Err(damaged("it begins with the wrong bytes"));
        }
        Ok(reader)
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        let mut digest = [0; DIGEST_BYTES as usize];
        if self.left > 0 {
            return Err(damaged("it is too long"));
        }
        self.file.read_exact(&mut digest)?;
        if digest != *self.hasher.finalize() {
            return Err(damaged("its digest is wrong"));
        }
        Ok(())
    }

    fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let left = self.left.checked_sub(count as u64);
        self.left = left.ok_or_else(|| damaged("it is cut short"))?;
        let mut bytes = vec![0; count];
        for chunk in bytes.chunks_mut(1 << 20) {
            self.file.read_exact(chunk)?;
            self.hasher.update(chunk);
        }
        Ok(bytes)
    }

    fn values(&mut self, count: usize) -> io::Result<Vec<f32>> {
        let size = count
            .checked_mul(4)
            .ok_or_else(|| damaged("it is cut short"))?;
        let bytes = self.bytes(size)?;
        let (values, _) = bytes.as_chunks();
        Ok(values.iter().map(|v| f32::from_le_bytes(*v)).collect())
    }
}

impl Weights for Reader {
    type Error = io::Error;

    fn vector(&mut self, _name: Name, len: usize) -> io::Result<Vec<f32>> {
        self.values(len)
    }

    fn matrix(&mut self, names: &[(Name, usize)], cols: usize, base: Base) -> io::Result<Matrix> {
        let rows = names.iter().map(|(_, rows)| rows).sum();
        let matrix = match base {
            Base::Int8 => {
                let codes = self.bytes(rows * cols)?;
                let codes = codes.into_iter().map(u8::cast_signed).collect();
                Int8::from_parts(codes, self.values(rows)?, cols).map(Matrix::Int8)
            }
            Base::Nf4 => {
                let sizes = Nf4::sizes(rows, cols);
                let codes = self.bytes(sizes.codes)?;
                let magnitudes = Magnitudes {
                    codes: self.bytes(sizes.magnitudes)?,
                    scales: self.values(sizes.scales)?,
                    offset: self.values(1)?.first().copied().unwrap_or_default(),
                };
                Nf4::from_parts(codes, magnitudes, rows, cols).map(Matrix::Nf4)
            }
            Base::Source | Base::F32 | Base::Bf16 => None,
        };
        matrix.ok_or_else(|| damaged("its sizes do not match"))
    }
}

//! Writing: shapes first, then the values of one tensor after the other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::Error;
use crate::download::{partial_path, rename_durably};

/// Writes F32 tensors in the order of their names. The file has its name only after
/// [`TensorWriter::finish`]; until then it is `<path>.partial`.
#[derive(Debug)]
pub struct TensorWriter {
    path: PathBuf,
    file: BufWriter<File>,
    /// What is still to be written, in order.
    waiting: std::vec::IntoIter<(String, usize)>,
}

impl TensorWriter {
    /// Declares every tensor (name and shape, in any order) and the free texts of the header
    /// (PEFT wants `format` = `pt`), and writes the header.
    ///
    /// # Errors
    /// [`Error::Declaration`] for a name that is there twice, is reserved, or whose shape
    /// overflows; [`Error::Io`].
    pub fn create(
        path: &Path,
        tensors: impl IntoIterator<Item = (String, Vec<usize>)>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let mut sorted = BTreeMap::new();
        for (tensor, shape) in tensors {
            if tensor == METADATA || sorted.contains_key(&tensor) {
                return Err(Error::Declaration { tensor });
            }
            sorted.insert(tensor, shape);
        }
        let mut infos = Vec::with_capacity(sorted.len());
        let mut waiting = Vec::with_capacity(sorted.len());
        let mut start = 0usize;
        for (tensor, shape) in sorted {
            let count = shape
                .iter()
                .try_fold(1usize, |product, dim| product.checked_mul(*dim));
            let end = count.and_then(|count| count.checked_mul(4)?.checked_add(start));
            let (Some(count), Some(end)) = (count, end) else {
                return Err(Error::Declaration { tensor });
            };
            let info = TensorInfo {
                dtype: Dtype::F32,
                shape,
                data_offsets: (start, end),
            };
            infos.push((tensor.clone(), info));
            waiting.push((tensor, count));
            start = end;
        }
        let header = Header {
            metadata,
            tensors: infos,
        }
        .to_bytes()?;
        let io = |e| Error::io(path, e);
        let mut file =
            BufWriter::with_capacity(1 << 18, File::create(partial_path(path)).map_err(io)?);
        file.write_all(&(header.len() as u64).to_le_bytes())
            .map_err(io)?;
        file.write_all(&header).map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            waiting: waiting.into_iter(),
        })
    }

    /// Writes the next tensor, in row-major order; `tensor` must be the next name in sorted order.
    ///
    /// # Errors
    /// [`Error::Turn`] if it is not, or has another number of values than declared; [`Error::Io`].
    pub fn write(&mut self, tensor: &str, values: &[f32]) -> Result<(), Error> {
        let turn = |expected| Error::Turn {
            tensor: tensor.to_owned(),
            expected,
        };
        match self.waiting.as_slice().first() {
            Some((name, count)) if name == tensor && *count == values.len() => {}
            Some((_, count)) => return Err(turn(*count)),
            None => return Err(turn(0)),
        }
        for value in values {
            let written = self.file.write_all(&value.to_le_bytes());
            written.map_err(|e| Error::io(&self.path, e))?;
        }
        self.waiting.next();
        Ok(())
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`Error::Turn`] if a tensor is still missing; [`Error::Io`].
    pub fn finish(mut self) -> Result<(), Error> {
        if let Some((tensor, expected)) = self.waiting.next() {
            return Err(Error::Turn { tensor, expected });
        }
        let io = |e| Error::io(&self.path, e);
        self.file.flush().map_err(io)?;
        self.file.get_ref().sync_all().map_err(io)?;
        rename_durably(&partial_path(&self.path), &self.path).map_err(|e| match e {
            crate::Error::Io { source, .. } => Error::io(&self.path, source),
            other => Error::io(&self.path, std::io::Error::other(other)),
        })
    }
}

const METADATA: &str = "__metadata__";

/// The header in the one order that makes its bytes deterministic.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, TensorInfo)>,
}

impl Header {
    /// JSON, padded with spaces to a multiple of 8 as the `safetensors` crate does.
    fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = serde_json::to_vec(self)
            .map_err(|e| Error::Header(safetensors::SafeTensorError::JsonError(e)))?;
        bytes.resize(bytes.len().next_multiple_of(8), b' ');
        Ok(bytes)
    }
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry(METADATA, &self.metadata)?;
        }
        for (name, info) in &self.tensors {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::tensors::{TensorFile, check_finite};

    fn declared() -> Vec<(String, Vec<usize>)> {
        vec![
            ("b.weight".into(), vec![2, 3]),
            ("a.weight".into(), vec![1]),
            ("c".into(), vec![0]),
        ]
    }

    #[test]
    fn bytes_equal_those_of_the_safetensors_crate() {
        let format = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        for metadata in [BTreeMap::new(), format] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.safetensors");
            let mut writer = TensorWriter::create(&path, declared(), metadata.clone()).unwrap();
            let six = [1.0f32, -2.0, 3.5, f32::MIN_POSITIVE, 0.0, -0.0];
            writer.write("a.weight", &[7.0]).unwrap();
            writer.write("b.weight", &six).unwrap();
            writer.write("c", &[]).unwrap();
            assert!(!path.exists(), "has its name before it is complete");
            writer.finish().unwrap();

            let a = 7.0f32.to_le_bytes();
            let b: Vec<u8> = six.iter().flat_map(|x| x.to_le_bytes()).collect();
            let view = |shape, bytes| TensorView::new(Dtype::F32, shape, bytes).unwrap();
            let views = [
                ("b.weight", view(vec![2, 3], &b)),
                ("c", view(vec![0], &[])),
                ("a.weight", view(vec![1], &a)),
            ];
            let theirs = (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect());
            let expected = safetensors::serialize(views, theirs).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), expected);

            let file = TensorFile::open(&path).unwrap();
            assert_eq!(file.read_f32("b.weight").unwrap(), six);
            assert_eq!(*file.metadata(), metadata);
        }
    }

    #[test]
    fn a_tensor_out_of_turn_misshapen_or_missing_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let mut writer = TensorWriter::create(&path, declared(), BTreeMap::new()).unwrap();
        assert!(matches!(
            writer.write("b.weight", &[0.0; 6]),
            Err(Error::Turn { .. })
        ));
        assert!(matches!(
            writer.write("a.weight", &[0.0; 2]),
            Err(Error::Turn { expected: 1, .. })
        ));
        writer.write("a.weight", &[0.0]).unwrap();
        assert!(matches!(
            writer.finish(),
            Err(Error::Turn { expected: 6, .. })
        ));
        assert!(!path.exists());
    }

    #[test]
    fn a_name_is_declared_once_and_a_shape_fits_the_address_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let huge = vec![("a".to_owned(), vec![usize::MAX, 2])];
        let twice = vec![("a".to_owned(), vec![1]), ("a".to_owned(), vec![1])];
        let reserved = vec![("__metadata__".to_owned(), vec![1])];
        for tensors in [huge, twice, reserved] {
            let created = TensorWriter::create(&path, tensors, BTreeMap::new());
            assert!(matches!(created, Err(Error::Declaration { .. })));
        }
    }

    #[test]
    fn the_first_number_that_is_not_finite_is_named() {
        assert!(check_finite("a", &[0.0, 1.0]).is_ok());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = check_finite("a", &[0.0, bad, bad]).unwrap_err();
            assert!(matches!(error, Error::NotFinite { index: 1, .. }));
        }
    }
}

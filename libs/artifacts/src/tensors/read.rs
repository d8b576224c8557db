//! Reading: the header once, then any tensor by its position.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::{Error, HEADER_BYTES};

/// Bytes read at once while a tensor is converted; a multiple of every element's length.
const CHUNK: usize = 256 * 1024;

/// What a header says: where each tensor lies. Files that were written alike share one.
#[derive(Debug)]
pub struct Layout {
    header: Vec<u8>,
    /// Where the tensors begin in the file, in bytes.
    data_start: u64,
    length: u64,
    tensors: BTreeMap<String, TensorInfo>,
    metadata: BTreeMap<String, String>,
}

impl Layout {
    /// Reads and judges a header; `length` is the file's.
    fn new(header: Vec<u8>, length: u64) -> Result<Self, Error> {
        let parsed: Metadata = serde_json::from_slice(&header).map_err(|e| {
            Error::Header(safetensors::SafeTensorError::InvalidHeaderDeserialization(
                e,
            ))
        })?;
        let data_start = 8 + header.len() as u64;
        let expected = data_start.saturating_add(parsed.data_len() as u64);
        if expected != length {
            return Err(Error::Length {
                expected,
                found: length,
            });
        }
        let infos = parsed.tensors().into_iter();
        let tensors: BTreeMap<String, TensorInfo> =
            infos.map(|(name, info)| (name, info.clone())).collect();
        for (name, info) in &tensors {
            if !matches!(info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
                let dtype = format!("{:?}", info.dtype);
                return Err(Error::Type {
                    tensor: name.clone(),
                    dtype,
                });
            }
        }
        let metadata = parsed.metadata().clone().unwrap_or_default();
        Ok(Self {
            header,
            data_start,
            length,
            tensors,
            metadata: metadata.into_iter().collect(),
        })
    }

    /// The names, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, outermost dimension first.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|info| info.shape.as_slice())
    }
}

/// An open safetensors file; only its header is in memory.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    layout: Arc<Layout>,
}

impl TensorFile {
    /// Reads and judges the header.
    ///
    /// # Errors
    /// [`Error::HeaderLength`], [`Error::Header`], [`Error::Length`] and [`Error::Type`] for files
    /// that are cut short, lie about offsets, or hold something else than floating point numbers.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_like(path, None)
    }

    /// Like [`TensorFile::open`]; a file whose header is that of `like`, byte for byte, shares it.
    ///
    /// # Errors
    /// As [`TensorFile::open`].
    pub fn open_like(path: &Path, like: Option<&Arc<Layout>>) -> Result<Self, Error> {
        let io = |e| Error::io(path, e);
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut prefix = [0; 8];
        if length < 8 {
            return Err(Error::HeaderLength { bytes: 0 });
        }
        file.read_exact_at(&mut prefix, 0).map_err(io)?;
        let header_bytes = u64::from_le_bytes(prefix);
        if header_bytes > HEADER_BYTES || header_bytes > length - 8 {
            return Err(Error::HeaderLength {
                bytes: header_bytes,
            });
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact_at(&mut header, 8).map_err(io)?;
        let same = like.filter(|like| like.length == length && like.header == header);
        let layout = match same {
            Some(like) => Arc::clone(like),
            None => Arc::new(Layout::new(header, length)?),
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            layout,
        })
    }

    /// Opens a file again that was found to have this layout.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Length`] if it has another length now.
    pub fn with_layout(path: &Path, layout: &Arc<Layout>) -> Result<Self, Error> {
        let io = |e| Error::io(path, e);
        let file = File::open(path).map_err(io)?;
        let found = file.metadata().map_err(io)?.len();
        if found != layout.length {
            let expected = layout.length;
            return Err(Error::Length { expected, found });
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            layout: Arc::clone(layout),
        })
    }

    /// What its header says.
    #[must_use]
    pub const fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The names, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.layout.names()
    }

    /// Hands each tensor to `take` with its name, in their order; one is in memory at a time.
    ///
    /// # Errors
    /// As [`TensorFile::read_f32`].
    pub fn each(&self, mut take: impl FnMut(&str, &[f32])) -> Result<(), Error> {
        for name in self.names() {
            take(name, &self.read_f32(name)?);
        }
        Ok(())
    }

    /// The shape of a tensor, outermost dimension first.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.layout.shape(name)
    }

    /// The free texts of the header.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.layout.metadata
    }

    /// Reads a tensor in row-major order; BF16 and F16 become F32 without loss.
    ///
    /// # Errors
    /// [`Error::Missing`], or [`Error::Io`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, Error> {
        let info = self.layout.tensors.get(name);
        let info = info.ok_or_else(|| Error::Missing {
            tensor: name.to_owned(),
        })?;
        let (start, end) = info.data_offsets;
        let mut values = Vec::with_capacity((end - start) / (info.dtype.bitsize() / 8));
        let mut buffer = vec![0; CHUNK.min(end - start)];
        let mut at = start;
        while at < end {
            let length = CHUNK.min(end - at);
            // Invariant: `length` is at most the buffer's.
            let Some(chunk) = buffer.get_mut(..length) else {
                break;
            };
            let offset = self.layout.data_start + at as u64;
            self.file
                .read_exact_at(chunk, offset)
                .map_err(|e| Error::io(&self.path, e))?;
            convert(info.dtype, chunk, &mut values);
            at += length;
        }
        Ok(values)
    }
}

fn convert(dtype: Dtype, bytes: &[u8], values: &mut Vec<f32>) {
    match dtype {
        Dtype::BF16 => {
            values.extend(
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| bf16::from_le_bytes(*b).to_f32()),
            );
        }
        Dtype::F16 => {
            values.extend(
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| f16::from_le_bytes(*b).to_f32()),
            );
        }
        // Invariant: `open` lets no other type in.
        _ => values.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    fn open(bytes: &[u8]) -> Result<TensorFile, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        std::fs::write(&path, bytes).unwrap();
        TensorFile::open(&path)
    }

    fn with_header(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    #[test]
    fn half_precision_becomes_f32_without_loss() {
        let numbers = [0.0f32, -1.5, 0.25, 3.0];
        let bf: Vec<u8> = numbers
            .iter()
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect();
        let hf: Vec<u8> = numbers
            .iter()
            .flat_map(|x| f16::from_f32(*x).to_le_bytes())
            .collect();
        let views = [
            ("b", TensorView::new(Dtype::BF16, vec![2, 2], &bf).unwrap()),
            ("a", TensorView::new(Dtype::F16, vec![4], &hf).unwrap()),
        ];
        let file = open(&safetensors::serialize(views, None).unwrap()).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(file.shape("b"), Some([2, 2].as_slice()));
        assert_eq!(file.read_f32("a").unwrap(), numbers);
        assert_eq!(file.read_f32("b").unwrap(), numbers);
        let mut each = Vec::new();
        file.each(|name, values| each.push((name.to_owned(), values.to_vec())))
            .unwrap();
        let both = ["a", "b"].map(|name| (name.to_owned(), numbers.to_vec()));
        assert_eq!(each, both);
        assert!(matches!(file.read_f32("c"), Err(Error::Missing { .. })));
    }

    #[test]
    fn a_tensor_longer_than_the_buffer_is_read_whole() {
        let numbers: Vec<f32> = (0..200_001).map(|i| i as f32).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![200_001], &bytes).unwrap();
        let file = open(&safetensors::serialize([("a", view)], None).unwrap()).unwrap();
        assert_eq!(file.read_f32("a").unwrap(), numbers);
    }

    #[test]
    fn lies_in_the_header_are_refused() {
        let good = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        assert!(open(&with_header(good, 8)).is_ok());
        assert!(matches!(
            open(&with_header(good, 7)),
            Err(Error::Length { .. })
        ));
        assert!(matches!(
            open(&with_header(good, 9)),
            Err(Error::Length { .. })
        ));
        let check = |header: &str, data| {
            let error = open(&with_header(header, data)).unwrap_err();
            assert!(matches!(error, Error::Header(_)), "{header}: {error:?}");
        };
        check("{", 0);
        check(
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
            8,
        );
        check(
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
            8,
        );
        check(
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}"#,
            0,
        );
        let overlap = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        check(overlap, 12);
        let hole = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
        check(hole, 8);
    }

    #[test]
    fn a_header_longer_than_the_file_or_the_limit_is_refused_before_it_is_read() {
        for bytes in [
            vec![],
            vec![1; 7],
            u64::MAX.to_le_bytes().to_vec(),
            9u64.to_le_bytes().to_vec(),
        ] {
            assert!(
                matches!(open(&bytes), Err(Error::HeaderLength { .. })),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn whole_numbers_are_not_weights() {
        let header = r#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
        assert!(matches!(
            open(&with_header(header, 8)),
            Err(Error::Type { .. })
        ));
    }
}

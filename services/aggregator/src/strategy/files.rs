//! Adapters in safetensors files as sources and sinks of the merge.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifacts::tensors::{Error, Layout, TensorFile, TensorWriter};
use domain::adapter::{HeadShape, RankTable, WeightShape};
use domain::job::Strategy;
use domain::job::aggregation::{ServerKind, Trains};

use super::source::{Below, Sink, Source};
use super::{head, server};

impl Source for TensorFile {
    fn keys(&self) -> Vec<String> {
        self.names().map(str::to_owned).collect()
    }

    fn shape(&self, key: &str) -> Option<Vec<usize>> {
        Self::shape(self, key).map(<[usize]>::to_vec)
    }

    fn read(&self, key: &str) -> Result<Vec<f32>, Below> {
        Ok(self.read_f32(key)?)
    }
}

/// A file that is opened for each tensor: any number of updates costs neither descriptors nor, as long
/// as they are laid out alike, memory.
#[derive(Debug)]
pub struct Closed {
    path: PathBuf,
    layout: Arc<Layout>,
}

impl Closed {
    /// Reads the header, and shares it with the file before where it is the same.
    ///
    /// # Errors
    /// If it cannot be read or is not legal.
    pub fn open(path: &Path, like: Option<&Self>) -> Result<Self, Error> {
        let file = TensorFile::open_like(path, like.map(|like| &like.layout))?;
        Ok(Self {
            path: path.to_owned(),
            layout: Arc::clone(file.layout()),
        })
    }
}

impl Source for Closed {
    fn keys(&self) -> Vec<String> {
        self.layout.names().map(str::to_owned).collect()
    }

    fn shape(&self, key: &str) -> Option<Vec<usize>> {
        self.layout.shape(key).map(<[usize]>::to_vec)
    }

    fn read(&self, key: &str) -> Result<Vec<f32>, Below> {
        let file = TensorFile::with_layout(&self.path, &self.layout)?;
        Ok(file.read_f32(key)?)
    }
}

impl Sink for TensorWriter {
    // The shape was declared when the file was created, and the writer counts the values.
    fn put(&mut self, key: &str, _shape: [usize; 2], values: Vec<f32>) -> Result<(), Below> {
        Ok(self.write(key, &values)?)
    }
}

/// Begins the file of an adapter with these ranks, as PEFT names and marks it. Give it to
/// [`super::fresh()`] or [`super::Merge::fold`], then finish it.
///
/// # Errors
/// If the file cannot be created. A weight that is in `ranks` and not in `weights` is left out here
/// and refused by whoever writes.
pub fn create(
    path: &Path,
    ranks: &RankTable,
    weights: &[WeightShape],
) -> Result<TensorWriter, Error> {
    create_trained(path, ranks, weights, Trains::Both)
}

/// Like [`create`], with a classification head if there is one.
///
/// # Errors
/// As [`create`].
pub fn create_with_head(
    path: &Path,
    ranks: &RankTable,
    weights: &[WeightShape],
    head: Option<HeadShape>,
) -> Result<TensorWriter, Error> {
    let head = head.into_iter().flat_map(head::tensors);
    let factors = tensors(ranks, weights, Trains::Both);
    TensorWriter::create(path, head.chain(factors), marks())
}

/// Like [`create`], of the factors alone that are trained.
///
/// # Errors
/// As [`create`].
pub fn create_trained(
    path: &Path,
    ranks: &RankTable,
    weights: &[WeightShape],
    trains: Trains,
) -> Result<TensorWriter, Error> {
    TensorWriter::create(path, tensors(ranks, weights, trains), marks())
}

/// Names and shapes of an adapter with these ranks, or of its B alone.
fn tensors<'a>(
    ranks: &'a RankTable,
    weights: &'a [WeightShape],
    trained: Trains,
) -> impl Iterator<Item = (String, Vec<usize>)> + 'a {
    let pairs = weights.iter().filter_map(move |weight| {
        let rank = usize::from(ranks.rank(weight.name));
        let a = (weight.name.peft_a(), vec![rank, weight.inp]);
        let b = (weight.name.peft_b(), vec![weight.out, rank]);
        let a = (trained == Trains::Both).then_some(a);
        (rank > 0).then(|| a.into_iter().chain([b]))
    });
    pairs.flatten()
}

/// Begins the file of the server optimizer's moments.
///
/// # Errors
/// As [`create`].
pub fn create_state(
    path: &Path,
    ranks: &RankTable,
    weights: &[WeightShape],
    rule: Strategy,
    server: ServerKind,
) -> Result<TensorWriter, Error> {
    let moments = tensors(ranks, weights, rule.trains()).flat_map(|(key, shape)| {
        let keys = server::keys(server, &key).into_iter();
        keys.map(move |key| (key, shape.clone()))
    });
    TensorWriter::create(path, moments, BTreeMap::new())
}

fn marks() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}

/// A sink for an adapter whose ranks are known only when it is merged: the values lie in a file beside
/// it until all shapes are known.
#[derive(Debug)]
pub struct Later {
    path: PathBuf,
    values: BufWriter<File>,
    tensors: Vec<(String, [usize; 2])>,
}

impl Later {
    /// Begins the file that will have this path.
    ///
    /// # Errors
    /// If the file beside it cannot be created.
    pub fn create(path: &Path) -> Result<Self, Below> {
        let values = BufWriter::with_capacity(1 << 18, File::create(values_path(path))?);
        Ok(Self {
            path: path.to_owned(),
            values,
            tensors: Vec::new(),
        })
    }

    /// Writes the whole file, one tensor at a time, and removes the other.
    ///
    /// # Errors
    /// If one of them cannot be read or written.
    pub fn finish(mut self) -> Result<(), Below> {
        self.values.flush()?;
        let declared = self.tensors.iter();
        let declared = declared.map(|(key, shape)| (key.clone(), shape.to_vec()));
        let mut writer = TensorWriter::create(&self.path, declared, marks())?;
        let beside = values_path(&self.path);
        let mut values = std::io::BufReader::with_capacity(1 << 18, File::open(&beside)?);
        for (key, [rows, columns]) in &self.tensors {
            let mut bytes = vec![0; rows * columns * 4];
            std::io::Read::read_exact(&mut values, &mut bytes)?;
            let (numbers, _) = bytes.as_chunks();
            let numbers: Vec<f32> = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
            writer.write(key, &numbers)?;
        }
        writer.finish()?;
        std::fs::remove_file(&beside)?;
        Ok(())
    }
}

impl Sink for Later {
    fn put(&mut self, key: &str, shape: [usize; 2], values: Vec<f32>) -> Result<(), Below> {
        for value in &values {
            self.values.write_all(&value.to_le_bytes())?;
        }
        self.tensors.push((key.to_owned(), shape));
        Ok(())
    }
}

fn values_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".values");
    PathBuf::from(name)
}

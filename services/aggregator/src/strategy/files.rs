//! Adapters in safetensors files as sources and sinks of the merge.

use std::collections::BTreeMap;
use std::path::Path;

use artifacts::tensors::{Error, TensorFile, TensorWriter};
use domain::adapter::{RankTable, WeightShape};

use super::source::{Below, Sink, Source};

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
    let tensors = weights.iter().filter_map(|weight| {
        let rank = usize::from(ranks.rank(weight.name));
        let a = (weight.name.peft_a(), vec![rank, weight.inp]);
        let b = (weight.name.peft_b(), vec![weight.out, rank]);
        (rank > 0).then_some([a, b])
    });
    let marks = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    TensorWriter::create(path, tensors.flatten(), marks)
}

//! Where factors come from and where they go: adapters in PEFT's key names, tensor by tensor.
//!
//! The merge sees these two traits alone; files are one implementation, memory the other.

use std::collections::BTreeMap;

use artifacts::tensors;

/// An error below this module, such as a read error of a file.
pub type Below = Box<dyn std::error::Error + Send + Sync>;

/// Whether an error is the disk's and no fault of what lies on it.
pub(super) fn is_disk(error: &Below) -> bool {
    let file = error.downcast_ref::<tensors::Error>();
    matches!(file, Some(tensors::Error::Io { .. })) || error.is::<std::io::Error>()
}

/// One adapter, read tensor by tensor.
pub trait Source: Sync {
    /// Every key.
    fn keys(&self) -> Vec<String>;

    /// The shape of a tensor, without reading it; `None` if there is no such tensor.
    fn shape(&self, key: &str) -> Option<Vec<usize>>;

    /// The values of a tensor, row by row, as 32-bit floats.
    ///
    /// # Errors
    /// If the tensor cannot be read or is not of 32-bit floats.
    fn read(&self, key: &str) -> Result<Vec<f32>, Below>;
}

/// One adapter being written. Tensors arrive in ascending order of their keys.
pub trait Sink {
    /// Takes the next tensor: `values` row by row, as many as `shape` says.
    ///
    /// # Errors
    /// If it cannot be written.
    fn put(&mut self, key: &str, shape: [usize; 2], values: Vec<f32>) -> Result<(), Below>;
}

/// An adapter held in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    tensors: BTreeMap<String, ([usize; 2], Vec<f32>)>,
}

impl Memory {
    /// Shape and values of a tensor.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&([usize; 2], Vec<f32>)> {
        self.tensors.get(key)
    }

    /// Takes a tensor out.
    pub fn remove(&mut self, key: &str) -> Option<([usize; 2], Vec<f32>)> {
        self.tensors.remove(key)
    }
}

/// A key that an adapter in memory does not have.
#[derive(Debug, thiserror::Error)]
#[error("there is no tensor {0}")]
pub struct NoTensor(String);

impl Source for Memory {
    fn keys(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, key: &str) -> Option<Vec<usize>> {
        self.get(key).map(|(shape, _)| shape.to_vec())
    }

    fn read(&self, key: &str) -> Result<Vec<f32>, Below> {
        let tensor = self.get(key).ok_or_else(|| NoTensor(key.to_owned()))?;
        Ok(tensor.1.clone())
    }
}

impl Sink for Memory {
    fn put(&mut self, key: &str, shape: [usize; 2], values: Vec<f32>) -> Result<(), Below> {
        self.tensors.insert(key.to_owned(), (shape, values));
        Ok(())
    }
}

//! Factors to and from safetensors, under PEFT's keys.

use std::collections::HashMap;

use domain::adapter::{RankTable, WeightName, WeightShape};
use domain::artifact::Digest;
use domain::job::aggregation::Trains;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest as _, Sha256};

use super::{Adapter, Error, Factors};

impl Adapter {
    /// The adapter's tensors as a safetensors file. The same adapter gives the same bytes.
    ///
    /// # Errors
    /// The file's header cannot be made.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, Error> {
        self.trained_to_safetensors(Trains::Both)
    }

    /// The tensors of the factors that were trained alone: what a site sends.
    ///
    /// # Errors
    /// The file's header cannot be made.
    pub fn trained_to_safetensors(&self, trained: Trains) -> Result<Vec<u8>, Error> {
        let mut tensors = Vec::new();
        for factors in self.factors.values() {
            let Factors { shape, rank, a, b } = factors;
            let rank = usize::from(*rank);
            if trained == Trains::Both {
                tensors.push((shape.name.peft_a(), vec![rank, shape.inp], bytes(a)));
            }
            tensors.push((shape.name.peft_b(), vec![shape.out, rank], bytes(b)));
        }
        let mut views = Vec::new();
        for (key, shape, data) in &tensors {
            views.push((
                key,
                TensorView::new(Dtype::F32, shape.clone(), data).map_err(Error::Tensors)?,
            ));
        }
        let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize(views, Some(about)).map_err(Error::Tensors)
    }

    /// The digest of the file that [`Adapter::to_safetensors`] gives.
    ///
    /// # Errors
    /// The file's header cannot be made.
    pub fn file_digest(&self) -> Result<Digest, Error> {
        let hash = Sha256::digest(self.to_safetensors()?);
        Ok(Digest::from_bytes(&hash.into()))
    }

    /// Reads a safetensors file that must hold exactly the factors that `ranks` names, in `f32`,
    /// bf16 or f16.
    ///
    /// # Errors
    /// The file is damaged; a tensor is missing, extra or of another shape; `ranks` names a weight
    /// that is not in `shapes`.
    pub fn from_safetensors(
        data: &[u8],
        shapes: &[WeightShape],
        ranks: &RankTable,
        scale: f32,
    ) -> Result<Self, Error> {
        let mut expected = Vec::new();
        for (name, rank) in ranks.trained() {
            let shape = shapes
                .iter()
                .find(|shape| shape.name == name)
                .ok_or(Error::UnknownWeight { name })?;
            expected.push((*shape, rank));
        }
        read(data, &expected, scale)
    }
}

/// Reads exactly the expected factors.
pub(super) fn read(
    data: &[u8],
    expected: &[(WeightShape, u16)],
    scale: f32,
) -> Result<Adapter, Error> {
    let file = SafeTensors::deserialize(data).map_err(Error::Tensors)?;
    for key in file.names() {
        let name = WeightName::from_peft(key).map(|(name, _)| name);
        if !expected.iter().any(|(shape, _)| Some(shape.name) == name) {
            return Err(Error::Extra {
                key: key.to_owned(),
            });
        }
    }
    let factors = expected.iter().map(|(shape, rank)| {
        let width = usize::from(*rank);
        let a = tensor(&file, shape.name.peft_a(), [width, shape.inp])?;
        let b = tensor(&file, shape.name.peft_b(), [shape.out, width])?;
        Factors::new(*shape, *rank, a, b)
    });
    Adapter::new(scale, factors.collect::<Result<Vec<_>, _>>()?)
}

fn tensor(file: &SafeTensors<'_>, key: String, expected: [usize; 2]) -> Result<Vec<f32>, Error> {
    let Ok(view) = file.tensor(&key) else {
        return Err(Error::Missing { key });
    };
    if view.shape() != expected {
        return Err(Error::Shape {
            key,
            expected: expected.to_vec(),
            found: view.shape().to_vec(),
        });
    }
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => Ok(data
            .as_chunks()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()),
        Dtype::F16 => Ok(data
            .as_chunks()
            .0
            .iter()
            .map(|bytes| f16::from_le_bytes(*bytes).to_f32())
            .collect()),
        Dtype::BF16 => Ok(data
            .as_chunks()
            .0
            .iter()
            .map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
            .collect()),
        other => Err(Error::Unsupported {
            what: format!("tensors of type {other:?}"),
        }),
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

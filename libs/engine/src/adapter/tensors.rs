//! Factors to and from safetensors, under PEFT's keys.

use std::collections::HashMap;

use domain::adapter::{Encoder, HeadShape, HeadTensor, RankTable, WeightName, WeightShape};
use domain::artifact::Digest;
use domain::job::aggregation::Trains;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest as _, Sha256};

use super::{Adapter, Error, Factors, Head};

impl Adapter {
    /// The adapter's tensors as a safetensors file. The same adapter gives the same bytes.
    ///
    /// # Errors
    /// The file's header cannot be made.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, Error> {
        self.written(Trains::Both, WeightName::to_string, |own| {
            own.key.to_owned()
        })
    }

    /// The same under the names of the model's own checkpoint, as PEFT finds them: a decoder's, or this family's.
    pub(super) fn to_peft(&self, encoder: Option<Encoder>) -> Result<Vec<u8>, Error> {
        let called = |name: &WeightName| module(*name, encoder);
        self.written(Trains::Both, called, HeadTensor::peft)
    }

    /// The tensors of the factors that were trained alone: what a site sends.
    ///
    /// # Errors
    /// The file's header cannot be made.
    pub fn trained_to_safetensors(&self, trained: Trains) -> Result<Vec<u8>, Error> {
        self.written(trained, WeightName::to_string, |own| own.key.to_owned())
    }

    fn written(
        &self,
        trained: Trains,
        called: impl Fn(&WeightName) -> String,
        of_head: impl Fn(&HeadTensor) -> String,
    ) -> Result<Vec<u8>, Error> {
        let mut tensors = Vec::new();
        for factors in self.factors.values() {
            let Factors { shape, rank, a, b } = factors;
            let rank = usize::from(*rank);
            let module = called(&shape.name);
            let key_a = format!("base_model.model.{module}.lora_A.weight");
            let key_b = format!("base_model.model.{module}.lora_B.weight");
            if trained == Trains::Both {
                tensors.push((key_a, vec![rank, shape.inp], bytes(a)));
            }
            tensors.push((key_b, vec![shape.out, rank], bytes(b)));
        }
        if let Some(head) = &self.head {
            tensors.extend(head.shape().tensors().into_iter().map(|own| {
                let values = bytes(head.part(own.part));
                (of_head(&own), own.shape, values)
            }));
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

/// What the model's own checkpoint calls a weight.
pub(super) fn module(name: WeightName, encoder: Option<Encoder>) -> String {
    let own = encoder.and_then(|encoder| name.in_encoder(encoder));
    own.unwrap_or_else(|| name.to_string())
}

/// Reads exactly the expected factors.
pub(super) fn read(
    data: &[u8],
    expected: &[(WeightShape, u16)],
    scale: f32,
) -> Result<Adapter, Error> {
    let file = SafeTensors::deserialize(data).map_err(Error::Tensors)?;
    let head = Head::read(&file)?;
    let of_head = head.iter().flat_map(|head| head.shape().tensors());
    let of_head: Vec<HeadTensor> = of_head.collect();
    let is_of_head = |key: &str| {
        let mut own = of_head.iter();
        own.any(|own| own.key == key || own.peft() == key)
    };
    // Every family's names are read; inside this program all have the same.
    let mut called = HashMap::new();
    for key in file.names() {
        let factor = WeightName::from_peft(key);
        if let Some(factor) = factor {
            called.insert(factor, key.to_owned());
        } else if is_of_head(key) {
            continue;
        }
        let name = factor.map(|(name, _)| name);
        if !expected.iter().any(|(shape, _)| Some(shape.name) == name) {
            return Err(Error::Extra {
                key: key.to_owned(),
            });
        }
    }
    complete(head.as_ref(), called.values())?;
    let factors = expected.iter().map(|(shape, rank)| {
        let width = usize::from(*rank);
        let key = |is_a: bool, usual: String| {
            let key = called.get(&(shape.name, is_a)).cloned();
            key.unwrap_or(usual)
        };
        let a = key(true, shape.name.peft_a());
        let b = key(false, shape.name.peft_b());
        let a = values(&file, &a, &[width, shape.inp])?;
        let b = values(&file, &b, &[shape.out, width])?;
        Factors::new(*shape, *rank, a, b)
    });
    let factors = factors.collect::<Result<Vec<_>, _>>()?;
    Ok(Adapter::new(scale, factors)?.with_head(head))
}

/// Whether the head is that of the family whose names the factors have: a part of another's is not all of it.
fn complete<'a>(
    head: Option<&Head>,
    mut keys: impl Iterator<Item = &'a String>,
) -> Result<(), Error> {
    let (Some(head), Some(encoder)) = (head, keys.find_map(|key| WeightName::encoder_of(key)))
    else {
        return Ok(());
    };
    let (own, wanted) = (
        head.shape(),
        HeadShape {
            encoder,
            ..head.shape()
        },
    );
    let has = |tensor: &HeadTensor| own.tensors().iter().any(|own| own.name == tensor.name);
    let mut wanted = wanted.tensors().into_iter();
    match wanted.find(|tensor| !has(tensor)) {
        Some(tensor) => Err(Error::Missing { key: tensor.peft() }),
        None => Ok(()),
    }
}

/// The values of a tensor, which must be of this shape.
pub(super) fn values(
    file: &SafeTensors<'_>,
    key: &str,
    expected: &[usize],
) -> Result<Vec<f32>, Error> {
    let Ok(view) = file.tensor(key) else {
        return Err(Error::Missing {
            key: key.to_owned(),
        });
    };
    if view.shape() != expected {
        return Err(Error::Shape {
            key: key.to_owned(),
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

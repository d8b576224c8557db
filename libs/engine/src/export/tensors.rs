//! The model's tensors with an adapter's change added, one at a time.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};

use super::{Error, precision};
use crate::adapter::Adapter;
use crate::model::{Config, decode_parts};
use crate::ops::product::{Into, View, ViewMut, multiply};
use crate::source::{Name, Source};

/// A model and what changes it.
pub(super) struct Merged<'a> {
    pub(super) source: &'a mut Source,
    pub(super) config: &'a Config,
    pub(super) adapter: &'a Adapter,
}

impl Merged<'_> {
    /// Whether the adapter changes it.
    pub(super) fn changes(&self, name: Name) -> bool {
        matches!(name, Name::Weight(weight) if self.adapter.get(weight).is_some())
    }

    /// How the model's files hold it.
    pub(super) fn source_kind(&self, name: Name) -> Result<GgmlDType, Error> {
        let kind = self.source.kind(name);
        Ok(kind.ok_or_else(|| crate::model::Error::Missing {
            name: self.source.called(name),
        })?)
    }

    /// The tensor in `kind`, rows one after another in Hugging Face's order, its values less `offset`: its own bytes
    /// where nothing of it changes.
    pub(super) fn stored(
        &mut self,
        name: Name,
        shape: &[usize],
        (kind, offset): (GgmlDType, f32),
    ) -> Result<Vec<u8>, Error> {
        let tensor = self.source.tensor(name, shape, self.config)?;
        let more = self.source.offset(name, self.config) - offset;
        let same = more == 0.0 && !self.changes(name);
        if tensor.dtype() == kind && same {
            return Ok(tensor.data().map_err(Error::Round)?.into_owned());
        }
        let mut values = self.changed(&tensor, name, shape)?;
        if more != 0.0 {
            values.iter_mut().for_each(|value| *value += more);
        }
        encode(&values, shape, kind).map_err(|failed| match failed {
            Failed::TooLarge => Error::TooLarge {
                name: self.source.called(name),
                precision: precision::name(kind),
            },
            Failed::Candle(error) => Error::Round(error),
        })
    }

    /// The tensor in `f32`, unrounded, as it is computed with.
    pub(super) fn values(&mut self, name: Name, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let tensor = self.source.tensor(name, shape, self.config)?;
        let mut values = self.changed(&tensor, name, shape)?;
        let offset = self.source.offset(name, self.config);
        if offset != 0.0 {
            values.iter_mut().for_each(|value| *value += offset);
        }
        Ok(values)
    }

    fn changed(&self, tensor: &QTensor, name: Name, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let mut values = decoded(tensor, shape)?;
        let Name::Weight(weight) = name else {
            return Ok(values);
        };
        if let Some(factors) = self.adapter.get(weight) {
            let (out, inp) = (factors.shape().out, factors.shape().inp);
            let rank = usize::from(factors.rank());
            let (a, b) = (
                View::new(factors.a(), rank, inp),
                View::new(factors.b(), out, rank),
            );
            let into = ViewMut::new(&mut values, out, inp);
            multiply(into, b, a, self.adapter.scale(), Into::Add);
        }
        Ok(values)
    }
}

/// A tensor's values, row by row.
pub(super) fn decoded(tensor: &QTensor, shape: &[usize]) -> Result<Vec<f32>, Error> {
    let cols = shape.last().copied().unwrap_or(1).max(1);
    let count: usize = shape.iter().product();
    let mut values = vec![0.0; count];
    let parts = std::slice::from_ref(tensor);
    decode_parts(parts, cols, 0..count / cols, &mut values).map_err(Error::Round)?;
    Ok(values)
}

enum Failed {
    TooLarge,
    Candle(candle_core::Error),
}

fn encode(values: &[f32], shape: &[usize], kind: GgmlDType) -> Result<Vec<u8>, Failed> {
    let finite = |rounded: f32, value: f32| {
        if rounded.is_finite() || !value.is_finite() {
            Ok(())
        } else {
            Err(Failed::TooLarge)
        }
    };
    let mut bytes = Vec::with_capacity(values.len() * kind.type_size() / kind.block_size());
    match kind {
        GgmlDType::F32 => values
            .iter()
            .for_each(|value| bytes.extend_from_slice(&value.to_le_bytes())),
        GgmlDType::F16 => {
            for value in values {
                let rounded = f16::from_f32(*value);
                finite(rounded.to_f32(), *value)?;
                bytes.extend_from_slice(&rounded.to_le_bytes());
            }
        }
        GgmlDType::BF16 => {
            for value in values {
                let rounded = bf16::from_f32(*value);
                finite(rounded.to_f32(), *value)?;
                bytes.extend_from_slice(&rounded.to_le_bytes());
            }
        }
        _ => {
            let tensor = Tensor::from_slice(values, shape, &Device::Cpu);
            let rounded = tensor.and_then(|tensor| QTensor::quantize(&tensor, kind));
            let rounded = rounded.map_err(Failed::Candle)?;
            return Ok(rounded.data().map_err(Failed::Candle)?.into_owned());
        }
    }
    Ok(bytes)
}

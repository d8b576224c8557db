//! The model's tensors with an adapter's change added, one at a time.

use std::collections::BTreeMap;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use domain::adapter::HeadShape;
use half::{bf16, f16};

use super::{Error, precision};
use crate::adapter::Adapter;
use crate::compute;
use crate::control::Control;
use crate::model::{Config, decode_parts, parameters};
use crate::ops::product::{Into, View, ViewMut, multiply};
use crate::source::{Name, Source, bert};

/// A model and what changes it.
pub(super) struct Merged<'a> {
    pub(super) source: &'a mut Source,
    pub(super) config: &'a Config,
    pub(super) adapter: &'a Adapter,
    /// The values that stand in the place of the files', by the parameter's number, as they are computed with; empty
    /// where it is an adapter that changes the model.
    pub(super) trained: BTreeMap<u32, &'a [f32]>,
    /// Asked before each tensor whether to go on.
    pub(super) control: &'a Control,
}

impl Merged<'_> {
    /// Every tensor with its shape, in a fixed order; an encoder's head among them.
    pub(super) fn names(&self) -> Vec<(Name, Vec<usize>)> {
        let Some(encoder) = self.config.architecture.encoder() else {
            return Name::all(self.config);
        };
        let types = self.source.rows_of(bert::TYPES).unwrap_or_default();
        let head = HeadShape {
            encoder,
            classes: self.classes(),
            width: self.config.hidden,
        };
        bert::tensors(self.config, types, head)
    }

    /// Classes of an encoder's head, the adapter's or where it brings none the model's own; 0 without either.
    pub(super) fn classes(&self) -> usize {
        let brought = self.adapter.head().map(|head| head.shape().classes);
        let encoder = self.config.architecture.encoder().unwrap_or_default();
        let own = || self.source.rows_of(bert::head_weight(encoder));
        brought.or_else(own).unwrap_or_default()
    }

    /// The values of a part of the head that the adapter brings.
    fn of_head(&self, name: Name) -> Option<&[f32]> {
        let (head, Name::Top(called)) = (self.adapter.head()?, name) else {
            return None;
        };
        let mut tensors = head.shape().tensors().into_iter();
        let own = tensors.find(|tensor| tensor.name == called)?;
        Some(head.part(own.part))
    }

    /// The values of a parameter that was itself trained.
    fn of_trained(&self, name: Name) -> Option<&'_ [f32]> {
        self.trained.get(&parameters::number(name)?).copied()
    }

    /// Whether it is another than the files'.
    pub(super) fn changes(&self, name: Name) -> bool {
        if self.of_trained(name).is_some() {
            return true;
        }
        match name {
            Name::Weight(weight) => self.adapter.get(weight).is_some(),
            _ => self.of_head(name).is_some(),
        }
    }

    /// How the model's files hold it; a head that the adapter brings is held as the words are.
    pub(super) fn source_kind(&self, name: Name) -> Result<GgmlDType, Error> {
        let held = match self.of_head(name) {
            Some(_) => bert::WORDS,
            None => name,
        };
        let kind = self.source.kind(held);
        Ok(kind.ok_or_else(|| crate::model::Error::Missing {
            name: self.source.called(held),
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
        self.go_on()?;
        if let Some(values) = self.of_head(name) {
            return self.encoded(name, values, (shape, kind));
        }
        if let Some(values) = self.of_trained(name) {
            let less: Vec<f32> = values.iter().map(|value| value - offset).collect();
            return self.encoded(name, &less, (shape, kind));
        }
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
        self.encoded(name, &values, (shape, kind))
    }

    /// Whether nobody has cancelled; each tensor is a sign of life.
    fn go_on(&self) -> Result<(), Error> {
        Ok(self.control.block().map_err(compute::Error::from)?)
    }

    fn encoded(
        &self,
        name: Name,
        values: &[f32],
        (shape, kind): (&[usize], GgmlDType),
    ) -> Result<Vec<u8>, Error> {
        encode(values, shape, kind).map_err(|failed| match failed {
            Failed::TooLarge => Error::TooLarge {
                name: self.source.called(name),
                precision: precision::name(kind),
            },
            Failed::Candle(error) => Error::Round(error),
        })
    }

    /// The tensor in `f32`, unrounded, as it is computed with.
    pub(super) fn values(&mut self, name: Name, shape: &[usize]) -> Result<Vec<f32>, Error> {
        self.go_on()?;
        if let Some(values) = self.of_head(name).or_else(|| self.of_trained(name)) {
            return Ok(values.to_vec());
        }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_cancelled_export_ends_with_the_next_tensor() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/tiny");
        let mut source = Source::open(&folder).unwrap();
        let config = source.config().unwrap();
        let (nothing, control) = (Adapter::new(1.0, []).unwrap(), Control::new());
        let mut merged = Merged {
            source: &mut source,
            config: &config,
            adapter: &nothing,
            trained: BTreeMap::new(),
            control: &control,
        };
        let names = merged.names();
        let (name, shape) = &names[0];
        let kind = (GgmlDType::F32, 0.0);
        assert!(merged.stored(*name, shape, kind).is_ok());
        assert!(merged.values(*name, shape).is_ok());
        assert_eq!(control.progress(), 2);
        control.cancel();
        let stored = merged.stored(*name, shape, kind).map(drop);
        let values = merged.values(*name, shape).map(drop);
        for ended in [stored, values] {
            let cancelled = matches!(ended, Err(Error::Compute(compute::Error::Cancelled(_))));
            assert!(cancelled, "{ended:?}");
        }
    }
}

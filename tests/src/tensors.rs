//! Adapters as numbers: what they change, and ones that are made up.

use std::collections::BTreeMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// The factors of one weight: `A` is `[rank, inp]`, `B` is `[out, rank]`, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// Rank.
    pub rank: usize,
    /// Columns of the weight.
    pub inp: usize,
    /// Rows of the weight.
    pub out: usize,
    /// `A`.
    pub a: Vec<f32>,
    /// `B`.
    pub b: Vec<f32>,
}

/// An adapter: the factors of each weight, by the key of its `A`.
pub type Adapter = BTreeMap<String, Factors>;

impl Factors {
    /// Factors of these widths whose numbers come one after the other.
    #[must_use]
    pub fn made(rank: usize, widths: &Self, mut number: impl FnMut() -> f32) -> Self {
        let Self { inp, out, .. } = *widths;
        let mut draw = |count: usize| (0..count).map(|_| number()).collect();
        let (a, b) = (draw(rank * inp), draw(out * rank));
        Self {
            rank,
            inp,
            out,
            a,
            b,
        }
    }

    /// `B·A`, row by row, `[out, inp]`.
    #[must_use]
    pub fn product(&self) -> Vec<f64> {
        let Self { rank, inp, out, .. } = *self;
        let mut all = vec![0.0; out * inp];
        for row in 0..out {
            for slice in 0..rank {
                let factor = f64::from(self.b[row * rank + slice]);
                for column in 0..inp {
                    all[row * inp + column] += factor * f64::from(self.a[slice * inp + column]);
                }
            }
        }
        all
    }
}

/// Reads an adapter's file.
#[must_use]
pub fn read(bytes: &[u8]) -> Adapter {
    let file = SafeTensors::deserialize(bytes).expect("safetensors");
    let numbers = |name: &str| {
        let view = file.tensor(name).expect("a tensor");
        let read = |four: &[u8]| f32::from_le_bytes(four.try_into().expect("four bytes"));
        let numbers: Vec<f32> = view.data().chunks_exact(4).map(read).collect();
        (numbers, view.shape().to_vec())
    };
    let names = file
        .names()
        .into_iter()
        .filter(|name| name.contains("lora_A"));
    names
        .map(|name| {
            let (a, a_shape) = numbers(name);
            let (b, b_shape) = numbers(&name.replace("lora_A", "lora_B"));
            let factors = Factors {
                rank: a_shape[0],
                inp: a_shape[1],
                out: b_shape[0],
                a,
                b,
            };
            (name.to_owned(), factors)
        })
        .collect()
}

/// Writes an adapter's file.
#[must_use]
pub fn write(adapter: &Adapter) -> Vec<u8> {
    let bytes = |numbers: &[f32]| -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    };
    let mut tensors = Vec::new();
    for (name, factors) in adapter {
        let Factors { rank, inp, out, .. } = *factors;
        tensors.push((name.clone(), vec![rank, inp], bytes(&factors.a)));
        let name = name.replace("lora_A", "lora_B");
        tensors.push((name, vec![out, rank], bytes(&factors.b)));
    }
    let views: BTreeMap<&str, TensorView<'_>> = tensors
        .iter()
        .map(|(name, shape, data)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), data).expect("a tensor");
            (name.as_str(), view)
        })
        .collect();
    safetensors::serialize(views, None).expect("safetensors")
}

/// How far what one adapter changes is from what another does: the worst weight's difference,
/// relative to the other in the Frobenius norm.
#[must_use]
pub fn difference(found: &Adapter, expected: &Adapter) -> f64 {
    assert!(found.keys().eq(expected.keys()), "other weights");
    let pairs = found.values().zip(expected.values());
    let off = |(found, expected): (&Factors, &Factors)| off(&found.product(), &expected.product());
    pairs.map(off).fold(0.0, f64::max)
}

/// How far a matrix is from another, relative to the other in the Frobenius norm.
#[must_use]
pub fn off(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "other shapes");
    let pairs = found.iter().zip(expected);
    let apart: f64 = pairs.map(|(f, e)| (f - e) * (f - e)).sum();
    let whole: f64 = expected.iter().map(|e| e * e).sum();
    (apart / whole.max(f64::MIN_POSITIVE)).sqrt()
}

//! A classification head: a linear layer, behind a dense one where the family has it, that is trained in full beside the
//! factors, PEFT's `modules_to_save`.

use domain::adapter::{Encoder, HeadPart, HeadShape, HeadTensor};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use safetensors::tensor::SafeTensors;
use sha2::{Digest, Sha256};

use super::Error;
use super::tensors::values;

/// Spread of a fresh head's weights, as transformers initializes encoders'.
const SPREAD: f64 = 0.02;

/// Weight `[classes, width]` and bias `[classes]`, behind the dense layer of the families that have one.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    shape: HeadShape,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    /// There if and only if the family has it.
    pub(crate) dense: Option<Dense>,
}

/// A layer from what an encoder gave to what the head's last layer reads.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Dense {
    /// `[width, width]`
    pub(crate) weight: Vec<f32>,
    /// `[width]`
    pub(crate) bias: Vec<f32>,
}

impl Head {
    /// A head of BERT of these values, the weight row-major.
    ///
    /// # Errors
    /// A length does not match; the shape is that of a head with a dense layer ([`Head::of`]).
    pub fn new(shape: HeadShape, weight: Vec<f32>, bias: Vec<f32>) -> Result<Self, Error> {
        let mut both = (Some(weight), Some(bias));
        Self::of(shape, |tensor| {
            let own = match tensor.part {
                HeadPart::Weight => both.0.take(),
                HeadPart::Bias => both.1.take(),
                HeadPart::DenseWeight | HeadPart::DenseBias => None,
            };
            own.ok_or_else(|| missing(tensor))
        })
    }

    /// A head whose tensors have these values, each row-major.
    ///
    /// # Errors
    /// A length does not match, or what giving the values says.
    pub fn of<E: From<Error>>(
        shape: HeadShape,
        mut values: impl FnMut(&HeadTensor) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let mut head = Self {
            shape,
            weight: Vec::new(),
            bias: Vec::new(),
            dense: shape.encoder.has_dense().then(Dense::default),
        };
        for tensor in shape.tensors() {
            let own = values(&tensor)?;
            if shape.classes == 0 || own.len() != tensor.shape.iter().product::<usize>() {
                return Err(E::from(Error::Shape {
                    key: tensor.peft(),
                    found: vec![own.len()],
                    expected: tensor.shape,
                }));
            }
            let (weight, bias) = (&mut head.weight, &mut head.bias);
            match (tensor.part, &mut head.dense) {
                (HeadPart::Weight, _) => *weight = own,
                (HeadPart::Bias, _) => *bias = own,
                (HeadPart::DenseWeight, Some(dense)) => dense.weight = own,
                (HeadPart::DenseBias, Some(dense)) => dense.bias = own,
                // Invariant: a shape has these tensors only if its family has the layer.
                (HeadPart::DenseWeight | HeadPart::DenseBias, None) => {}
            }
        }
        Ok(head)
    }

    /// An untrained head: weights of small spread around 0, drawn from `seed` alone, and biases of zeros.
    ///
    /// # Errors
    /// There are no classes.
    pub fn fresh(shape: HeadShape, seed: u64) -> Result<Self, Error> {
        let mut digest = Sha256::new();
        digest.update(b"fedpipe classification head");
        digest.update(seed.to_le_bytes());
        let mut random = ChaCha12Rng::from_seed(digest.finalize().into());
        // The same variance as a normal distribution's, from numbers that are the same on every machine.
        let bound = SPREAD * 3f64.sqrt();
        let mut uniform = || f64::from(random.next_u32() >> 8) / f64::from(1u32 << 23) - 1.0;
        let mut draw =
            |count: usize| -> Vec<f32> { (0..count).map(|_| (uniform() * bound) as f32).collect() };
        let HeadShape {
            encoder,
            classes,
            width,
        } = shape;
        let weight = draw(classes * width);
        let dense = draw(if encoder.has_dense() {
            width * width
        } else {
            0
        });
        let mut both = (Some(weight), Some(dense));
        Self::of(shape, |tensor| match tensor.part {
            HeadPart::Weight => Ok(both.0.take().unwrap_or_default()),
            HeadPart::DenseWeight => Ok(both.1.take().unwrap_or_default()),
            HeadPart::Bias | HeadPart::DenseBias => Ok(vec![0.0; tensor.shape.iter().product()]),
        })
    }

    /// Its shape.
    #[must_use]
    pub const fn shape(&self) -> HeadShape {
        self.shape
    }

    /// `[classes, width]`, row-major.
    #[must_use]
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// `[classes]`
    #[must_use]
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// The values of a tensor; none of one that the family does not have.
    #[must_use]
    pub fn part(&self, part: HeadPart) -> &[f32] {
        let dense = self.dense.as_ref();
        match part {
            HeadPart::Weight => &self.weight,
            HeadPart::Bias => &self.bias,
            HeadPart::DenseWeight => dense.map_or(&[][..], |own| own.weight.as_slice()),
            HeadPart::DenseBias => dense.map_or(&[][..], |own| own.bias.as_slice()),
        }
    }

    /// All values, in a fixed order.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[f32]> {
        let dense = self.dense.iter();
        let dense = dense.flat_map(|own| [own.weight.as_slice(), own.bias.as_slice()]);
        [self.weight.as_slice(), self.bias.as_slice()]
            .into_iter()
            .chain(dense)
    }

    /// All values, in the same order.
    pub(crate) fn slices_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let dense = self.dense.iter_mut();
        let dense = dense.flat_map(|own| [own.weight.as_mut_slice(), own.bias.as_mut_slice()]);
        [self.weight.as_mut_slice(), self.bias.as_mut_slice()]
            .into_iter()
            .chain(dense)
    }

    pub(crate) fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        zeros.slices_mut().for_each(|values| values.fill(0.0));
        zeros
    }

    pub(super) fn parameters(&self) -> usize {
        self.slices().map(<[f32]>::len).sum()
    }

    pub(super) fn is_finite(&self) -> bool {
        self.slices().flatten().copied().all(f32::is_finite)
    }

    /// The head of an adapter's file, under the keys of this program or of PEFT; none where it has no tensor of one.
    pub(super) fn read(file: &SafeTensors<'_>) -> Result<Option<Self>, Error> {
        let has = |key: &str| file.tensor(key).is_ok();
        let Some(encoder) = Encoder::of_head(has) else {
            return Ok(None);
        };
        let key = |tensor: &HeadTensor| {
            if has(tensor.key) {
                return tensor.key.to_owned();
            }
            tensor.peft()
        };
        let any = HeadShape {
            encoder,
            classes: 0,
            width: 0,
        };
        let tensors = any.tensors();
        let weight = tensors.iter().find(|own| own.part == HeadPart::Weight);
        let weight = weight.map(key).unwrap_or_default();
        let shape = file.tensor(&weight).ok().map(|view| view.shape().to_vec());
        let shape = match shape.as_deref() {
            Some(&[classes, width]) => HeadShape {
                encoder,
                classes,
                width,
            },
            Some(found) => {
                return Err(Error::Shape {
                    key: weight,
                    expected: vec![0, 0],
                    found: found.to_vec(),
                });
            }
            None => return Err(Error::Missing { key: weight }),
        };
        Self::of(shape, |tensor| values(file, &key(tensor), &tensor.shape)).map(Some)
    }
}

fn missing(tensor: &HeadTensor) -> Error {
    Error::Missing { key: tensor.peft() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: HeadShape = HeadShape {
        encoder: Encoder::Bert,
        classes: 3,
        width: 200,
    };

    #[test]
    fn a_fresh_head_depends_on_the_seed_alone_and_is_spread_as_transformers_spreads_it() {
        let head = Head::fresh(SHAPE, 7).unwrap();
        assert_eq!(head, Head::fresh(SHAPE, 7).unwrap());
        assert_ne!(head, Head::fresh(SHAPE, 8).unwrap());
        assert!(head.bias().iter().all(|value| *value == 0.0));
        let squares: f32 = head.weight().iter().map(|value| value * value).sum();
        let spread = (squares / head.weight().len() as f32).sqrt();
        assert!((0.018..0.022).contains(&spread), "{spread}");
    }

    #[test]
    fn values_of_the_wrong_size_are_refused() {
        assert!(Head::new(SHAPE, vec![0.0; 600], vec![0.0; 2]).is_err());
        assert!(Head::new(SHAPE, vec![0.0; 599], vec![0.0; 3]).is_err());
        let none = HeadShape {
            classes: 0,
            width: 4,
            ..SHAPE
        };
        assert!(Head::new(none, vec![], vec![]).is_err());
        let dense = HeadShape {
            encoder: Encoder::Roberta,
            ..SHAPE
        };
        assert!(Head::new(dense, vec![0.0; 600], vec![0.0; 3]).is_err());
    }

    #[test]
    fn the_last_layer_of_a_fresh_head_is_the_same_with_a_dense_layer_before_it() {
        let dense = HeadShape {
            encoder: Encoder::Distilbert,
            ..SHAPE
        };
        let (plain, head) = (
            Head::fresh(SHAPE, 7).unwrap(),
            Head::fresh(dense, 7).unwrap(),
        );
        assert_eq!(head.weight(), plain.weight());
        let weight = head.part(HeadPart::DenseWeight);
        assert_eq!(weight.len(), 200 * 200);
        assert_ne!(weight[..600], *head.weight());
        assert_eq!(head.part(HeadPart::DenseBias), [0.0; 200]);
        assert_eq!(plain.part(HeadPart::DenseWeight), [0.0; 0]);
        assert_eq!(head.parameters() as u64, dense.parameters());
    }
}

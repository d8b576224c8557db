//! A classification head: a linear layer that is trained in full beside the factors, PEFT's `modules_to_save`.

use domain::adapter::{HEAD_BIAS, HEAD_WEIGHT, HeadShape};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use safetensors::tensor::SafeTensors;
use sha2::{Digest, Sha256};

use super::Error;
use super::tensors::values;

/// Spread of a fresh head's weights, as transformers initializes BERT's.
const SPREAD: f64 = 0.02;

/// Weight `[classes, width]` and bias `[classes]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    shape: HeadShape,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Head {
    /// A head of these values, the weight row-major.
    ///
    /// # Errors
    /// A length does not match.
    pub fn new(shape: HeadShape, weight: Vec<f32>, bias: Vec<f32>) -> Result<Self, Error> {
        let HeadShape { classes, width } = shape;
        if classes == 0 || weight.len() != classes * width {
            return Err(Error::Shape {
                key: HEAD_WEIGHT.to_owned(),
                expected: vec![classes, width],
                found: vec![weight.len()],
            });
        }
        if bias.len() != classes {
            return Err(Error::Shape {
                key: HEAD_BIAS.to_owned(),
                expected: vec![classes],
                found: vec![bias.len()],
            });
        }
        Ok(Self {
            shape,
            weight,
            bias,
        })
    }

    /// An untrained head: weights of small spread around 0, drawn from `seed` alone, and a bias of zeros.
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
        let weight = (0..shape.classes * shape.width).map(|_| (uniform() * bound) as f32);
        Self::new(shape, weight.collect(), vec![0.0; shape.classes])
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

    pub(crate) fn zeros_like(&self) -> Self {
        Self {
            shape: self.shape,
            weight: vec![0.0; self.weight.len()],
            bias: vec![0.0; self.bias.len()],
        }
    }

    pub(super) fn is_finite(&self) -> bool {
        let all = self.weight.iter().chain(&self.bias);
        all.copied().all(f32::is_finite)
    }

    /// The head of an adapter's file; none where it has neither tensor.
    pub(super) fn read(file: &SafeTensors<'_>) -> Result<Option<Self>, Error> {
        let shape_of = |key: &str| file.tensor(key).ok().map(|view| view.shape().to_vec());
        let (weight, bias) = (shape_of(HEAD_WEIGHT), shape_of(HEAD_BIAS));
        let missing = |key: &str| Error::Missing {
            key: key.to_owned(),
        };
        let shape = match (weight.as_deref(), bias) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(missing(HEAD_WEIGHT)),
            (Some(_), None) => return Err(missing(HEAD_BIAS)),
            (Some(&[classes, width]), Some(_)) => HeadShape { classes, width },
            (Some(found), Some(_)) => {
                return Err(Error::Shape {
                    key: HEAD_WEIGHT.to_owned(),
                    expected: vec![0, 0],
                    found: found.to_vec(),
                });
            }
        };
        let weight = values(file, HEAD_WEIGHT, &[shape.classes, shape.width])?;
        let bias = values(file, HEAD_BIAS, &[shape.classes])?;
        Self::new(shape, weight, bias).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: HeadShape = HeadShape {
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
        };
        assert!(Head::new(none, vec![], vec![]).is_err());
    }
}

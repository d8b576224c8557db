//! A fresh adapter: A random, B zero, so that the change is zero and its gradient is not.

use domain::adapter::{RankTable, WeightName, WeightShape};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use super::{Adapter, Error, Factors};

impl Adapter {
    /// A fresh adapter on the weights that `ranks` names: A is uniform in `±1/√in` (PEFT's
    /// kaiming-uniform with a = √5), B is zero.
    ///
    /// The values of a weight depend on `seed` and its name alone, and the first rows of A do not
    /// depend on the rank: workers of different rank start from the same leading slices.
    ///
    /// # Errors
    /// `ranks` names a weight that is not in `shapes`, or the scale is not a positive number.
    pub fn initialize(
        shapes: &[WeightShape],
        ranks: &RankTable,
        scale: f32,
        seed: u64,
    ) -> Result<Self, Error> {
        let fresh = ranks.trained().map(|(name, rank)| {
            let shape = shapes
                .iter()
                .find(|shape| shape.name == name)
                .ok_or(Error::UnknownWeight { name })?;
            let a = fresh_a(*shape, rank, seed);
            Factors::new(*shape, rank, a, vec![0.0; shape.out * usize::from(rank)])
        });
        Self::new(scale, fresh.collect::<Result<Vec<_>, _>>()?)
    }
}

fn fresh_a(shape: WeightShape, rank: u16, seed: u64) -> Vec<f32> {
    let bound = 1.0 / (shape.inp as f32).sqrt();
    let mut generator = ChaCha12Rng::from_seed(key(shape.name, seed));
    let mut uniform = || (generator.next_u32() >> 8) as f32 / (1u32 << 23) as f32 - 1.0;
    (0..usize::from(rank) * shape.inp)
        .map(|_| uniform() * bound)
        .collect()
}

/// The generator's key, so that no weight's values depend on which others are adapted.
fn key(name: WeightName, seed: u64) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(b"fedpipe adapter a");
    digest.update(seed.to_le_bytes());
    digest.update(name.to_string());
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use domain::adapter::Projection;

    use super::*;

    #[test]
    fn a_fresh_adapter_depends_on_seed_and_name_alone() {
        let shape = |projection| WeightShape {
            name: WeightName::new(0, projection),
            out: 5,
            inp: 16,
        };
        let shapes = Projection::ALL.map(shape);
        let make = |targets: &[Projection], rank, seed| {
            Adapter::initialize(&shapes, &RankTable::uniform(targets, 1, rank), 1.0, seed).unwrap()
        };
        let small = make(&[Projection::Q], 2, 7);
        let large = make(&[Projection::Q, Projection::V], 4, 7);
        let q = WeightName::new(0, Projection::Q);
        assert_eq!(small.get(q).unwrap().a(), &large.get(q).unwrap().a()[..32]);
        assert_ne!(
            large.get(q).unwrap().a(),
            large.get(WeightName::new(0, Projection::V)).unwrap().a()
        );
        assert_ne!(small, make(&[Projection::Q], 2, 8));
        let a = large.get(q).unwrap().a();
        assert!(a.iter().all(|v| v.abs() <= 0.25) && a.iter().any(|v| v.abs() > 0.2));
        assert!(large.get(q).unwrap().b().iter().all(|v| *v == 0.0));
    }

    #[test]
    fn a_weight_the_model_does_not_have_is_named() {
        let made = Adapter::initialize(&[], &RankTable::uniform(&[Projection::Q], 1, 2), 1.0, 7);
        assert!(matches!(made, Err(Error::UnknownWeight { .. })));
    }

    /// The stream is part of the format: another machine must make the same adapter.
    #[test]
    fn the_first_values_are_the_known_ones() {
        let shape = WeightShape {
            name: WeightName::new(0, Projection::Q),
            out: 5,
            inp: 16,
        };
        let bits: Vec<u32> = fresh_a(shape, 1, 7)
            .iter()
            .take(3)
            .map(|v| v.to_bits())
            .collect();
        assert_eq!(bits, [1_024_327_552, 3_192_989_482, 3_184_449_816]);
    }
}

//! Low-rank adapters: per weight the factors A `[rank, in]` and B `[out, rank]`, and one scale.
//!
//! The change of a weight is `scale · B · A`. The scale is the same for every weight and rank, so
//! that ranks do not change the rate.
//!
//! Promises: reading and writing are Hugging Face PEFT's own format; reading is strict (a missing,
//! extra or misshapen tensor is an error that names it); what is written has the same bytes for
//! the same adapter.

mod error;
mod head;
mod initialize;
mod peft;
mod tensors;

use std::collections::BTreeMap;

use domain::adapter::{RankTable, WeightName, WeightShape};

pub use error::Error;
pub(crate) use head::Dense;
pub use head::Head;
pub use peft::Export;

/// The two factors of one weight's change.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    shape: WeightShape,
    rank: u16,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Factors {
    /// Factors of a weight: `a` is `[rank, in]`, `b` is `[out, rank]`, both row-major.
    ///
    /// # Errors
    /// The rank is zero, or a length does not match.
    pub fn new(shape: WeightShape, rank: u16, a: Vec<f32>, b: Vec<f32>) -> Result<Self, Error> {
        let width = usize::from(rank);
        if rank == 0 || a.len() != width * shape.inp {
            return Err(Error::Shape {
                key: shape.name.peft_a(),
                expected: vec![width.max(1), shape.inp],
                found: vec![a.len()],
            });
        }
        if b.len() != shape.out * width {
            return Err(Error::Shape {
                key: shape.name.peft_b(),
                expected: vec![shape.out, width],
                found: vec![b.len()],
            });
        }
        Ok(Self { shape, rank, a, b })
    }

    /// The weight and its widths.
    #[must_use]
    pub const fn shape(&self) -> WeightShape {
        self.shape
    }

    /// The rank, at least 1.
    #[must_use]
    pub const fn rank(&self) -> u16 {
        self.rank
    }

    /// `[rank, in]`, row-major.
    #[must_use]
    pub fn a(&self) -> &[f32] {
        &self.a
    }

    /// `[out, rank]`, row-major.
    #[must_use]
    pub fn b(&self) -> &[f32] {
        &self.b
    }

    fn leading(&self, rank: u16) -> Self {
        let (old, new) = (usize::from(self.rank), usize::from(rank));
        let a = self.a.iter().take(new * self.shape.inp).copied().collect();
        let b = self
            .b
            .chunks_exact(old)
            .flat_map(|row| row.iter().take(new))
            .copied()
            .collect();
        Self {
            shape: self.shape,
            rank,
            a,
            b,
        }
    }
}

/// The factors of every adapted weight, and their scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    scale: f32,
    factors: BTreeMap<WeightName, Factors>,
    head: Option<Head>,
}

impl Adapter {
    /// An adapter of the given factors; a weight given twice keeps the last.
    ///
    /// # Errors
    /// The scale is not a positive number.
    pub fn new(scale: f32, factors: impl IntoIterator<Item = Factors>) -> Result<Self, Error> {
        if !(scale.is_finite() && scale > 0.0) {
            return Err(Error::Scale);
        }
        Ok(Self {
            scale,
            factors: factors
                .into_iter()
                .map(|factors| (factors.shape.name, factors))
                .collect(),
            head: None,
        })
    }

    /// With a classification head, or without one.
    #[must_use]
    pub fn with_head(self, head: Option<Head>) -> Self {
        Self { head, ..self }
    }

    /// The classification head, if it has one: only those of encoders do.
    #[must_use]
    pub const fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The factor of `B · A`.
    #[must_use]
    pub const fn scale(&self) -> f32 {
        self.scale
    }

    /// The adapted weights, by layer, then in forward order.
    pub fn factors(&self) -> impl Iterator<Item = &Factors> {
        self.factors.values()
    }

    /// The factors of one weight, if it is adapted.
    #[must_use]
    pub fn get(&self, name: WeightName) -> Option<&Factors> {
        self.factors.get(&name)
    }

    /// Trainable parameters.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let factors = self.factors.values();
        let factors: usize = factors.map(|own| own.a.len() + own.b.len()).sum();
        let head = self.head.as_ref();
        factors + head.map_or(0, Head::parameters)
    }

    /// Whether every value is a finite number.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        let head = self.head.as_ref().is_none_or(Head::is_finite);
        head && self.factors.values().all(|factors| {
            factors
                .a
                .iter()
                .chain(&factors.b)
                .all(|value| value.is_finite())
        })
    }

    /// The leading slices of each weight, as many as `ranks` says; weights of rank 0 are left out.
    ///
    /// # Errors
    /// `ranks` asks for a weight that is not adapted, or for more slices than it has.
    pub fn leading(&self, ranks: &RankTable) -> Result<Self, Error> {
        let mut factors = BTreeMap::new();
        for (name, rank) in ranks.trained() {
            let own = self
                .factors
                .get(&name)
                .ok_or(Error::UnknownWeight { name })?;
            if rank > own.rank {
                return Err(Error::Rank {
                    name,
                    asked: rank,
                    available: own.rank,
                });
            }
            factors.insert(name, own.leading(rank));
        }
        Ok(Self {
            scale: self.scale,
            factors,
            head: self.head.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use domain::adapter::Projection;

    use super::*;

    fn shape(layer: u16, projection: Projection) -> WeightShape {
        WeightShape {
            name: WeightName::new(layer, projection),
            out: 3,
            inp: 2,
        }
    }

    #[test]
    fn leading_keeps_the_first_rows_of_a_and_columns_of_b() {
        let q = Factors::new(
            shape(0, Projection::Q),
            2,
            vec![1., 2., 3., 4.],
            vec![1., 2., 3., 4., 5., 6.],
        )
        .unwrap();
        let v = Factors::new(shape(0, Projection::V), 1, vec![1., 2.], vec![1., 2., 3.]).unwrap();
        let adapter = Adapter::new(2.0, [q, v]).unwrap();
        let part = adapter
            .leading(&RankTable::uniform(&[Projection::Q], 1, 1))
            .unwrap();
        assert_eq!(part.factors().count(), 1);
        let q = part.get(WeightName::new(0, Projection::Q)).unwrap();
        assert_eq!(
            (q.a(), q.b(), q.rank()),
            (&[1., 2.][..], &[1., 3., 5.][..], 1)
        );
        let too_many = adapter.leading(&RankTable::uniform(&[Projection::V], 1, 2));
        assert!(matches!(
            too_many,
            Err(Error::Rank {
                asked: 2,
                available: 1,
                ..
            })
        ));
        let unknown = adapter.leading(&RankTable::uniform(&[Projection::K], 1, 2));
        assert!(matches!(unknown, Err(Error::UnknownWeight { .. })));
    }

    #[test]
    fn factors_of_the_wrong_size_are_refused() {
        assert!(matches!(
            Factors::new(shape(0, Projection::Q), 2, vec![0.; 3], vec![0.; 6]),
            Err(Error::Shape { .. })
        ));
        assert!(matches!(
            Factors::new(shape(0, Projection::Q), 2, vec![0.; 4], vec![0.; 5]),
            Err(Error::Shape { .. })
        ));
        assert!(matches!(
            Factors::new(shape(0, Projection::Q), 0, vec![], vec![]),
            Err(Error::Shape { .. })
        ));
    }
}

//! How far an update moved: the Frobenius norm of `s·B·A − S` over all weights together, without making
//! one of these matrices.

use domain::adapter::{RankTable, WeightShape};
use domain::job::aggregation::Trains;

use super::check::{Refused, read};
use super::head;
use super::slices::Slices;
use super::source::Source;

/// An update, checked before, and what it is compared with.
pub struct Moved<'a> {
    /// What the worker sent.
    pub update: &'a dyn Source,
    /// The merged adapter that it started from.
    pub global: &'a dyn Source,
    /// What its plan had it train.
    pub ranks: &'a RankTable,
    /// The model's weights.
    pub weights: &'a [WeightShape],
    /// The job's one scale.
    pub scale: f64,
    /// Which factors its update holds; A is the merged adapter's where it holds B alone.
    pub trained: Trains,
}

impl Moved<'_> {
    /// The norm of the change.
    ///
    /// # Errors
    /// If a tensor is not there or not as demanded.
    pub fn norm(&self) -> Result<f64, Refused> {
        let mut square = 0.0;
        for shape in self.weights {
            let rank = usize::from(self.ranks.rank(shape.name));
            if rank > 0 {
                square += self.square(shape, rank)?;
            }
        }
        // A head is no product and has no scale.
        square += head::square(self.update, self.global)? / (self.scale * self.scale);
        // Rounding may leave a little less than nothing where nothing moved.
        Ok(self.scale * square.max(0.0).sqrt())
    }

    /// Refuses an update that moved further than the job allows.
    ///
    /// # Errors
    /// [`Refused::Norm`], or whatever [`Moved::norm`] finds.
    pub fn within(&self, bound: f64) -> Result<(), Refused> {
        let norm = self.norm()?;
        if norm <= bound {
            Ok(())
        } else {
            Err(Refused::Norm { norm, bound })
        }
    }

    /// `‖B·A − B₀·A₀‖²` of one weight: the energy of the slices of B·A and of −B₀·A₀ together.
    fn square(&self, shape: &WeightShape, rank: usize) -> Result<f64, Refused> {
        let (key_a, key_b) = (shape.name.peft_a(), shape.name.peft_b());
        let whole = self.global.shape(&key_a);
        let whole = whole
            .and_then(|shape| shape.first().copied())
            .unwrap_or(rank);
        let start_a = read(self.global, &key_a, [whole, shape.inp])?;
        let start_b = read(self.global, &key_b, [shape.out, whole])?;
        let b = read(self.update, &key_b, [shape.out, rank])?;
        let a = match self.trained {
            Trains::Both => read(self.update, &key_a, [rank, shape.inp])?,
            Trains::B => start_a.iter().take(rank * shape.inp).copied().collect(),
        };
        let rows: Vec<&[f32]> = a
            .chunks_exact(shape.inp)
            .chain(start_a.chunks_exact(shape.inp).take(rank))
            .collect();
        let left = b.chunks_exact(rank).zip(start_b.chunks_exact(whole));
        let left = left.map(|(row, start)| {
            let signed = row.iter().map(|value| f64::from(*value));
            signed.chain(start.iter().take(rank).map(|value| -f64::from(*value)))
        });
        Ok(Slices::of(&rows, left).energy(0..rows.len()))
    }
}

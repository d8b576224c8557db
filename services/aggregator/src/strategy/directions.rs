//! Every direction of a change, down to where they are rounding: what is to be lost by no rank.
//!
//! A weight that was summed has as many as it is wide. They are computed a block at a time, so that they are never held in
//! 64 bits beside it: how many updates were folded does not show in memory.

use faer::{Mat, MatRef};

use super::change::{Spectrum, lower_gram, norms, product};
use super::eigen::Eigen;
use super::refactor::DEAD;

/// Directions that are computed together.
const BLOCK: usize = 64;

/// Those of a change, largest first.
pub(super) enum Directions<'s> {
    /// Of few slices.
    Held {
        /// All that there are.
        spectrum: Spectrum,
        /// How many of them are above the floor.
        count: usize,
    },
    /// Of a summed weight.
    Summed(Summed<'s>),
}

/// The eigenvectors of a weight's smaller side, and what the weight does to each.
pub(super) struct Summed<'s> {
    /// The weight or its transpose, `[larger, smaller]`.
    tall: MatRef<'s, f64>,
    /// Whether it is the transpose.
    wide: bool,
    /// Eigenvectors in columns `[smaller, smaller]`.
    own: MatRef<'s, f64>,
    /// Columns above the floor with their σ, descending.
    order: Vec<(usize, f64)>,
}

impl<'s> Directions<'s> {
    /// Those of a spectrum with σ above `floor`.
    pub(super) fn of_spectrum(spectrum: Spectrum, floor: f64) -> Self {
        let count = above(floor, spectrum.sigma.iter().copied());
        Self::Held { spectrum, count }
    }

    /// Those of a weight `[out, inp]` with σ above `floor`; `None` if they do not converge.
    pub(super) fn of_weight(
        weight: MatRef<'s, f64>,
        floor: f64,
        buffer: &mut Vec<f64>,
        eigen: &'s mut Eigen,
    ) -> Option<Self> {
        let wide = weight.nrows() <= weight.ncols();
        let tall = if wide { weight.transpose() } else { weight };
        let own = eigen.vectors(lower_gram(buffer, tall))?;
        let mut sigma = Vec::with_capacity(own.ncols());
        while sigma.len() < own.ncols() {
            let count = BLOCK.min(own.ncols() - sigma.len());
            let block = own.subcols(sigma.len(), count);
            sigma.extend(norms(&product(tall, block)));
        }
        if !sigma.iter().all(|value| value.is_finite()) {
            return None;
        }
        let mut order: Vec<(usize, f64)> = sigma.into_iter().enumerate().collect();
        order.sort_by(|(_, x), (_, y)| y.total_cmp(x));
        let count = above(floor, order.iter().map(|(_, sigma)| *sigma));
        order.truncate(count);
        Some(Self::Summed(Summed {
            tall,
            wide,
            own,
            order,
        }))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Held { count, .. } => *count,
            Self::Summed(summed) => summed.order.len(),
        }
    }

    /// Gives each with its number: `u·σ` `[out]` and `v` `[inp]`.
    pub(super) fn each(&self, mut give: impl FnMut(usize, &[f64], &[f64])) {
        match self {
            Self::Held { spectrum, count } => {
                for j in 0..*count {
                    let left: Vec<f64> = spectrum.left.col(j).iter().copied().collect();
                    let v: Vec<f64> = spectrum.v.col(j).iter().copied().collect();
                    give(j, &left, &v);
                }
            }
            Self::Summed(summed) => summed.each(give),
        }
    }
}

impl Summed<'_> {
    fn each(&self, mut give: impl FnMut(usize, &[f64], &[f64])) {
        for (number, block) in self.order.chunks(BLOCK).enumerate() {
            let mut own = Mat::zeros(self.own.nrows(), block.len());
            for (k, (at, _)) in block.iter().enumerate() {
                own.col_mut(k).copy_from(self.own.col(*at));
            }
            let other = product(self.tall, own.as_ref());
            for (k, (_, sigma)) in block.iter().enumerate() {
                let times = |factor: f64, matrix: &Mat<f64>| -> Vec<f64> {
                    matrix.col(k).iter().map(|value| factor * value).collect()
                };
                let (left, v) = if self.wide {
                    (times(*sigma, &own), times(1.0 / sigma, &other))
                } else {
                    (times(1.0, &other), times(1.0, &own))
                };
                give(number * BLOCK + k, &left, &v);
            }
        }
    }
}

/// How many of these σ, descending, are above the floor; what [`super::refactor`] would restart must not become a slice
/// that carries nothing.
fn above(floor: f64, mut sigma: impl Iterator<Item = f64>) -> usize {
    let Some(largest) = sigma.next().filter(|largest| *largest > floor.max(0.0)) else {
        return 0;
    };
    1 + sigma
        .take_while(|sigma| *sigma > floor && *sigma >= DEAD * largest && *sigma > 0.0)
        .count()
}

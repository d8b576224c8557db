//! The energy of some of an adapter's slices, without making a matrix.
//!
//! With `a_j` the rows of A and `b_j` the columns of B, the squared Frobenius norm of `Σ_j b_j·a_jᵀ` is the sum of
//! `BᵀB ∘ A·Aᵀ`. It holds whether or not the slices are orthogonal; where they are, energies of parts add up.

use std::ops::Range;

/// The products of a weight's slices with one another.
pub(super) struct Slices {
    count: usize,
    /// `BᵀB ∘ A·Aᵀ`, row by row.
    products: Vec<f64>,
}

impl Slices {
    /// Of A's rows, and of B row by row: as many values in each as A has rows.
    pub(super) fn of<L: Iterator<Item = f64>>(a: &[&[f32]], b: impl Iterator<Item = L>) -> Self {
        let count = a.len();
        let mut products = vec![0.0f64; count * count];
        let mut left = vec![0.0f64; count];
        for row in b {
            left.iter_mut().zip(row).for_each(|(to, value)| *to = value);
            for (sums, value) in products.chunks_exact_mut(count.max(1)).zip(&left) {
                for (sum, other) in sums.iter_mut().zip(&left) {
                    *sum += value * other;
                }
            }
        }
        for (row, sums) in a.iter().zip(products.chunks_exact_mut(count.max(1))) {
            for (other, sum) in a.iter().zip(sums) {
                *sum *= dot(row, other);
            }
        }
        Self { count, products }
    }

    /// That of these slices. Rounding may leave a little less than nothing where there is none.
    pub(super) fn energy(&self, range: Range<usize>) -> f64 {
        let within = |row: &[f64]| -> f64 {
            let own = row.iter().take(range.end).skip(range.start);
            own.sum()
        };
        let rows = self.products.chunks_exact(self.count.max(1));
        rows.take(range.end).skip(range.start).map(within).sum()
    }
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter()
        .zip(y)
        .map(|(x, y)| f64::from(*x) * f64::from(*y))
        .sum()
}

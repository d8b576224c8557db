//! The gradient of a low-rank factor, `lhsᵀ · rhs` of two tall matrices of which one is thin: every
//! token adds a product of one short row and one long one.
//!
//! `gemm` packs both sides before it multiplies, which here costs more than the product. This kernel
//! reads them where they lie. Each element is a chain of fused multiply-adds in the order of the
//! tokens, so neither the vectors' width nor the number of threads changes a bit.
#![expect(
    clippy::indexing_slicing,
    reason = "lhs: [tokens, rank], rhs: [tokens, cols], dst: [rank, cols], asserted at entry"
)]

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::View;

/// Vectors of columns that a tile is wide.
const WIDE: usize = 2;

/// Rows of the result that a tile is tall: with [`WIDE`] vectors each, its sums fit the registers of
/// AVX2 and cover the latency of a multiply-add.
const TALL: usize = 6;

/// Columns of one task; a multiple of a tile's width for every vector unit.
const TASK: usize = 384;

/// Tokens whose rows pass by together: few enough that a task's part of them stays in the cache nearest
/// to the core while one tile after the other reads it.
const PASS: usize = 32;

/// `dst` `[rank, cols]` ← `scale · lhsᵀ · rhs`, on all threads of the current pool.
///
/// # Panics
/// The shapes do not match, or a matrix is transposed.
pub fn outer(dst: &mut [f32], lhs: View<'_>, rhs: View<'_>, scale: f32) {
    assert!(
        lhs.rows == rhs.rows && dst.len() == lhs.cols * rhs.cols,
        "shapes of a product must match"
    );
    assert!(
        lhs.col_stride == 1 && rhs.col_stride == 1,
        "rows must lie in one piece"
    );
    let (rank, cols) = (lhs.cols, rhs.cols);
    let arch = pulp::Arch::new();
    let panels: Vec<Vec<f32>> = (0..cols.div_ceil(TASK))
        .into_par_iter()
        .map(|task| {
            let first = task * TASK;
            let count = TASK.min(cols - first);
            let mut out = vec![0f32; rank * count];
            let rhs = rhs.columns(first, count);
            arch.dispatch(Panel {
                out: &mut out,
                lhs,
                rhs,
            });
            out
        })
        .collect();
    for (task, panel) in panels.iter().enumerate() {
        let count = panel.len() / rank;
        for (row, from) in panel.chunks_exact(count).enumerate() {
            let to = &mut dst[row * cols + task * TASK..][..count];
            to.iter_mut()
                .zip(from)
                .for_each(|(to, from)| *to = from * scale);
        }
    }
}

/// Some columns of the result.
struct Panel<'a> {
    /// `[rank, count]`, zero at first.
    out: &'a mut [f32],
    lhs: View<'a>,
    /// `[tokens, count]`
    rhs: View<'a>,
}

impl WithSimd for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (tokens, count) = (self.rhs.rows, self.rhs.cols);
        let width = WIDE * S::F32_LANES;
        let whole = count - count % width;
        for start in (0..tokens).step_by(PASS) {
            let pass = start..(start + PASS).min(tokens);
            for column in (0..whole).step_by(width) {
                self.tiles(simd, column, pass.clone());
            }
            for column in whole..count {
                self.column(column, pass.clone());
            }
        }
    }
}

impl Panel<'_> {
    /// Adds to one tile after the other down some columns.
    #[inline(always)]
    fn tiles<S: Simd>(&mut self, simd: S, column: usize, pass: Range<usize>) {
        for first in (0..self.lhs.cols).step_by(TALL) {
            let at = (first, column);
            match self.lhs.cols - first {
                1 => self.tile::<S, 1>(simd, at, pass.clone()),
                2 => self.tile::<S, 2>(simd, at, pass.clone()),
                3 => self.tile::<S, 3>(simd, at, pass.clone()),
                4 => self.tile::<S, 4>(simd, at, pass.clone()),
                5 => self.tile::<S, 5>(simd, at, pass.clone()),
                _ => self.tile::<S, TALL>(simd, at, pass.clone()),
            }
        }
    }

    /// Adds the tokens of `pass` to `R` rows and [`WIDE`] vectors of columns.
    #[inline(always)]
    fn tile<S: Simd, const R: usize>(
        &mut self,
        simd: S,
        (first, column): (usize, usize),
        pass: Range<usize>,
    ) {
        let (count, width) = (self.rhs.cols, WIDE * S::F32_LANES);
        let mut sums = [[simd.splat_f32s(0.0); WIDE]; R];
        for (row, sums) in sums.iter_mut().enumerate() {
            let (from, _) = S::as_simd_f32s(&self.out[(first + row) * count + column..][..width]);
            sums.iter_mut()
                .zip(from)
                .for_each(|(sum, from)| *sum = *from);
        }
        for token in pass {
            let (vectors, _) =
                S::as_simd_f32s(&self.rhs.data[token * self.rhs.row_stride + column..][..width]);
            let short = &self.lhs.data[token * self.lhs.row_stride + first..][..R];
            for (sums, x) in sums.iter_mut().zip(short) {
                let x = simd.splat_f32s(*x);
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    *sum = simd.mul_add_f32s(x, *vector, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let to = &mut self.out[(first + row) * count + column..][..width];
            let (to, _) = S::as_mut_simd_f32s(to);
            to.iter_mut().zip(sums).for_each(|(to, sum)| *to = *sum);
        }
    }

    /// Adds the tokens of `pass` to one column.
    fn column(&mut self, column: usize, pass: Range<usize>) {
        let (rank, count) = (self.lhs.cols, self.rhs.cols);
        for token in pass {
            let value = self.rhs.data[token * self.rhs.row_stride + column];
            let short = &self.lhs.data[token * self.lhs.row_stride..][..rank];
            for (row, x) in short.iter().enumerate() {
                let sum = &mut self.out[row * count + column];
                *sum = x.mul_add(value, *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{close, random};
    use crate::ops::product::{Into, ViewMut, multiply};

    #[test]
    fn equals_the_product_for_every_odd_shape() {
        for (tokens, rank, cols) in [
            (1, 1, 1),
            (3, 6, 31),
            (7, 16, 33),
            (40, 13, 129),
            (5, 48, 300),
        ] {
            let (a, b) = (
                random(tokens * (rank + 1), 1),
                random(tokens * (cols + 3), 2),
            );
            let lhs = View::strided(&a[1..], tokens, rank, rank + 1);
            let rhs = View::strided(&b[2..], tokens, cols, cols + 3);
            let (mut got, mut want) = (vec![9.0; rank * cols], vec![9.0; rank * cols]);
            outer(&mut got, lhs, rhs, 0.5);
            multiply(
                ViewMut::new(&mut want, rank, cols),
                lhs.t(),
                rhs,
                0.5,
                Into::Overwrite,
            );
            close(&got, &want, 1e-5);
        }
    }
}

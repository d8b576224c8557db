//! The product in plain code: each element is a sum of separately rounded terms in the order of the
//! inner dimension, so its bits are the same whatever the machine's vectors.
#![expect(
    clippy::indexing_slicing,
    reason = "lhs: [m, k], rhs: [k, n], checked by the caller; strips: [k, STRIP]"
)]

use rayon::prelude::*;

use super::{Into, View, ViewMut};
use crate::ops::simd::wide;

/// Columns that are summed together.
const STRIP: usize = 16;

/// Rows that are summed together.
const TALL: usize = 4;

/// Rows of one task.
const TASK: usize = 16;

/// `dst ← scale · lhs · rhs` (or added to it).
pub(super) fn product(dst: ViewMut<'_>, lhs: View<'_>, rhs: View<'_>, scale: f32, into: Into) {
    let (inner, cols) = (rhs.rows, rhs.cols);
    let mut strips = vec![0f32; cols.div_ceil(STRIP) * inner * STRIP];
    if inner > 0 {
        let tasks = strips.par_chunks_mut(inner * STRIP).enumerate();
        tasks.for_each(|(strip, out)| {
            for (l, line) in out.chunks_exact_mut(STRIP).enumerate() {
                let first = strip * STRIP;
                for (j, to) in line.iter_mut().enumerate().take(cols - first) {
                    *to = rhs.data[l * rhs.row_stride + (first + j) * rhs.col_stride];
                }
            }
        });
    }
    let tasks = dst.data.par_chunks_mut(TASK * dst.row_stride).enumerate();
    tasks.take(dst.rows.div_ceil(TASK)).for_each(|(task, out)| {
        wide!(|| {
            for (tall, out) in out.chunks_mut(TALL * dst.row_stride).enumerate() {
                let first = task * TASK + tall * TALL;
                let rows = TALL.min(dst.rows.saturating_sub(first));
                for strip in 0..cols.div_ceil(STRIP) {
                    let line = &strips[strip * inner * STRIP..][..inner * STRIP];
                    let sums = sums(lhs, first..first + rows, line);
                    let column = strip * STRIP;
                    let count = STRIP.min(cols - column);
                    for (i, sums) in sums.iter().enumerate().take(rows) {
                        let out = &mut out[i * dst.row_stride + column..][..count];
                        for (to, sum) in out.iter_mut().zip(sums) {
                            let before = if into == Into::Add { *to } else { 0.0 };
                            *to = before + sum * scale;
                        }
                    }
                }
            }
        });
    });
}

/// The sums of up to [`TALL`] rows in one strip.
#[inline(always)]
fn sums(lhs: View<'_>, rows: std::ops::Range<usize>, strip: &[f32]) -> [[f32; STRIP]; TALL] {
    let mut sums = [[0f32; STRIP]; TALL];
    // A row beyond the last is the last again; nobody reads its sums.
    let start = |i: usize| (rows.start + i).min(rows.end - 1) * lhs.row_stride;
    let starts: [usize; TALL] = std::array::from_fn(start);
    let (lines, _) = strip.as_chunks::<STRIP>();
    for (l, line) in lines.iter().enumerate() {
        for (sums, start) in sums.iter_mut().zip(starts) {
            let x = lhs.data[start + l * lhs.col_stride];
            for (sum, y) in sums.iter_mut().zip(line) {
                *sum += x * y;
            }
        }
    }
    sums
}

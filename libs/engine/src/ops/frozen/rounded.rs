//! The arithmetics of few bits where the machine has no instructions for them: values are rounded
//! and multiplied in `f32`. As slow as `f32`, and no larger in error than the real ones.
#![expect(
    clippy::indexing_slicing,
    reason = "x: [tokens, inner]; w: [outputs, inner]; buffers are sized here"
)]

use half::bf16;
use rayon::prelude::*;

use crate::ops::product::{Into, View, ViewMut, multiply};
use crate::ops::simd::{max, wide};

/// Values that one task rounds.
const CHUNK: usize = 1 << 14;

/// Buffers that are used again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    left: Vec<f32>,
    right: Vec<f32>,
    left_scales: Vec<f32>,
    right_scales: Vec<f32>,
}

/// `y ← x · w` (or added to it), both rounded to bf16.
pub(super) fn pairs(y: ViewMut<'_>, x: View<'_>, w: View<'_>, into: Into, scratch: &mut Scratch) {
    let round = |buffer: &mut Vec<f32>, from: &[f32]| {
        buffer.resize(from.len(), 0.0);
        let tasks = buffer.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK));
        tasks.for_each(|(to, from)| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = bf16::from_f32(*from).to_f32();
            }
        });
    };
    let Scratch { left, right, .. } = scratch;
    round(left, x.data());
    round(right, w.data());
    multiply(y, x.over(left), w.over(right), 1.0, into);
}

/// `y ← x · wᵀ`, each row of both rounded to 255 levels of its own.
pub(super) fn quads(mut y: ViewMut<'_>, x: View<'_>, w: View<'_>, scratch: &mut Scratch) {
    let Scratch {
        left,
        right,
        left_scales,
        right_scales,
    } = scratch;
    let x = levels(left, left_scales, x);
    let w = levels(right, right_scales, w);
    multiply(y.reborrow(), x, w.t(), 1.0, Into::Overwrite);
    for (row, left) in left_scales.iter().enumerate() {
        for (y, right) in y.row_mut(row).iter_mut().zip(right_scales.iter()) {
            *y *= left * right;
        }
    }
}

/// The rows' levels as whole numbers, and their scales; a row with an infinity or NaN has no finite
/// scale.
fn levels<'a>(buffer: &'a mut Vec<f32>, scales: &mut Vec<f32>, from: View<'_>) -> View<'a> {
    let (rows, cols) = (from.rows(), from.cols());
    buffer.resize(rows * cols, 0.0);
    scales.resize(rows, 0.0);
    let tasks = buffer.par_chunks_mut(cols).zip(scales.par_iter_mut());
    tasks.enumerate().for_each(|(row, (to, scale))| {
        let from = from.row(row).unwrap_or_default();
        wide!(|| {
            to.iter_mut().zip(from).for_each(|(to, x)| *to = x.abs());
            let poison: f32 = to.iter().map(|x| x * 0.0).sum();
            *scale = max(to) / 127.0 + poison;
            let inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
            for (to, x) in to.iter_mut().zip(&from[..cols]) {
                *to = (x * inverse).round_ties_even();
            }
        });
    });
    View::new(buffer, rows, cols)
}

//! Weights to codes, magnitudes to theirs.

use rayon::prelude::*;

use super::codebook::{BOUNDS, DynamicMap};
use super::{BLOCK, GROUP, Magnitudes, ROWS, RUN, row_bytes};
use crate::ops::wide;

/// Codes and magnitudes of `values` `[rows, cols]`.
pub(super) fn rows(codes: &mut [u8], magnitudes: &mut [f32], values: &[f32], cols: usize) {
    let (blocks, bytes) = (cols.div_ceil(BLOCK), row_bytes(cols));
    let tasks = codes
        .par_chunks_mut(ROWS * bytes)
        .zip(magnitudes.par_chunks_mut(ROWS * blocks))
        .zip(values.par_chunks(ROWS * cols));
    tasks.for_each(|((codes, magnitudes), values)| {
        let mut rows = codes
            .chunks_exact_mut(bytes)
            .zip(magnitudes.chunks_exact_mut(blocks))
            .zip(values.chunks_exact(cols));
        wide!(|| {
            for ((codes, magnitudes), values) in &mut rows {
                row(codes, magnitudes, values);
            }
        });
    });
}

#[inline(always)]
fn row(codes: &mut [u8], magnitudes: &mut [f32], values: &[f32]) {
    let blocks = codes
        .chunks_mut(BLOCK / 2)
        .zip(magnitudes)
        .zip(values.chunks(BLOCK));
    for ((codes, magnitude), values) in blocks {
        *magnitude = values.iter().fold(0f32, |most, value| {
            let size = value.abs();
            if size > most { size } else { most }
        });
        for (codes, values) in codes.chunks_exact_mut(RUN / 2).zip(values.chunks(RUN)) {
            let mut run = [0f32; RUN];
            for (own, value) in run.iter_mut().zip(values) {
                *own = *value;
            }
            let (low, high) = run.split_at(RUN / 2);
            for ((code, low), high) in codes.iter_mut().zip(low).zip(high) {
                *code = nearest(*low, *magnitude) | (nearest(*high, *magnitude) << 4);
            }
        }
    }
}

/// The code of `value` in a block of this magnitude; that of zero in a block of zeros.
#[inline(always)]
fn nearest(value: f32, magnitude: f32) -> u8 {
    let relative = if magnitude > 0.0 {
        value / magnitude
    } else {
        0.0
    };
    BOUNDS
        .iter()
        .fold(0, |code, bound| code + u8::from(relative > *bound))
}

/// Double quantization: the magnitudes less their mean, in groups that share a scale.
pub(super) fn magnitudes(exact: &[f32], map: &DynamicMap) -> Magnitudes {
    let sum: f64 = exact.iter().copied().map(f64::from).sum();
    let offset = (sum / exact.len().max(1) as f64) as f32;
    let (mut codes, mut scales) = (Vec::with_capacity(exact.len()), Vec::new());
    for group in exact.chunks(GROUP) {
        let scale = group
            .iter()
            .fold(0f32, |most, value| most.max((value - offset).abs()));
        let divisor = if scale > 0.0 { scale } else { 1.0 };
        codes.extend(
            group
                .iter()
                .map(|value| map.nearest((value - offset) / divisor)),
        );
        scales.push(scale);
    }
    Magnitudes {
        codes,
        scales,
        offset,
    }
}

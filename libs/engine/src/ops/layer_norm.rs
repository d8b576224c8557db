//! Layer normalization: `y = (x − mean(x)) / sqrt(var(x) + ε) · w + b`, row by row (GPT-2, BERT).
//!
//! Weight and bias are frozen, so backward gives the gradient of the input alone.
#![expect(
    clippy::indexing_slicing,
    reason = "x, y, dy, dx: [rows, width]; weight, bias: [width]; asserted at entry"
)]

use rayon::prelude::*;

use super::simd::{ROWS, sum, wide};

/// `x` `[rows, width]` → `y` `[rows, width]`.
///
/// # Panics
/// The slices' lengths do not match.
pub fn forward(y: &mut [f32], x: &[f32], (weight, bias): (&[f32], &[f32]), epsilon: f32) {
    let width = weight.len();
    assert!(bias.len() == width, "weight and bias must match");
    assert!(
        x.len() == y.len() && x.len().is_multiple_of(width),
        "rows must be whole"
    );
    let tasks = y
        .par_chunks_mut(ROWS * width)
        .zip(x.par_chunks(ROWS * width));
    tasks.for_each(|(y, x)| {
        wide!(|| {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let (mean, inverse) = moments(x, epsilon);
                for i in 0..width {
                    y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
                }
            }
        });
    });
}

/// Adds the gradient of the input to `dx`, given that of the output.
///
/// With `z = (x − mean)·r` and `g = w·dy`: `dx += r·(g − mean(g) − z·mean(g·z))`.
///
/// # Panics
/// The slices' lengths do not match.
pub fn backward(dx: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
    assert!(
        x.len() == dy.len() && x.len() == dx.len() && x.len().is_multiple_of(width),
        "rows must be whole"
    );
    let size = ROWS * width;
    let tasks = dx
        .par_chunks_mut(size)
        .zip(dy.par_chunks(size))
        .zip(x.par_chunks(size));
    tasks.for_each(|((dx, dy), x)| {
        wide!(|| {
            let rows = dx
                .chunks_exact_mut(width)
                .zip(dy.chunks_exact(width))
                .zip(x.chunks_exact(width));
            for ((dx, dy), x) in rows {
                let (mean, inverse) = moments(x, epsilon);
                let shift = sum(width, |i| dy[i] * weight[i]) / width as f32;
                let along = sum(width, |i| dy[i] * weight[i] * (x[i] - mean) * inverse);
                let along = along / width as f32;
                for i in 0..width {
                    let z = (x[i] - mean) * inverse;
                    dx[i] += inverse * (weight[i] * dy[i] - shift - z * along);
                }
            }
        });
    });
}

/// The mean, and what the distance from it is multiplied by. The variance is that of all of the row, as PyTorch
/// has it here, and is taken of the distances: a large mean cancels nothing.
#[inline(always)]
fn moments(x: &[f32], epsilon: f32) -> (f32, f32) {
    let width = x.len() as f32;
    let mean = sum(x.len(), |i| x[i]) / width;
    let squares = sum(x.len(), |i| (x[i] - mean) * (x[i] - mean));
    (mean, 1.0 / (squares / width + epsilon).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{close, differences, dot, plain, random};

    const EPSILON: f32 = 1e-5;

    #[test]
    fn forward_and_backward_equal_the_plain_composition_and_differences() {
        for (rows, width) in [(1, 2), (1, 64), (3, 5), (17, 80), (9, 576)] {
            let x: Vec<f32> = random(rows * width, 1).iter().map(|v| v + 0.5).collect();
            let (w, b, dy) = (random(width, 2), random(width, 4), random(rows * width, 3));
            let (want_y, want_dx) = plain(&x, &[rows, width], &dy, |x| {
                let row =
                    |values: &[f32]| candle_core::Tensor::from_slice(values, width, x.device());
                let apart = x.broadcast_sub(&x.mean_keepdim(1)?)?;
                let variance = apart.sqr()?.mean_keepdim(1)?;
                let normal = apart.broadcast_div(&(variance + f64::from(EPSILON))?.sqrt()?)?;
                normal.broadcast_mul(&row(&w)?)?.broadcast_add(&row(&b)?)
            });
            let (mut y, mut dx) = (vec![9.0; x.len()], vec![1.0; x.len()]);
            forward(&mut y, &x, (&w, &b), EPSILON);
            backward(&mut dx, &dy, &x, &w, EPSILON);
            dx.iter_mut().for_each(|v| *v -= 1.0);
            close(&y, &want_y, 1e-5);
            close(&dx, &want_dx, 2e-5);
            // Of two values any difference gives plus and minus one: there is no gradient to see.
            if width > 2 {
                differences(&x, &dx, 1e-2, |x| {
                    let mut y = vec![9.0; x.len()];
                    forward(&mut y, x, (&w, &b), EPSILON);
                    dot(&y, &dy)
                });
            }
        }
    }

    #[test]
    fn a_large_mean_cancels_nothing() {
        let x: Vec<f32> = random(64, 1).iter().map(|v| v + 4096.0).collect();
        let (w, b) = (vec![1.0; 64], vec![0.0; 64]);
        let mut y = vec![9.0; 64];
        forward(&mut y, &x, (&w, &b), EPSILON);
        let squares: f32 = y.iter().map(|v| v * v).sum();
        assert!((squares / 64.0 - 1.0).abs() < 1e-3, "{squares}");
    }
}

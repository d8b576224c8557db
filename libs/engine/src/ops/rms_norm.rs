//! Root-mean-square normalization: `y = x / sqrt(mean(x²) + ε) · w`, row by row.
//!
//! The weight is frozen, so backward gives the gradient of the input alone.
#![expect(
    clippy::indexing_slicing,
    reason = "x, y, dy, dx: [rows, width]; weight: [width]; asserted at entry"
)]

use rayon::prelude::*;

use super::simd::{ROWS, sum, wide};

/// `x` `[rows, width]` → `y` `[rows, width]`.
///
/// # Panics
/// The slices' lengths do not match.
pub fn forward(y: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
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
                let inverse = inverse(x, epsilon);
                for i in 0..width {
                    y[i] = x[i] * inverse * weight[i];
                }
            }
        });
    });
}

/// Adds the gradient of the input to `dx`, given that of the output.
///
/// With `r = 1/sqrt(mean(x²)+ε)`: `dx += r·(w·dy) − x·r³/width·Σ(w·dy·x)`.
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
                let inverse = inverse(x, epsilon);
                let dot = sum(width, |i| dy[i] * weight[i] * x[i]);
                let shared = dot * inverse * inverse * inverse / width as f32;
                for i in 0..width {
                    dx[i] += inverse * weight[i] * dy[i] - x[i] * shared;
                }
            }
        });
    });
}

#[inline(always)]
fn inverse(x: &[f32], epsilon: f32) -> f32 {
    let squares = sum(x.len(), |i| x[i] * x[i]);
    1.0 / (squares / x.len() as f32 + epsilon).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{close, differences, dot, plain, random};

    const EPSILON: f32 = 1e-5;

    #[test]
    fn forward_and_backward_equal_the_plain_composition_and_differences() {
        for (rows, width) in [(1, 1), (1, 64), (3, 5), (17, 80), (9, 576)] {
            let (x, w, dy) = (
                random(rows * width, 1),
                random(width, 2),
                random(rows * width, 3),
            );
            let (want_y, want_dx) = plain(&x, &[rows, width], &dy, |x| {
                let mean = x.sqr()?.mean_keepdim(1)?;
                let w = candle_core::Tensor::from_slice(&w, width, x.device())?;
                x.broadcast_div(&(mean + f64::from(EPSILON))?.sqrt()?)?
                    .broadcast_mul(&w)
            });
            let (mut y, mut dx) = (vec![9.0; x.len()], vec![1.0; x.len()]);
            forward(&mut y, &x, &w, EPSILON);
            backward(&mut dx, &dy, &x, &w, EPSILON);
            dx.iter_mut().for_each(|v| *v -= 1.0);
            close(&y, &want_y, 1e-5);
            close(&dx, &want_dx, 2e-5);
            differences(&x, &dx, 5e-3, |x| {
                let mut y = vec![9.0; x.len()];
                forward(&mut y, x, &w, EPSILON);
                dot(&y, &dy)
            });
        }
    }
}

//! The feed-forward gate: `y = f(gate) · up` with the curve of the family (`activation`), from `[rows, 2·width]` with the gate first.
#![expect(
    clippy::indexing_slicing,
    reason = "gate_up, d_gate_up: [rows, 2·width]; y, dy: [rows, width]; asserted at entry"
)]

pub mod rounded;

use rayon::prelude::*;

use super::activation::Curve;
use super::simd::{ROWS, wide};

/// `gate_up` `[rows, 2·width]` → `y` `[rows, width]`.
///
/// # Panics
/// The slices' lengths do not match.
pub fn forward<C: Curve>(y: &mut [f32], gate_up: &[f32], width: usize) {
    assert!(
        gate_up.len() == 2 * y.len() && y.len().is_multiple_of(width),
        "rows must be whole"
    );
    let tasks = y
        .par_chunks_mut(ROWS * width)
        .zip(gate_up.par_chunks(2 * ROWS * width));
    tasks.for_each(|(y, gate_up)| {
        wide!(|| {
            for (y, gate_up) in y
                .chunks_exact_mut(width)
                .zip(gate_up.chunks_exact(2 * width))
            {
                let (gate, up) = gate_up.split_at(width);
                for i in 0..width {
                    y[i] = product::<C>(gate[i], up[i]);
                }
            }
        });
    });
}

/// Replaces `gate_up` by its gradient, given that of the output.
///
/// # Panics
/// The slices' lengths do not match.
pub fn backward<C: Curve>(gate_up: &mut [f32], dy: &[f32], width: usize) {
    assert!(
        gate_up.len() == 2 * dy.len() && dy.len().is_multiple_of(width),
        "rows must be whole"
    );
    let tasks = gate_up
        .par_chunks_mut(2 * ROWS * width)
        .zip(dy.par_chunks(ROWS * width));
    tasks.for_each(|(gate_up, dy)| {
        wide!(|| {
            for (gate_up, dy) in gate_up
                .chunks_exact_mut(2 * width)
                .zip(dy.chunks_exact(width))
            {
                let (gate, up) = gate_up.split_at_mut(width);
                for i in 0..width {
                    (gate[i], up[i]) = gradient::<C>(gate[i], up[i], dy[i]);
                }
            }
        });
    });
}

#[inline(always)]
fn product<C: Curve>(gate: f32, up: f32) -> f32 {
    C::value(gate) * up
}

/// The gradients of both, given that of their product.
#[inline(always)]
fn gradient<C: Curve>(gate: f32, up: f32, dy: f32) -> (f32, f32) {
    let (value, slope) = C::both(gate);
    (dy * up * slope, dy * value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::activation::Silu;
    use crate::ops::check::{close, differences, dot, plain, random};

    #[test]
    fn forward_and_backward_equal_the_plain_composition_and_differences() {
        for (rows, width) in [(1, 1), (1, 64), (3, 5), (17, 80)] {
            let x: Vec<f32> = random(rows * 2 * width, 1)
                .iter()
                .map(|v| v * 6.0)
                .collect();
            let dy = random(rows * width, 2);
            let (want_y, want_dx) = plain(&x, &[rows, 2 * width], &dy, |x| {
                let gate = x.narrow(1, 0, width)?.contiguous()?;
                let up = x.narrow(1, width, width)?.contiguous()?;
                gate.silu()? * up
            });
            let mut y = vec![9.0; rows * width];
            forward::<Silu>(&mut y, &x, width);
            let mut dx = x.clone();
            backward::<Silu>(&mut dx, &dy, width);
            close(&y, &want_y, 1e-5);
            close(&dx, &want_dx, 1e-5);
            differences(&x, &dx, 5e-3, |x| {
                let mut y = vec![9.0; x.len() / 2];
                forward::<Silu>(&mut y, x, width);
                dot(&y, &dy)
            });
        }
    }
}

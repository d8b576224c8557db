//! The curves of feed-forward networks, and the network that has one without a gate: `y = f(x)`.
#![expect(
    clippy::indexing_slicing,
    reason = "x, y, dy: of one length; asserted at entry"
)]

use rayon::prelude::*;

use super::simd::{exp, wide};

/// A curve that is applied value by value.
pub trait Curve: Sync {
    /// `f(x)`
    fn value(x: f32) -> f32;

    /// `f(x)` and its slope.
    fn both(x: f32) -> (f32, f32);
}

/// `x · sigmoid(x)` (Llama and what is made like it).
#[derive(Debug, Clone, Copy)]
pub struct Silu;

/// `x · Φ(x)` with the normal distribution approached by a hyperbolic tangent: `gelu_new` of GPT-2,
/// `gelu_pytorch_tanh` of Gemma.
#[derive(Debug, Clone, Copy)]
pub struct GeluTanh;

impl Curve for Silu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * sigmoid(x)
    }

    #[inline(always)]
    fn both(x: f32) -> (f32, f32) {
        let s = sigmoid(x);
        let silu = x * s;
        (silu, s + silu * (1.0 - s))
    }
}

/// `2·√(2/π)`: `½·(1 + tanh u) = sigmoid(2u)`.
const TWICE: f32 = 1.595_769_2;
const CUBIC: f32 = 0.044_715;

impl Curve for GeluTanh {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * sigmoid(TWICE * (x + CUBIC * x * x * x))
    }

    #[inline(always)]
    fn both(x: f32) -> (f32, f32) {
        let s = sigmoid(TWICE * (x + CUBIC * x * x * x));
        let inner = TWICE * (1.0 + 3.0 * CUBIC * x * x);
        (x * s, s + x * s * (1.0 - s) * inner)
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Values of one task.
const CHUNK: usize = 8192;

/// `y ← f(x)`.
///
/// # Panics
/// The slices' lengths do not match.
pub fn forward<C: Curve>(y: &mut [f32], x: &[f32]) {
    assert!(x.len() == y.len(), "shapes must match");
    let tasks = y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
    tasks.for_each(|(y, x)| {
        wide!(|| {
            for i in 0..y.len() {
                y[i] = C::value(x[i]);
            }
        });
    });
}

/// Replaces `x` by its gradient, given that of the output.
///
/// # Panics
/// The slices' lengths do not match.
pub fn backward<C: Curve>(x: &mut [f32], dy: &[f32]) {
    assert!(x.len() == dy.len(), "shapes must match");
    let tasks = x.par_chunks_mut(CHUNK).zip(dy.par_chunks(CHUNK));
    tasks.for_each(|(x, dy)| {
        wide!(|| {
            for i in 0..x.len() {
                x[i] = dy[i] * C::both(x[i]).1;
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use candle_core::{Result, Tensor};

    use super::*;
    use crate::ops::check::{close, differences, dot, plain, random};

    fn check<C: Curve>(want: impl Fn(&Tensor) -> Result<Tensor>) {
        for len in [1, 5, 64, 9000] {
            let x: Vec<f32> = random(len, 1).iter().map(|v| v * 6.0).collect();
            let dy = random(len, 2);
            let (want_y, want_dx) = plain(&x, &[len], &dy, &want);
            let (mut y, mut dx) = (vec![9.0; len], x.clone());
            forward::<C>(&mut y, &x);
            backward::<C>(&mut dx, &dy);
            close(&y, &want_y, 1e-6);
            close(&dx, &want_dx, 2e-6);
            differences(&x, &dx, 5e-3, |x| {
                let mut y = vec![9.0; x.len()];
                forward::<C>(&mut y, x);
                dot(&y, &dy)
            });
        }
    }

    #[test]
    fn every_curve_and_its_slope_equal_the_plain_composition_and_differences() {
        check::<Silu>(Tensor::silu);
        // candle's `gelu` is the one of the hyperbolic tangent.
        check::<GeluTanh>(Tensor::gelu);
    }

    #[test]
    fn far_out_a_curve_is_the_identity_or_nothing() {
        for x in [-60.0f32, -1e4, 60.0, 1e4] {
            let want = if x > 0.0 { (x, 1.0) } else { (0.0, 0.0) };
            for (value, slope) in [Silu::both(x), GeluTanh::both(x)] {
                assert!((value - want.0).abs() < 1e-6 * x.abs(), "{x}: {value}");
                assert!((slope - want.1).abs() < 1e-6, "{x}: {slope}");
            }
        }
    }
}

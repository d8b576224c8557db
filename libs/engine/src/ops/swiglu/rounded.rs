//! The same with gate and up rounded to bf16 and kept as such, for arithmetics that round the operands of
//! their products anyway: the largest activation of a block takes half the memory.
//!
//! Forward computes with the rounded values too, so that backward sees the function that was computed, and
//! a block that is computed again gives the same bytes.
#![expect(
    clippy::indexing_slicing,
    reason = "gate_up, d_gate_up: [rows, 2·width]; kept, y, dy: [rows, width]; asserted at entry"
)]

use rayon::prelude::*;

use super::{gradient, product};
use crate::ops::activation::Curve;
use crate::ops::simd::{ROWS, wide};

/// `gate_up` `[rows, 2·width]` → `y` `[rows, width]`, and in `kept` `[rows, width]` both rounded, two to a
/// word: see [`pack`].
///
/// # Panics
/// The slices' lengths do not match.
pub fn forward<C: Curve>(y: &mut [f32], kept: &mut [f32], gate_up: &[f32], width: usize) {
    assert!(
        gate_up.len() == 2 * y.len() && kept.len() == y.len() && y.len().is_multiple_of(width),
        "rows must be whole"
    );
    let tasks = y
        .par_chunks_mut(ROWS * width)
        .zip(kept.par_chunks_mut(ROWS * width))
        .zip(gate_up.par_chunks(2 * ROWS * width));
    tasks.for_each(|((y, kept), gate_up)| {
        wide!(|| {
            let rows = y
                .chunks_exact_mut(width)
                .zip(kept.chunks_exact_mut(width))
                .zip(gate_up.chunks_exact(2 * width));
            for ((y, kept), gate_up) in rows {
                let (gate, up) = gate_up.split_at(width);
                for i in 0..width {
                    kept[i] = pack(gate[i], up[i]);
                    let (gate, up) = unpack(kept[i]);
                    y[i] = product::<C>(gate, up);
                }
            }
        });
    });
}

/// `kept` `[rows, width]` → `y` `[rows, width]`, as [`forward`] gave it.
///
/// # Panics
/// The slices' lengths do not match.
pub fn again<C: Curve>(y: &mut [f32], kept: &[f32]) {
    assert!(kept.len() == y.len(), "shapes must match");
    let tasks = y.par_chunks_mut(CHUNK).zip(kept.par_chunks(CHUNK));
    tasks.for_each(|(y, kept)| {
        wide!(|| {
            for (y, kept) in y.iter_mut().zip(kept) {
                let (gate, up) = unpack(*kept);
                *y = product::<C>(gate, up);
            }
        });
    });
}

/// Overwrites `d_gate_up` `[rows, 2·width]` by the gradient of both, given that of the output.
///
/// # Panics
/// The slices' lengths do not match.
pub fn backward<C: Curve>(d_gate_up: &mut [f32], kept: &[f32], dy: &[f32], width: usize) {
    assert!(
        d_gate_up.len() == 2 * dy.len() && kept.len() == dy.len() && dy.len().is_multiple_of(width),
        "rows must be whole"
    );
    let tasks = d_gate_up
        .par_chunks_mut(2 * ROWS * width)
        .zip(kept.par_chunks(ROWS * width))
        .zip(dy.par_chunks(ROWS * width));
    tasks.for_each(|((d_gate_up, kept), dy)| {
        wide!(|| {
            let rows = d_gate_up
                .chunks_exact_mut(2 * width)
                .zip(kept.chunks_exact(width))
                .zip(dy.chunks_exact(width));
            for ((d_gate_up, kept), dy) in rows {
                let (d_gate, d_up) = d_gate_up.split_at_mut(width);
                for i in 0..width {
                    let (gate, up) = unpack(kept[i]);
                    (d_gate[i], d_up[i]) = gradient::<C>(gate, up, dy[i]);
                }
            }
        });
    });
}

/// Values of one task.
const CHUNK: usize = 8192;

/// Both rounded to bf16 (to nearest, ties to even) in the halves of one word, the gate above. It is carried
/// as an `f32` because buffers are; its value means nothing.
#[inline(always)]
fn pack(gate: f32, up: f32) -> f32 {
    f32::from_bits((round(gate) & 0xffff_0000) | (round(up) >> 16))
}

#[inline(always)]
fn unpack(kept: f32) -> (f32, f32) {
    let word = kept.to_bits();
    (
        f32::from_bits(word & 0xffff_0000),
        f32::from_bits(word << 16),
    )
}

/// The bits with the upper half rounded; NaN stays NaN.
#[inline(always)]
fn round(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    if value.is_nan() {
        bits | 0x0040_0000
    } else {
        rounded
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::ops::activation::GeluTanh;
    use crate::ops::check::random;
    use crate::ops::swiglu;

    #[test]
    fn it_is_the_exact_one_of_rounded_values() {
        for (rows, width) in [(1, 1), (1, 64), (3, 5), (17, 80)] {
            let exact: Vec<f32> = random(rows * 2 * width, 1)
                .iter()
                .map(|v| v * 6.0)
                .collect();
            let dy = random(rows * width, 2);
            let nearest = |v: &f32| bf16::from_f32(*v).to_f32();
            let mut want_gradient: Vec<f32> = exact.iter().map(nearest).collect();
            let (mut y, mut kept) = (vec![9.0; rows * width], vec![9.0; rows * width]);
            let mut want = y.clone();
            swiglu::forward::<GeluTanh>(&mut want, &want_gradient, width);
            forward::<GeluTanh>(&mut y, &mut kept, &exact, width);
            assert_eq!(y, want);
            y.fill(9.0);
            again::<GeluTanh>(&mut y, &kept);
            assert_eq!(y, want);
            let mut got = vec![9.0; exact.len()];
            backward::<GeluTanh>(&mut got, &kept, &dy, width);
            swiglu::backward::<GeluTanh>(&mut want_gradient, &dy, width);
            assert_eq!(got, want_gradient);
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for value in [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::from_bits(0x7f80_0001),
        ] {
            let (gate, up) = unpack(pack(value, value));
            assert_eq!(
                (gate.is_nan(), up.is_nan()),
                (value.is_nan(), value.is_nan())
            );
            assert!(!gate.is_finite() && !up.is_finite());
        }
    }
}

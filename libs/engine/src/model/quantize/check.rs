//! What the formats' tests share.

use std::convert::Infallible;
use std::ops::Range;

use super::Read;

/// Values as weights have them: most small, rows of different size, some zeros, a few far out.
pub(super) fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut values: Vec<f32> = (0..len).map(|_| uniform()).collect();
    for (i, value) in values.iter_mut().enumerate() {
        *value *= match i % 97 {
            0 => 0.0,
            1 => 8.0,
            _ => 0.02 * (1.0 + (i / 500 % 7) as f32),
        };
    }
    values
}

/// Encodes `values` `[_, cols]`.
pub(super) fn encoded<T>(
    values: &[f32],
    cols: usize,
    encode: impl FnOnce(usize, usize, &mut Read<'_, Infallible>) -> Result<T, Infallible>,
) -> T {
    let mut read = |rows: Range<usize>, out: &mut [f32]| {
        out.copy_from_slice(&values[rows.start * cols..rows.end * cols]);
        Ok(())
    };
    let Ok(matrix) = encode(values.len() / cols, cols, &mut read);
    matrix
}

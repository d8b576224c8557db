//! bf16: the upper half of an `f32`, rounded to nearest, ties to even.
//!
//! Relative error of a value: at most 2⁻⁸. Two bytes a weight.

use rayon::prelude::*;

use super::{ROWS, Read, by_rows, strips};
use crate::ops::wide;

/// A matrix `[rows, cols]` in bf16.
pub(crate) struct Bf16 {
    /// `[rows, cols]`, the bits.
    bits: Vec<u16>,
    cols: usize,
}

impl Bf16 {
    /// Rounds the matrix that `read` gives in strips.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn encode<E>(rows: usize, cols: usize, read: &mut Read<'_, E>) -> Result<Self, E> {
        let mut bits = vec![0; rows * cols];
        strips(rows, cols, read, |first, values| {
            let own = bits.get_mut(first * cols..).unwrap_or_default();
            let tasks = own.par_chunks_mut(ROWS * cols);
            tasks
                .zip(values.par_chunks(ROWS * cols))
                .for_each(|(bits, values)| wide!(|| round(bits, values)));
        })?;
        Ok(Self { bits, cols })
    }

    pub(crate) const fn rows(&self) -> usize {
        self.bits.len() / self.cols
    }

    pub(crate) const fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.bits.as_slice())
    }

    /// Decodes the rows from `first` on into `out` `[_, cols]`.
    pub(crate) fn decode(&self, first: usize, out: &mut [f32]) {
        by_rows(out, self.cols, |row, out| {
            let start = (first + row) * self.cols;
            let bits = self.bits.get(start..start + out.len()).unwrap_or_default();
            wide!(|| widen(out, bits));
        });
    }
}

#[inline(always)]
fn round(bits: &mut [u16], values: &[f32]) {
    for (bits, value) in bits.iter_mut().zip(values) {
        let exact = value.to_bits();
        // Half of the last kept bit, less one where that bit is even; no value is NaN here.
        let rounded = exact.wrapping_add(0x7fff + ((exact >> 16) & 1));
        *bits = (rounded >> 16) as u16;
    }
}

#[inline(always)]
fn widen(out: &mut [f32], bits: &[u16]) {
    for (out, bits) in out.iter_mut().zip(bits) {
        *out = f32::from_bits(u32::from(*bits) << 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::quantize::check::{encoded, values};

    #[test]
    fn every_value_is_the_nearest_and_ties_go_to_even() {
        for (rows, cols) in [(1, 1), (3, 65), (700, 577)] {
            let x = values(rows * cols, 1);
            let matrix = encoded(&x, cols, Bf16::encode);
            let mut got = vec![0.0; x.len()];
            matrix.decode(0, &mut got);
            for (got, x) in got.iter().zip(&x) {
                // The reference is the `half` crate's.
                assert_eq!(*got, half::bf16::from_f32(*x).to_f32());
                assert!((got - x).abs() <= x.abs() / 256.0);
            }
        }
        let tie = [f32::from_bits(0x3f80_8000), f32::from_bits(0x3f81_8000)];
        let matrix = encoded(&tie, 2, Bf16::encode);
        assert_eq!(matrix.bits, [0x3f80, 0x3f82]);
    }

    #[test]
    fn zeros_and_the_largest_numbers_are_exact() {
        let largest = half::bf16::MAX.to_f32();
        let x = [0.0, -0.0, largest, -largest, 1e-40];
        let matrix = encoded(&x, 5, Bf16::encode);
        let mut got = [1.0; 5];
        matrix.decode(0, &mut got);
        assert_eq!(got[..4], x[..4]);
        assert!(got[1].is_sign_negative());
        assert_eq!((matrix.rows(), matrix.cols(), matrix.bytes()), (1, 5, 10));
    }
}

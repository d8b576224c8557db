//! int8: symmetric, one scale for each row.
//!
//! A row's scale is its largest magnitude / 127, so that an 8-bit product can sum codes over the
//! whole row and scale once. Error of a value: at most half the row's scale.

use rayon::prelude::*;

use super::{ROWS, Read, by_rows, strips};
use crate::ops::wide;

/// The largest code; −128 is not used, so that codes are symmetric.
const LARGEST: f32 = 127.0;

/// A matrix `[rows, cols]` in 8-bit integers.
pub(crate) struct Int8 {
    /// `[rows, cols]`, each in `-127..=127`.
    codes: Vec<i8>,
    /// `[rows]`
    scales: Vec<f32>,
    cols: usize,
}

impl Int8 {
    /// Rounds the matrix that `read` gives in strips.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn encode<E>(rows: usize, cols: usize, read: &mut Read<'_, E>) -> Result<Self, E> {
        let (mut codes, mut scales) = (vec![0; rows * cols], vec![0.0; rows]);
        strips(rows, cols, read, |first, values| {
            let codes = codes.get_mut(first * cols..).unwrap_or_default();
            let scales = scales.get_mut(first..).unwrap_or_default();
            let tasks = codes
                .par_chunks_mut(ROWS * cols)
                .zip(scales.par_chunks_mut(ROWS))
                .zip(values.par_chunks(ROWS * cols));
            tasks.for_each(|((codes, scales), values)| {
                let rows = codes.chunks_exact_mut(cols).zip(scales);
                for ((codes, scale), values) in rows.zip(values.chunks_exact(cols)) {
                    *scale = wide!(|| round(codes, values));
                }
            });
        })?;
        Ok(Self {
            codes,
            scales,
            cols,
        })
    }

    /// The matrix of these codes and scales; none if their numbers do not match.
    pub(crate) fn from_parts(codes: Vec<i8>, scales: Vec<f32>, cols: usize) -> Option<Self> {
        let whole = cols > 0 && scales.len().checked_mul(cols) == Some(codes.len());
        whole.then_some(Self {
            codes,
            scales,
            cols,
        })
    }

    /// `[rows, cols]`, each in `-127..=127`: `value ≈ code · scale of its row`.
    pub(crate) fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// `[rows]`, none negative.
    pub(crate) fn scales(&self) -> &[f32] {
        &self.scales
    }

    pub(crate) const fn rows(&self) -> usize {
        self.scales.len()
    }

    pub(crate) const fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn bytes(&self) -> usize {
        self.codes.len() + size_of_val(self.scales.as_slice())
    }

    /// Decodes the rows from `first` on into `out` `[_, cols]`.
    pub(crate) fn decode(&self, first: usize, out: &mut [f32]) {
        by_rows(out, self.cols, |row, out| {
            let codes = self.codes.get((first + row) * self.cols..);
            let scales = self.scales.get(first + row..).unwrap_or_default();
            wide!(|| {
                let codes = codes.unwrap_or_default().chunks_exact(self.cols);
                for ((out, codes), scale) in out.chunks_exact_mut(self.cols).zip(codes).zip(scales)
                {
                    widen(out, codes, *scale);
                }
            });
        });
    }
}

/// Writes a row's codes and gives its scale.
#[inline(always)]
fn round(codes: &mut [i8], values: &[f32]) -> f32 {
    let largest = values.iter().fold(0f32, |most, value| {
        let size = value.abs();
        if size > most { size } else { most }
    });
    let scale = largest / LARGEST;
    // A row of zeros, or so small that its scale is none: every code is 0.
    if scale > 0.0 {
        for (code, value) in codes.iter_mut().zip(values) {
            *code = (value / scale).round_ties_even().clamp(-LARGEST, LARGEST) as i8;
        }
    }
    scale
}

#[inline(always)]
fn widen(out: &mut [f32], codes: &[i8], scale: f32) {
    for (out, code) in out.iter_mut().zip(codes) {
        *out = f32::from(*code) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::quantize::check::{encoded, values};

    #[test]
    fn every_value_is_within_half_a_step_of_its_row() {
        for (rows, cols) in [(1, 1), (3, 65), (700, 577), (5, 64)] {
            let x = values(rows * cols, 2);
            let matrix = encoded(&x, cols, Int8::encode);
            let mut got = vec![0.0; x.len()];
            matrix.decode(0, &mut got);
            for (row, (got, x)) in got.chunks(cols).zip(x.chunks(cols)).enumerate() {
                let largest = x.iter().fold(0f32, |most, v| most.max(v.abs()));
                let step = f64::from(largest) / 127.0;
                for (i, (got, x)) in got.iter().zip(x).enumerate() {
                    // The plain reference, in f64; a tie may fall either way.
                    let code = if step > 0.0 {
                        f64::from(*x) / step
                    } else {
                        0.0
                    };
                    let want = code.round() * step;
                    let error = f64::from(got - x).abs();
                    assert!(
                        error <= 0.5 * step * (1.0 + 1e-6),
                        "row {row}, {i}: {got} {x}"
                    );
                    let tie = (error - 0.5 * step).abs() < 1e-5 * step;
                    assert!(
                        tie || (f64::from(*got) - want).abs() <= 1e-6 * f64::from(largest),
                        "row {row}, {i}: {got} {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn zeros_constants_and_the_smallest_numbers_are_kept() {
        let (cols, tiny) = (3, f32::from_bits(1));
        let x = [
            0.0, -0.0, 0.0, 0.7, 0.7, 0.7, -3.0, -3.0, 3.0, tiny, tiny, -tiny,
        ];
        let matrix = encoded(&x, cols, Int8::encode);
        assert_eq!(
            matrix.codes()[..9],
            [0, 0, 0, 127, 127, 127, -127, -127, 127]
        );
        let mut got = [9.0; 12];
        matrix.decode(0, &mut got);
        for (got, x) in got.iter().zip(x) {
            assert!((got - x).abs() <= 1e-7 * x.abs() + tiny, "{got} {x}");
        }
        assert_eq!(
            (matrix.rows(), matrix.cols(), matrix.bytes()),
            (4, 3, 12 + 16)
        );
        assert_eq!(matrix.scales()[0], 0.0);
    }
}

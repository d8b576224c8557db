//! Sixteen lanes at a time: rounding to bf16 and to 8-bit integers, and the transpose of a block.
//!
//! Inputs shorter than their place are continued by zeros. Subnormal numbers become zero, as the
//! processor's own rounding to bf16 makes them.
#![expect(
    unsafe_code,
    clippy::indexing_slicing,
    reason = "vector instructions take pointers; each load and store is of a slice or array at hand"
)]

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, __mmask16, _mm_storeu_si128, _mm512_abs_ps,
    _mm512_add_epi32, _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cvtepi32_epi8, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh,
    _mm512_cvtneps_pbh, _mm512_cvtps_epi32, _mm512_dpbusd_epi32, _mm512_loadu_si512,
    _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_reduce_add_epi32,
    _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_set1_epi8, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_f32x4,
    _mm512_slli_epi32, _mm512_storeu_si512, _mm512_unpackhi_pd, _mm512_unpackhi_ps,
    _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::mem::transmute;

use super::words::STEP;

/// The first 16 values, zeros where there are fewer.
#[target_feature(enable = "avx512f")]
#[inline]
fn load(from: &[f32]) -> __m512 {
    let count = from.len().min(STEP) as u32;
    let mask = ((1u32 << count) - 1) as __mmask16;
    // SAFETY: masked lanes are not read, and the others lie in the slice.
    unsafe { _mm512_maskz_loadu_ps(mask, from.as_ptr()) }
}

/// The values from `first` on.
fn from(row: &[f32], first: usize) -> &[f32] {
    row.get(first..).unwrap_or_default()
}

/// A row as lines of pairs.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn pairs_of_row(out: &mut [u32], row: &[f32]) {
    let (lines, _) = out.as_chunks_mut::<STEP>();
    for (step, line) in lines.iter_mut().enumerate() {
        *line = pairs(from(row, 2 * STEP * step));
    }
}

/// Sixteen rows as pairs, transposed, into lines `pitch` words apart.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn pairs_of_columns(out: &mut [u32], pitch: usize, rows: &[&[f32]; STEP]) {
    for (step, out) in out.chunks_mut(STEP * pitch).enumerate() {
        let mut lines = [[0u32; STEP]; STEP];
        for (line, row) in lines.iter_mut().zip(rows) {
            *line = pairs(from(row, 2 * STEP * step));
        }
        let turned = transposed(&lines);
        for (to, line) in out.chunks_mut(pitch).zip(&turned) {
            to[..STEP].copy_from_slice(line);
        }
    }
}

/// Two rows zipped into lines of `width` words, which lie `pitch` words apart.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn zip_rows(out: &mut [u32], pitch: usize, width: usize, low: &[f32], high: &[f32]) {
    for (panel, out) in out.chunks_mut(pitch).enumerate() {
        let (halves, _) = out
            .get_mut(..width)
            .unwrap_or_default()
            .as_chunks_mut::<STEP>();
        for (half, to) in halves.iter_mut().enumerate() {
            let first = panel * width + half * STEP;
            *to = zipped(from(low, first), from(high, first));
        }
    }
}

/// The first 32 values as 16 pairs of bf16.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn pairs(row: &[f32]) -> [u32; STEP] {
    let (low, high) = (load(row), load(from(row, STEP)));
    // SAFETY: both are 64 plain bytes.
    unsafe { transmute::<__m512bh, [u32; STEP]>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Sixteen pairs of bf16, the first of each from `low` and the second from `high`.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn zipped(low: &[f32], high: &[f32]) -> [u32; STEP] {
    let wide = |x: &[f32]| {
        let halves = _mm512_cvtneps_pbh(load(x));
        // SAFETY: both are 32 plain bytes.
        _mm512_cvtepu16_epi32(unsafe { transmute::<__m256bh, __m256i>(halves) })
    };
    words(_mm512_or_si512(
        wide(low),
        _mm512_slli_epi32::<16>(wide(high)),
    ))
}

/// What the largest magnitude of a row must be divided by to become 127; not finite if the row is not.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
pub(super) fn scale(row: &[f32]) -> f32 {
    let (mut most, mut poison) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    for first in (0..row.len()).step_by(STEP) {
        let x = load(from(row, first));
        most = _mm512_max_ps(most, _mm512_abs_ps(x));
        // 0 unless something is not finite.
        poison = _mm512_add_ps(poison, _mm512_mul_ps(x, _mm512_setzero_ps()));
    }
    _mm512_reduce_max_ps(most) / 127.0 + _mm512_reduce_add_ps(poison)
}

/// A row as lines of quads: see [`bytes`].
#[target_feature(enable = "avx512f")]
pub(super) fn bytes_of_row(out: &mut [u32], row: &[f32], inverse: f32, bias: i32) {
    let (lines, _) = out.as_chunks_mut::<STEP>();
    for (step, line) in lines.iter_mut().enumerate() {
        *line = bytes(from(row, 4 * STEP * step), inverse, bias);
    }
}

/// Sixteen rows of `words` words, transposed, into lines `pitch` words apart.
#[target_feature(enable = "avx512f")]
pub(super) fn lines_of_columns(out: &mut [u32], pitch: usize, rows: &[u32], words: usize) {
    for (step, out) in out.chunks_mut(STEP * pitch).enumerate() {
        let mut lines = [[0u32; STEP]; STEP];
        for (line, row) in lines.iter_mut().zip(rows.chunks_exact(words)) {
            line.copy_from_slice(&row[step * STEP..][..STEP]);
        }
        let turned = transposed(&lines);
        for (to, line) in out.chunks_mut(pitch).zip(&turned) {
            to[..STEP].copy_from_slice(line);
        }
    }
}

/// The first 64 values times `inverse`, rounded (ties to even) and raised by `bias`, as 16 quads.
#[target_feature(enable = "avx512f")]
#[inline]
fn bytes(row: &[f32], inverse: f32, bias: i32) -> [u32; STEP] {
    let mut out = [0u32; STEP];
    for (part, out) in out.chunks_exact_mut(4).enumerate() {
        let scaled = _mm512_mul_ps(load(from(row, part * STEP)), _mm512_set1_ps(inverse));
        let levels = _mm512_add_epi32(_mm512_cvtps_epi32(scaled), _mm512_set1_epi32(bias));
        // SAFETY: four words are 16 bytes.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(levels)) };
    }
    out
}

/// The sum of the signed bytes of whole lines.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
pub(super) fn bytes_sum(words: &[u32]) -> i32 {
    let (lines, _) = words.as_chunks::<STEP>();
    let ones = _mm512_set1_epi8(1);
    let mut sum = _mm512_setzero_si512();
    for line in lines {
        sum = _mm512_dpbusd_epi32(sum, ones, vector(line));
    }
    _mm512_reduce_add_epi32(sum)
}

/// A block of 16 lines, transposed.
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed(lines: &[[u32; STEP]; STEP]) -> [[u32; STEP]; STEP] {
    let r: [__m512; STEP] = std::array::from_fn(|i| _mm512_castsi512_ps(vector(&lines[i])));
    let (mut t, mut u, mut v) = (
        [_mm512_setzero_ps(); STEP],
        [_mm512_setzero_ps(); STEP],
        [_mm512_setzero_ps(); STEP],
    );
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for i in 0..4 {
        let pd = |j: usize| _mm512_castps_pd(t[4 * i + j]);
        u[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(0), pd(2)));
        u[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(0), pd(2)));
        u[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(1), pd(3)));
        u[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(1), pd(3)));
    }
    for i in 0..4 {
        v[i] = _mm512_shuffle_f32x4::<0x88>(u[i], u[i + 4]);
        v[i + 4] = _mm512_shuffle_f32x4::<0xdd>(u[i], u[i + 4]);
        v[i + 8] = _mm512_shuffle_f32x4::<0x88>(u[i + 8], u[i + 12]);
        v[i + 12] = _mm512_shuffle_f32x4::<0xdd>(u[i + 8], u[i + 12]);
    }
    let mut out = [[0u32; STEP]; STEP];
    for i in 0..8 {
        let (even, odd) = (
            _mm512_shuffle_f32x4::<0x88>(v[i], v[i + 8]),
            _mm512_shuffle_f32x4::<0xdd>(v[i], v[i + 8]),
        );
        out[i] = words(_mm512_castps_si512(even));
        out[i + 8] = words(_mm512_castps_si512(odd));
    }
    out
}

#[target_feature(enable = "avx512f")]
#[inline]
fn vector(line: &[u32; STEP]) -> __m512i {
    // SAFETY: a line is 64 bytes.
    unsafe { _mm512_loadu_si512(line.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn words(vector: __m512i) -> [u32; STEP] {
    let mut line = [0u32; STEP];
    // SAFETY: a line is 64 bytes.
    unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), vector) };
    line
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::kernel::Unit;

    #[test]
    fn a_block_is_transposed() {
        if !Unit::Avx512Dot.is_present() {
            return;
        }
        let block = std::array::from_fn(|i| std::array::from_fn(|j| (i * 100 + j) as u32));
        // SAFETY: asked above.
        let turned = unsafe { transposed(&block) };
        for (i, row) in turned.iter().enumerate() {
            for (j, value) in row.iter().enumerate() {
                assert_eq!(*value, (j * 100 + i) as u32);
            }
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_even_and_keeps_what_is_not_finite() {
        if !Unit::Avx512Dot.is_present() {
            return;
        }
        let values = [
            0.0,
            -0.0,
            1.0,
            1.003_906_3,
            1.011_718_8,
            -3.3e38,
            f32::INFINITY,
            f32::NEG_INFINITY,
        ];
        for x in values {
            let want = u32::from(bf16::from_f32(x).to_bits());
            // SAFETY: asked above.
            let (pair, zip) = unsafe { (pairs(&[0.0, x]), zipped(&[x], &[])) };
            assert_eq!((pair[0] >> 16, zip[0], pair[1]), (want, want, 0), "{x}");
        }
        for bits in [0x7f80_0001, 0x7fff_ffff, 0xffff_ffff_u32] {
            // SAFETY: asked above.
            let pair = unsafe { pairs(&[f32::from_bits(bits)]) };
            assert!(bf16::from_bits(pair[0] as u16).is_nan());
        }
    }

    #[test]
    fn what_is_not_finite_poisons_the_scale_of_its_row() {
        if !Unit::Avx512Dot.is_present() {
            return;
        }
        // SAFETY: asked above.
        let scale = |row: &[f32]| unsafe { scale(row) };
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [3, 20] {
                let mut row = [1.0; 21];
                row[place] = x;
                assert!(!scale(&row).is_finite());
            }
        }
        assert_eq!(scale(&[0.0; 3]), 0.0);
        assert_eq!(scale(&[-2.0, 1.0]), 2.0 / 127.0);
    }

    #[test]
    fn integers_are_rounded_raised_and_summed() {
        if !Unit::Avx512Dot.is_present() {
            return;
        }
        // SAFETY: asked above.
        let (own, raised) = unsafe {
            (
                bytes(&[1.5, -2.5, 127.0], 1.0, 0),
                bytes(&[-127.0], 1.0, 128),
            )
        };
        assert_eq!(own[0].to_le_bytes(), [2, 254, 127, 0]);
        assert_eq!(raised[0].to_le_bytes(), [1, 128, 128, 128]);
        // SAFETY: as above.
        assert_eq!(unsafe { bytes_sum(&own) }, 127, "2 − 2 + 127");
    }
}

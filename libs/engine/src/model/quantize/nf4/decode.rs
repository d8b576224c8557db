//! Codes to `f32`: a value is its code's table entry times its block's magnitude.
//!
//! The sixteen products of a block are computed first, in one multiplication of vectors, and every
//! value is then picked, by a permutation where the machine has one; so both ways give the same bits.
#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "vector loads and stores, whose bounds the slices' types state"
    )
)]

use super::codebook::NF4;
use super::{BLOCK, RUN};

/// Decodes one row; `codes` are all of its runs.
#[inline]
pub(super) fn row(out: &mut [f32], codes: &[u8], magnitude: impl Fn(usize) -> f32) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the instructions are there.
        unsafe { row_avx512(out, codes, magnitude) };
        return;
    }
    row_portable(out, codes, magnitude);
}

/// One value after another.
pub(super) fn row_portable(out: &mut [f32], codes: &[u8], magnitude: impl Fn(usize) -> f32) {
    let blocks = out.chunks_mut(BLOCK).zip(codes.chunks(BLOCK / 2));
    for (block, (out, codes)) in blocks.enumerate() {
        let scaled = NF4.map(|value| value * magnitude(block));
        for (out, codes) in out.chunks_mut(RUN).zip(codes.chunks(RUN / 2)) {
            run(out, codes, &scaled);
        }
    }
}

/// A run, whole or cut short.
#[inline(always)]
fn run(out: &mut [f32], codes: &[u8], scaled: &[f32; 16]) {
    let halves = codes
        .iter()
        .map(|byte| byte & 15)
        .chain(codes.iter().map(|byte| byte >> 4));
    for (out, code) in out.iter_mut().zip(halves) {
        #[expect(clippy::indexing_slicing, reason = "a code is below 16")]
        let value = scaled[usize::from(code)];
        *out = value;
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn row_avx512(out: &mut [f32], codes: &[u8], magnitude: impl Fn(usize) -> f32) {
    use std::arch::x86_64::{
        _mm_loadu_si128, _mm512_cvtepu8_epi32, _mm512_loadu_ps, _mm512_mul_ps,
        _mm512_permutexvar_ps, _mm512_set1_ps, _mm512_srli_epi32, _mm512_storeu_ps,
    };
    // SAFETY: sixteen values are read of sixteen.
    let table = unsafe { _mm512_loadu_ps(NF4.as_ptr()) };
    let blocks = out.chunks_mut(BLOCK).zip(codes.chunks(BLOCK / 2));
    for (block, (out, codes)) in blocks.enumerate() {
        let scaled = _mm512_mul_ps(table, _mm512_set1_ps(magnitude(block)));
        let (runs, rest) = out.as_chunks_mut::<RUN>();
        let (bytes, _) = codes.as_chunks::<{ RUN / 2 }>();
        for (out, bytes) in runs.iter_mut().zip(bytes) {
            // SAFETY: sixteen bytes are read of sixteen, and twice sixteen values written to 32.
            unsafe {
                let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
                // The permutation reads the lowest four bits of each index.
                let low = _mm512_permutexvar_ps(bytes, scaled);
                let high = _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(bytes), scaled);
                _mm512_storeu_ps(out.as_mut_ptr(), low);
                _mm512_storeu_ps(out.as_mut_ptr().add(RUN / 2), high);
            }
        }
        if let Some(bytes) = bytes.get(runs.len()) {
            let mut all = [0.0; 16];
            // SAFETY: sixteen values are written to sixteen.
            unsafe { _mm512_storeu_ps(all.as_mut_ptr(), scaled) };
            run(rest, bytes, &all);
        }
    }
}

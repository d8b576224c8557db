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
    if let (Ok(out), Ok(codes)) = (<&mut [f32; RUN]>::try_from(&mut *out), codes.try_into()) {
        whole_run(out, codes, scaled);
        return;
    }
    let mut all = [0.0; RUN];
    if let Ok(codes) = codes.try_into() {
        whole_run(&mut all, codes, scaled);
    }
    for (out, value) in out.iter_mut().zip(all) {
        *out = value;
    }
}

#[inline(always)]
fn whole_run(out: &mut [f32; RUN], codes: &[u8; RUN / 2], scaled: &[f32; 16]) {
    let (low, high) = out.split_at_mut(RUN / 2);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(codes) {
        #[expect(clippy::indexing_slicing, reason = "half a byte is below 16")]
        let values = (
            scaled[usize::from(byte & 15)],
            scaled[usize::from(byte >> 4)],
        );
        (*low, *high) = values;
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

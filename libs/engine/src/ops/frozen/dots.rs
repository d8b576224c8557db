//! One block of a product with the dot-product instructions of AVX-512 (BF16 and VNNI).
#![expect(
    unsafe_code,
    reason = "vector instructions take pointers; every function states what they must point to"
)]

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_dpbf16_ps,
    _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_storeu_si512,
};

use super::words::{PANEL, ROWS, Word};

/// Rows whose results stay in registers together: 8 × 2 sums, and two lines of the panel.
const TALL: usize = 8;

/// `c[ROWS, PANEL] = left[ROWS, words] · panel[words, PANEL]`, as [`super::tiles::Tiles::block`].
///
/// # Safety
/// The processor has AVX-512 BF16 and VNNI; the pointers are as that function asks.
pub(super) unsafe fn block(
    word: Word,
    (c, stride): (*mut u32, usize),
    (left, pitch): (*const u32, usize),
    panel: *const u32,
    words: usize,
) {
    for first in (0..ROWS).step_by(TALL) {
        // SAFETY: the caller's, for a part of the rows.
        unsafe {
            let (c, left) = (c.add(first * stride), (left.add(first * pitch), pitch));
            match word {
                Word::Pair => tall::<PAIRS>((c, stride), left, panel, words),
                Word::Quad => tall::<QUADS>((c, stride), left, panel, words),
            }
        }
    }
}

/// Which words [`tall`] multiplies.
const PAIRS: bool = false;
const QUADS: bool = true;

/// # Safety
/// As [`block`], for [`TALL`] rows.
#[target_feature(enable = "avx512f,avx512bf16,avx512vnni")]
unsafe fn tall<const WORDS: bool>(
    (c, stride): (*mut u32, usize),
    (left, pitch): (*const u32, usize),
    panel: *const u32,
    words: usize,
) {
    let mut sums = [[_mm512_setzero_si512(); 2]; TALL];
    for k in 0..words {
        // SAFETY: line `k` of the panel and word `k` of each row; the caller vouches for them.
        unsafe {
            let line = panel.add(k * PANEL);
            let low: __m512i = _mm512_loadu_si512(line.cast());
            let high: __m512i = _mm512_loadu_si512(line.add(16).cast());
            for (i, [a, b]) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_epi32(*left.add(i * pitch + k) as i32);
                *a = dot::<WORDS>(*a, x, low);
                *b = dot::<WORDS>(*b, x, high);
            }
        }
    }
    for (i, [a, b]) in sums.into_iter().enumerate() {
        // SAFETY: row `i` of `c`.
        unsafe {
            _mm512_storeu_si512(c.add(i * stride).cast(), a);
            _mm512_storeu_si512(c.add(i * stride + 16).cast(), b);
        }
    }
}

/// `sums + x·y`, word by word; sums of pairs are `f32`, of quads `i32`.
#[target_feature(enable = "avx512f,avx512bf16,avx512vnni")]
#[inline]
fn dot<const WORDS: bool>(sums: __m512i, x: __m512i, y: __m512i) -> __m512i {
    if WORDS == QUADS {
        return _mm512_dpbusd_epi32(sums, x, y);
    }
    let sums = _mm512_castsi512_ps(sums);
    _mm512_castps_si512(_mm512_dpbf16_ps(sums, halves(x), halves(y)))
}

/// The same 64 bytes as bf16.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn halves(words: __m512i) -> __m512bh {
    // SAFETY: both are 64 plain bytes.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(words) }
}

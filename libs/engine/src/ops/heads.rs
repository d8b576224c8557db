//! Rotary positions, and the change between token-major and head-major layout.
//!
//! `[tokens, (heads + 2·kv_heads)·size]` is cut into queries, keys and values, each
//! `[heads, tokens, size]`, rotating queries and keys on the way (Hugging Face's convention: the
//! two halves of a head form the pairs). Head-major, so that every task of attention writes a
//! slice of its own.
#![expect(
    clippy::indexing_slicing,
    reason = "shapes are in each function's documentation and asserted at entry"
)]

use rayon::prelude::*;

use super::simd::{ROWS, wide};

/// How many heads, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head, even.
    pub size: usize,
}

impl Layout {
    /// Width of queries, keys and values together.
    #[must_use]
    pub const fn width(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.size
    }

    /// Query heads that share one key head.
    #[must_use]
    pub const fn group(self) -> usize {
        self.heads / self.kv_heads
    }
}

/// The rotation angles of every position up to a limit.
#[derive(Debug, Clone)]
pub struct Rope {
    /// `[positions, size/2]`
    cos: Vec<f32>,
    /// `[positions, size/2]`
    sin: Vec<f32>,
    half: usize,
}

impl Rope {
    /// Angles `position · theta^(−2j/size)`, computed as transformers does, in `f32`; each frequency is divided
    /// by its factor, if there are any.
    #[must_use]
    pub fn new(positions: usize, size: usize, theta: f32, factors: &[f32]) -> Self {
        let half = size / 2;
        let factor = |j: usize| factors.get(j).copied().unwrap_or(1.0);
        let frequency = |j: usize| 1.0 / theta.powf((2 * j) as f32 / size as f32) / factor(j);
        let angles = (0..positions).flat_map(|p| (0..half).map(move |j| p as f32 * frequency(j)));
        let (sin, cos) = angles.map(f32::sin_cos).unzip();
        Self { cos, sin, half }
    }

    /// Angles of nothing: positions that are told in another way.
    #[must_use]
    pub fn still(positions: usize, size: usize) -> Self {
        let (half, len) = (size / 2, positions * (size / 2));
        Self {
            cos: vec![1.0; len],
            sin: vec![0.0; len],
            half,
        }
    }

    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

/// Queries, keys and values, each `[heads, tokens, size]`.
#[derive(Debug)]
pub struct Cut<'a> {
    /// `[heads, tokens, size]`
    pub q: &'a mut [f32],
    /// `[kv_heads, tokens, size]`
    pub k: &'a mut [f32],
    /// `[kv_heads, tokens, size]`
    pub v: &'a mut [f32],
}

/// Cuts `qkv` `[tokens, layout.width()]` into heads; `positions` `[tokens]` choose the angles.
///
/// # Panics
/// The slices' lengths do not match, or a position lies beyond the rope's.
pub fn cut(into: Cut<'_>, qkv: &[f32], layout: Layout, rope: &Rope, positions: &[usize]) {
    let Layout {
        heads,
        kv_heads,
        size,
    } = layout;
    let (tokens, width) = (positions.len(), layout.width());
    assert!(
        qkv.len() == tokens * width && into.q.len() == heads * tokens * size,
        "shapes must match"
    );
    assert!(
        into.k.len() == kv_heads * tokens * size && into.v.len() == into.k.len(),
        "shapes must match"
    );
    let gather = |out: &mut [f32], first: usize, rotate: bool| {
        out.par_chunks_mut(tokens * size)
            .enumerate()
            .for_each(|(head, out)| {
                wide!(|| {
                    let start = (first + head) * size;
                    for ((token, out), position) in
                        out.chunks_exact_mut(size).enumerate().zip(positions)
                    {
                        let x = &qkv[token * width + start..][..size];
                        if rotate {
                            turn(out, x, rope.at(*position), 1.0);
                        } else {
                            out.copy_from_slice(x);
                        }
                    }
                });
            });
    };
    gather(into.q, 0, true);
    gather(into.k, heads, true);
    gather(into.v, heads + kv_heads, false);
}

/// The backward of [`cut`]: the gradient of `qkv` `[tokens, layout.width()]` from those of the heads.
///
/// # Panics
/// The slices' lengths do not match.
pub fn cut_backward(
    d_qkv: &mut [f32],
    from: &Cut<'_>,
    layout: Layout,
    rope: &Rope,
    positions: &[usize],
) {
    let Layout {
        heads,
        kv_heads,
        size,
    } = layout;
    let (tokens, width) = (positions.len(), layout.width());
    assert!(
        d_qkv.len() == tokens * width && from.q.len() == heads * tokens * size,
        "shapes must match"
    );
    assert!(
        from.k.len() == kv_heads * tokens * size && from.v.len() == from.k.len(),
        "shapes must match"
    );
    let (q, k, v) = (&*from.q, &*from.k, &*from.v);
    d_qkv
        .par_chunks_mut(ROWS * width)
        .enumerate()
        .for_each(|(task, rows)| {
            wide!(|| {
                for (row, out) in rows.chunks_exact_mut(width).enumerate() {
                    let token = task * ROWS + row;
                    let angles = rope.at(positions[token]);
                    for (head, out) in out.chunks_exact_mut(size).enumerate() {
                        let row =
                            |data: &[f32], head: usize| (head * tokens + token) * size..data.len();
                        if head < heads {
                            turn(out, &q[row(q, head)][..size], angles, -1.0);
                        } else if head < heads + kv_heads {
                            turn(out, &k[row(k, head - heads)][..size], angles, -1.0);
                        } else {
                            out.copy_from_slice(&v[row(v, head - heads - kv_heads)][..size]);
                        }
                    }
                }
            });
        });
}

/// `[heads, tokens, size]` → `[tokens, heads·size]`.
///
/// # Panics
/// The slices' lengths do not match.
pub fn merge(out: &mut [f32], by_head: &[f32], heads: usize, size: usize) {
    let width = heads * size;
    assert!(
        out.len() == by_head.len() && out.len().is_multiple_of(width),
        "shapes must match"
    );
    let tokens = out.len() / width;
    out.par_chunks_mut(ROWS * width)
        .enumerate()
        .for_each(|(task, rows)| {
            for (row, out) in rows.chunks_exact_mut(width).enumerate() {
                for (head, out) in out.chunks_exact_mut(size).enumerate() {
                    out.copy_from_slice(
                        &by_head[(head * tokens + task * ROWS + row) * size..][..size],
                    );
                }
            }
        });
}

/// Rotates `x` `[size]` by the angles times `direction` (the inverse of a rotation is its transpose).
#[inline(always)]
fn turn(out: &mut [f32], x: &[f32], (cos, sin): (&[f32], &[f32]), direction: f32) {
    let half = cos.len();
    let (low, high) = x.split_at(half);
    let (out_low, out_high) = out.split_at_mut(half);
    for j in 0..half {
        let s = sin[j] * direction;
        out_low[j] = low[j] * cos[j] - high[j] * s;
        out_high[j] = high[j] * cos[j] + low[j] * s;
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::*;
    use crate::ops::check::{close, differences, dot, plain, random};

    #[test]
    fn cutting_and_its_gradient_equal_the_plain_composition_and_differences() {
        for (heads, kv_heads, size, tokens) in
            [(1, 1, 2, 1), (2, 1, 128, 1), (3, 1, 64, 5), (4, 2, 80, 9)]
        {
            let layout = Layout {
                heads,
                kv_heads,
                size,
            };
            let rope = Rope::new(32, size, 10_000.0, &[]);
            let positions: Vec<usize> = (0..tokens).map(|t| (t * 5) % 32).collect();
            let x = random(tokens * layout.width(), 1);
            let dy = random(x.len(), 2);
            let table = |values: &[f32]| {
                let rows: Vec<f32> = positions
                    .iter()
                    .flat_map(|p| values[p * size / 2..][..size / 2].to_vec())
                    .collect();
                Tensor::from_vec(rows, (1, tokens, size / 2), &candle_core::Device::Cpu)
            };
            let (want, want_dx) = plain(&x, &[tokens, heads + 2 * kv_heads, size], &dy, |x| {
                let x = x.transpose(0, 1)?;
                let rotated = x.narrow(0, 0, heads + kv_heads)?;
                let (low, high) = (
                    rotated.narrow(2, 0, size / 2)?,
                    rotated.narrow(2, size / 2, size / 2)?,
                );
                let (cos, sin) = (table(&rope.cos)?, table(&rope.sin)?);
                let new_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
                let new_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
                let v = x.narrow(0, heads + kv_heads, kv_heads)?.contiguous()?;
                Tensor::cat(&[Tensor::cat(&[new_low, new_high], 2)?, v], 0)
            });
            let mut all = vec![0.0; x.len()];
            cut(
                split(&mut all, layout, tokens),
                &x,
                layout,
                &rope,
                &positions,
            );
            close(&all, &want, 1e-6);
            let (mut d_heads, mut dx) = (dy.clone(), vec![9.0; x.len()]);
            cut_backward(
                &mut dx,
                &split(&mut d_heads, layout, tokens),
                layout,
                &rope,
                &positions,
            );
            close(&dx, &want_dx, 1e-6);
            differences(&x, &dx, 2e-3, |x| {
                let mut all = vec![0.0; x.len()];
                cut(
                    split(&mut all, layout, tokens),
                    x,
                    layout,
                    &rope,
                    &positions,
                );
                dot(&all, &dy)
            });
        }
    }

    fn split(data: &mut [f32], layout: Layout, tokens: usize) -> Cut<'_> {
        let (q, rest) = data.split_at_mut(layout.heads * tokens * layout.size);
        let (k, v) = rest.split_at_mut(layout.kv_heads * tokens * layout.size);
        Cut { q, k, v }
    }

    #[test]
    fn merging_moves_every_head_beside_the_others() {
        let by_head = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let mut out = [0.0; 8];
        merge(&mut out, &by_head, 2, 2);
        assert_eq!(out, [1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0]);
    }
}

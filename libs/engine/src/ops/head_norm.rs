//! Root-mean-square normalization of each head of the queries and keys, before they are rotated (Qwen3).
//!
//! `joined` `[tokens, layout.width()]` holds queries, keys and values of a token side by side; values stay as they are.
#![expect(
    clippy::indexing_slicing,
    reason = "shapes are in each function's documentation and asserted at entry"
)]

use rayon::prelude::*;

use super::heads::Layout;
use super::simd::{ROWS, sum, wide};

/// The weights, `[size]` each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norms<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) epsilon: f32,
}

/// Width of queries and keys together.
pub(crate) const fn width(layout: Layout) -> usize {
    (layout.heads + layout.kv_heads) * layout.size
}

/// Normalizes in place; `raw` `[tokens, width(layout)]` receives queries and keys as they were.
///
/// # Panics
/// The slices' lengths do not match.
pub(crate) fn forward(joined: &mut [f32], raw: &mut [f32], layout: Layout, norms: Norms<'_>) {
    let (whole, part) = (layout.width(), width(layout));
    check(joined.len(), raw.len(), layout, norms);
    let tasks = joined
        .par_chunks_mut(ROWS * whole)
        .zip(raw.par_chunks_mut(ROWS * part));
    tasks.for_each(|(joined, raw)| {
        wide!(|| {
            let rows = joined
                .chunks_exact_mut(whole)
                .zip(raw.chunks_exact_mut(part));
            for (joined, raw) in rows {
                raw.copy_from_slice(&joined[..part]);
                let heads = joined.chunks_exact_mut(layout.size);
                for (head, (y, x)) in heads.zip(raw.chunks_exact(layout.size)).enumerate() {
                    let weight = norms.of(head, layout);
                    let inverse = inverse(x, norms.epsilon);
                    for i in 0..weight.len() {
                        y[i] = x[i] * inverse * weight[i];
                    }
                }
            }
        });
    });
}

/// The gradient of what was normalized, in place of that of what it became.
///
/// # Panics
/// The slices' lengths do not match.
pub(crate) fn backward(d_joined: &mut [f32], raw: &[f32], layout: Layout, norms: Norms<'_>) {
    let (whole, part) = (layout.width(), width(layout));
    check(d_joined.len(), raw.len(), layout, norms);
    let tasks = d_joined
        .par_chunks_mut(ROWS * whole)
        .zip(raw.par_chunks(ROWS * part));
    tasks.for_each(|(d_joined, raw)| {
        wide!(|| {
            let rows = d_joined.chunks_exact_mut(whole).zip(raw.chunks_exact(part));
            for (d_joined, raw) in rows {
                let heads = d_joined.chunks_exact_mut(layout.size);
                for (head, (d, x)) in heads.zip(raw.chunks_exact(layout.size)).enumerate() {
                    let weight = norms.of(head, layout);
                    let (width, inverse) = (weight.len(), inverse(x, norms.epsilon));
                    let dot = sum(width, |i| d[i] * weight[i] * x[i]);
                    let shared = dot * inverse * inverse * inverse / width as f32;
                    for i in 0..width {
                        d[i] = inverse * weight[i] * d[i] - x[i] * shared;
                    }
                }
            }
        });
    });
}

impl Norms<'_> {
    /// The weights of a head, those of the queries first.
    #[inline(always)]
    fn of(&self, head: usize, layout: Layout) -> &[f32] {
        if head < layout.heads { self.q } else { self.k }
    }
}

fn check(joined: usize, raw: usize, layout: Layout, norms: Norms<'_>) {
    let tokens = joined / layout.width();
    assert!(
        joined == tokens * layout.width() && raw == tokens * width(layout),
        "shapes must match"
    );
    assert!(
        norms.q.len() == layout.size && norms.k.len() == layout.size,
        "shapes must match"
    );
}

#[inline(always)]
fn inverse(x: &[f32], epsilon: f32) -> f32 {
    let squares = sum(x.len(), |i| x[i] * x[i]);
    1.0 / (squares / x.len() as f32 + epsilon).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{close, differences, dot, random};
    use crate::ops::rms_norm;

    #[test]
    fn heads_are_normalized_one_by_one_and_values_are_left_alone() {
        let layout = Layout {
            heads: 3,
            kv_heads: 1,
            size: 10,
        };
        let (q, k) = (random(10, 1), random(10, 2));
        let norms = Norms {
            q: &q,
            k: &k,
            epsilon: 1e-5,
        };
        let tokens = 5;
        let x = random(tokens * layout.width(), 3);
        let run = |x: &[f32]| {
            let (mut y, mut raw) = (x.to_vec(), vec![9.0; tokens * width(layout)]);
            forward(&mut y, &mut raw, layout, norms);
            (y, raw)
        };
        let (y, raw) = run(&x);
        for (y, x) in y.chunks(50).zip(x.chunks(50)) {
            for head in 0..5 {
                let (y, x) = (&y[head * 10..][..10], &x[head * 10..][..10]);
                let mut want = x.to_vec();
                if head < 4 {
                    let weight = if head < 3 { &q } else { &k };
                    rms_norm::forward(&mut want, x, weight, 1e-5);
                }
                close(y, &want, 1e-6);
            }
        }
        let dy = random(y.len(), 4);
        let mut dx = dy.clone();
        backward(&mut dx, &raw, layout, norms);
        differences(&x, &dx, 2e-3, |x| dot(&run(x).0, &dy));
    }
}

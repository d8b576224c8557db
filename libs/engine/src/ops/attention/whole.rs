//! Attention of encoders: every token sees the whole of its row, and nothing of the others'. Rows lie one after another, so
//! there is no padding that would have to be hidden.

use rayon::prelude::*;

use super::{Piece, Saved, TILE, head, pieces, scale, score, softmax};
use crate::ops::heads::Layout;
use crate::ops::product::{Into, View, ViewMut, multiply_here};
use crate::ops::simd::{exp, sum, wide};

/// `out` `[heads, tokens, size]` and `normalizers` `[heads, tokens]` from queries, keys and values, each
/// `[heads, tokens, size]`: there are as many of each.
///
/// `bounds` holds where each row of the batch begins, and after them the number of tokens.
///
/// # Panics
/// The slices' lengths do not match.
pub fn forward(
    out: &mut [f32],
    normalizers: &mut [f32],
    (q, k, v): (&[f32], &[f32], &[f32]),
    layout: Layout,
    bounds: &[usize],
) {
    let (heads, size) = (layout.heads, layout.size);
    let tokens = bounds.last().copied().unwrap_or(0);
    let fits = [q, k, v, out]
        .iter()
        .all(|one| one.len() == heads * tokens * size);
    assert!(
        fits && layout.kv_heads == heads && normalizers.len() == heads * tokens,
        "shapes must match"
    );
    let outs = pieces(out, heads, bounds, size);
    let norms = pieces(normalizers, heads, bounds, 1);
    outs.into_par_iter().zip(norms).for_each(|(out, norm)| {
        let rows = bounds[out.row]..bounds[out.row + 1];
        let [q, k, v] = [q, k, v].map(|all| head(all, out.head, tokens, size, &rows));
        let n = rows.len();
        let mut scores = vec![0f32; TILE.min(n) * n];
        for first in (0..n).step_by(TILE) {
            let count = TILE.min(n - first);
            let tile = &mut scores[..count * n];
            score(
                tile,
                &q[first * size..][..count * size],
                size,
                k,
                n,
                scale(size),
            );
            wide!(|| {
                let queries = tile.chunks_exact_mut(n).zip(&mut norm.data[first..]);
                for (row, normalizer) in queries {
                    *normalizer = softmax(row);
                }
            });
            multiply_here(
                ViewMut::new(&mut out.data[first * size..], count, size),
                View::new(tile, count, n),
                View::new(v, n, size),
                1.0,
                Into::Overwrite,
            );
        }
    });
}

/// Gradients of queries, keys and values, head-major, from that of the output, token-major `[tokens, heads·size]`.
///
/// # Panics
/// The slices' lengths do not match.
pub fn backward(
    (dq, dk, dv): (&mut [f32], &mut [f32], &mut [f32]),
    d_out: &[f32],
    saved: Saved<'_>,
    layout: Layout,
    bounds: &[usize],
) {
    let (heads, size) = (layout.heads, layout.size);
    let tokens = bounds.last().copied().unwrap_or(0);
    let all = [saved.q, saved.k, saved.v, saved.out, d_out, dq, dk, dv];
    let fits = all.iter().all(|one| one.len() == heads * tokens * size);
    assert!(fits && layout.kv_heads == heads, "shapes must match");
    let [dqs, dks, dvs] = [dq, dk, dv].map(|all| pieces(all, heads, bounds, size));
    let tasks = dqs.into_par_iter().zip(dks).zip(dvs).with_max_len(1);
    tasks.for_each(|((dq, dk), dv)| {
        let rows = bounds[dq.row]..bounds[dq.row + 1];
        let [q, k, v] =
            [saved.q, saved.k, saved.v].map(|all| head(all, dq.head, tokens, size, &rows));
        let corner = rows.start * heads * size + dq.head * size;
        let one = OneHead {
            q,
            k,
            v,
            out: saved.out.get(corner..).unwrap_or_default(),
            d_out: d_out.get(corner..).unwrap_or_default(),
            stride: heads * size,
            normalizers: head(saved.normalizers, dq.head, tokens, 1, &rows),
            size,
        };
        one.backward((dq, dk, dv));
    });
}

/// One head of one row: `q`, `k`, `v` `[n, size]`; `out` and `d_out` rows `stride` apart.
struct OneHead<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    d_out: &'a [f32],
    stride: usize,
    normalizers: &'a [f32],
    size: usize,
}

impl OneHead<'_> {
    /// Overwrites all three, `[n, size]`.
    fn backward(&self, (dq, dk, dv): (Piece<'_>, Piece<'_>, Piece<'_>)) {
        let (n, size) = (self.normalizers.len(), self.size);
        dk.data.fill(0.0);
        dv.data.fill(0.0);
        let mut scratch = vec![0f32; 2 * TILE.min(n) * n];
        let (p, ds) = scratch.split_at_mut(TILE.min(n) * n);
        let keys = View::new(self.k, n, size);
        for first in (0..n).step_by(TILE) {
            let count = TILE.min(n - first);
            let (p, ds) = (&mut p[..count * n], &mut ds[..count * n]);
            let q = &self.q[first * size..][..count * size];
            let d_out = View::strided(&self.d_out[first * self.stride..], count, size, self.stride);
            score(p, q, size, self.k, n, scale(size));
            multiply_here(
                ViewMut::new(ds, count, n),
                d_out,
                View::new(self.v, n, size).t(),
                1.0,
                Into::Overwrite,
            );
            wide!(|| self.gradients(p, ds, first));
            let (p, ds) = (View::new(p, count, n), View::new(ds, count, n));
            let d_values = ViewMut::new(dv.data, n, size);
            multiply_here(d_values, p.t(), d_out, 1.0, Into::Add);
            let d_queries = ViewMut::new(&mut dq.data[first * size..], count, size);
            multiply_here(d_queries, ds, keys, 1.0, Into::Overwrite);
            let d_keys = ViewMut::new(dk.data, n, size);
            multiply_here(d_keys, ds.t(), View::new(q, count, size), 1.0, Into::Add);
        }
    }

    /// Turns scores into probabilities, and their gradients into those of the unscaled products.
    #[inline(always)]
    fn gradients(&self, p: &mut [f32], ds: &mut [f32], first: usize) {
        let (n, scale) = (self.normalizers.len(), scale(self.size));
        let rows = p.chunks_exact_mut(n).zip(ds.chunks_exact_mut(n));
        for (i, (p, ds)) in rows.enumerate() {
            let query = first + i;
            let [out, d_out] =
                [self.out, self.d_out].map(|all| &all[query * self.stride..][..self.size]);
            let delta = sum(self.size, |j| out[j] * d_out[j]);
            let normalizer = self.normalizers[query];
            for (p, ds) in p.iter_mut().zip(ds.iter_mut()) {
                *p = exp(*p - normalizer);
                *ds = *p * (*ds - delta) * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Result, Tensor};

    use super::*;
    use crate::ops::check::{close, differences, dot, plain, random};
    use crate::ops::heads::merge;

    const SHAPES: [(usize, usize, &[usize]); 4] = [
        (1, 2, &[0, 1]),
        (3, 64, &[0, 1, 6]),
        (2, 16, &[0, 65, 70, 200]),
        (4, 32, &[0, 7]),
    ];

    /// `x` is q, k and v one after another, head-major.
    fn composition(x: &Tensor, layout: Layout, bounds: &[usize]) -> Result<Tensor> {
        let (tokens, size) = (bounds[bounds.len() - 1], layout.size);
        let x = x.reshape((3 * layout.heads, tokens, size))?;
        let mut rows = Vec::new();
        for bound in bounds.windows(2) {
            let mut heads = Vec::new();
            for head in 0..layout.heads {
                let n = bound[1] - bound[0];
                let pick = |index: usize| x.get(index)?.narrow(0, bound[0], n)?.contiguous();
                let q = pick(head)?;
                let (k, v) = (pick(layout.heads + head)?, pick(2 * layout.heads + head)?);
                let scores = (q.matmul(&k.t()?)? * (1.0 / (size as f64).sqrt()))?;
                let most = scores.max_keepdim(1)?.detach();
                let scores = scores.broadcast_sub(&most)?.exp()?;
                let p = scores.broadcast_div(&scores.sum_keepdim(1)?)?;
                heads.push(p.matmul(&v)?);
            }
            rows.push(Tensor::cat(&heads, 1)?);
        }
        Tensor::cat(&rows, 0)
    }

    fn run(x: &[f32], layout: Layout, bounds: &[usize]) -> (Vec<f32>, Vec<f32>) {
        let tokens = bounds[bounds.len() - 1];
        let part = layout.heads * tokens * layout.size;
        let (mut by_head, mut out) = (vec![9.0; part], vec![9.0; part]);
        let mut normalizers = vec![9.0; layout.heads * tokens];
        let parts = (&x[..part], &x[part..2 * part], &x[2 * part..]);
        forward(&mut by_head, &mut normalizers, parts, layout, bounds);
        merge(&mut out, &by_head, layout.heads, layout.size);
        (out, normalizers)
    }

    #[test]
    fn forward_and_backward_equal_the_plain_composition_and_differences() {
        for (heads, size, bounds) in SHAPES {
            let layout = Layout {
                heads,
                kv_heads: heads,
                size,
            };
            let tokens = bounds[bounds.len() - 1];
            let part = heads * tokens * size;
            let x: Vec<f32> = random(3 * part, 1).iter().map(|v| v * 2.0).collect();
            let dy = random(part, 2);
            let (want, want_dx) = plain(&x, &[x.len()], &dy, |x| composition(x, layout, bounds));
            let (out, normalizers) = run(&x, layout, bounds);
            let mut dx = vec![9.0; x.len()];
            let (dq, rest) = dx.split_at_mut(part);
            let (dk, dv) = rest.split_at_mut(part);
            let saved = Saved {
                q: &x[..part],
                k: &x[part..2 * part],
                v: &x[2 * part..],
                out: &out,
                normalizers: &normalizers,
            };
            backward((dq, dk, dv), &dy, saved, layout, bounds);
            close(&out, &want, 2e-6);
            close(&dx, &want_dx, 1e-5);
            if tokens < 10 {
                differences(&x, &dx, 1e-2, |x| dot(&run(x, layout, bounds).0, &dy));
            }
        }
    }

    #[test]
    fn a_row_alone_is_as_among_others() {
        let layout = Layout {
            heads: 1,
            kv_heads: 1,
            size: 2,
        };
        let x = random(3 * 10, 3);
        let alone: Vec<f32> = [&x[0..6], &x[10..16], &x[20..26]].concat();
        let among = run(&x, layout, &[0, 3, 5]).0;
        assert_eq!(run(&alone, layout, &[0, 3]).0, among[..6]);
    }
}

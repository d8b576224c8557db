//! Causal attention, row by row of a batch, with grouped key and value heads.
//!
//! Only the logarithm of each query's normalizer is kept for backward; probabilities are computed
//! again. Queries are taken in tiles, so memory grows with `tile · sequence`, not with its square.
//! One task is one (key head, row of the batch): it alone writes its gradients.
#![expect(
    clippy::indexing_slicing,
    reason = "shapes are in each function's documentation and asserted at entry"
)]

pub mod whole;

use rayon::prelude::*;

use super::heads::Layout;
use super::product::{Into, View, ViewMut, multiply_here};
use super::simd::{exp, max, sum, wide};

/// Queries that are scored together.
const TILE: usize = 64;

/// What a query sees of its row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sight {
    /// What products of queries and keys are multiplied by.
    pub scale: f32,
    /// How many tokens a query sees, itself included; none: everything before it.
    pub window: Option<usize>,
}

impl Sight {
    /// Everything before it, products divided by the root of a head's width.
    #[must_use]
    pub fn whole(size: usize) -> Self {
        Self {
            scale: scale(size),
            window: None,
        }
    }

    /// The first of the positions that a query sees.
    fn first(self, query: usize) -> usize {
        self.window
            .map_or(0, |window| (query + 1).saturating_sub(window))
    }
}

/// Values that one task holds besides its arguments, for a row of `sequence` tokens.
pub(crate) const fn scratch_len(sequence: usize, backward: bool) -> usize {
    let queries = if sequence < TILE { sequence } else { TILE };
    queries * sequence * if backward { 2 } else { 1 }
}

/// `out` `[heads, tokens, size]` and `normalizers` `[heads, tokens]` from queries
/// `[heads, tokens, size]`, keys and values `[kv_heads, tokens, size]`.
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
    sight: Sight,
) {
    let size = layout.size;
    let tokens = bounds.last().copied().unwrap_or(0);
    assert!(
        q.len() == layout.heads * tokens * size && out.len() == q.len(),
        "shapes must match"
    );
    assert!(
        k.len() == layout.kv_heads * tokens * size && v.len() == k.len(),
        "shapes must match"
    );
    assert!(
        normalizers.len() == layout.heads * tokens,
        "shapes must match"
    );
    let outs = pieces(out, layout.heads, bounds, size);
    let norms = pieces(normalizers, layout.heads, bounds, 1);
    outs.into_par_iter().zip(norms).for_each(|(out, norm)| {
        let rows = bounds[out.row]..bounds[out.row + 1];
        let own = head(q, out.head, tokens, size, &rows);
        let shared = out.head / layout.group();
        let (k, v) = (
            head(k, shared, tokens, size, &rows),
            head(v, shared, tokens, size, &rows),
        );
        attend(out.data, norm.data, own, (k, v), size, sight);
    });
}

/// One head of one sequence: queries `[n, size]` are the last `n` of the `m` positions of keys and
/// values `[m, size]`.
///
/// # Panics
/// The slices' lengths do not match, or there are more queries than keys.
pub fn attend(
    out: &mut [f32],
    normalizers: &mut [f32],
    q: &[f32],
    (k, v): (&[f32], &[f32]),
    size: usize,
    sight: Sight,
) {
    let (n, m) = (q.len() / size, k.len() / size);
    assert!(
        n <= m && v.len() == k.len() && out.len() == q.len() && normalizers.len() == n,
        "shapes must match"
    );
    let mut scores = vec![0f32; TILE.min(n) * m];
    for first in (0..n).step_by(TILE) {
        let count = TILE.min(n - first);
        // No query of the tile sees what lies before `from`.
        let (before, from) = (m - n + first, sight.first(m - n + first));
        let keys = before + count - from;
        let tile = &mut scores[..count * keys];
        let own = &q[first * size..][..count * size];
        score(tile, own, size, &k[from * size..], keys, sight.scale);
        wide!(|| {
            for (i, row) in tile.chunks_exact_mut(keys).enumerate() {
                let (seen, unseen) = row.split_at_mut(before + i + 1 - from);
                let (far, seen) = seen.split_at_mut(sight.first(before + i) - from);
                normalizers[first + i] = softmax(seen);
                far.fill(0.0);
                unseen.fill(0.0);
            }
        });
        let out = ViewMut::new(&mut out[first * size..], count, size);
        multiply_here(
            out,
            View::new(tile, count, keys),
            View::new(&v[from * size..], keys, size),
            1.0,
            Into::Overwrite,
        );
    }
}

/// What the forward computed and backward needs.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// Rotated queries `[heads, tokens, size]`.
    pub q: &'a [f32],
    /// Rotated keys `[kv_heads, tokens, size]`.
    pub k: &'a [f32],
    /// Values `[kv_heads, tokens, size]`.
    pub v: &'a [f32],
    /// The output, token-major `[tokens, heads·size]`.
    pub out: &'a [f32],
    /// `[heads, tokens]`
    pub normalizers: &'a [f32],
}

/// Gradients of queries, keys and values, head-major, from that of the output, token-major
/// `[tokens, heads·size]`.
///
/// # Panics
/// The slices' lengths do not match.
pub fn backward(
    (dq, dk, dv): (&mut [f32], &mut [f32], &mut [f32]),
    d_out: &[f32],
    saved: Saved<'_>,
    layout: Layout,
    bounds: &[usize],
    sight: Sight,
) {
    let size = layout.size;
    let tokens = bounds.last().copied().unwrap_or(0);
    assert!(
        saved.q.len() == layout.heads * tokens * size
            && saved.k.len() == layout.kv_heads * tokens * size,
        "shapes must match"
    );
    assert!(
        d_out.len() == saved.q.len() && saved.out.len() == d_out.len() && dq.len() == d_out.len(),
        "shapes must match"
    );
    assert!(
        dk.len() == saved.k.len() && dv.len() == saved.k.len(),
        "shapes must match"
    );
    let rows = bounds.len().saturating_sub(1);
    // Task (kv head, row) owns the query gradients of its group: regroup [head][row] that way.
    let mut groups: Vec<Vec<Piece<'_>>> = Vec::new();
    groups.resize_with(layout.kv_heads * rows, Vec::new);
    for piece in pieces(dq, layout.heads, bounds, size) {
        groups[piece.head / layout.group() * rows + piece.row].push(piece);
    }
    let (dks, dvs) = (
        pieces(dk, layout.kv_heads, bounds, size),
        pieces(dv, layout.kv_heads, bounds, size),
    );
    let tasks = groups.into_par_iter().zip(dks).zip(dvs).with_max_len(1);
    tasks.for_each(|((dqs, dk), dv)| {
        let span = bounds[dk.row]..bounds[dk.row + 1];
        let (k, v) = (
            head(saved.k, dk.head, tokens, size, &span),
            head(saved.v, dk.head, tokens, size, &span),
        );
        dk.data.fill(0.0);
        dv.data.fill(0.0);
        let n = span.len();
        let mut scratch = vec![0f32; 2 * TILE.min(n) * n];
        for dq in dqs {
            let width = layout.heads * size;
            let corner = span.start * width + dq.head * size;
            let one = OneHead {
                q: head(saved.q, dq.head, tokens, size, &span),
                k,
                v,
                out: saved.out.get(corner..).unwrap_or_default(),
                d_out: d_out.get(corner..).unwrap_or_default(),
                stride: width,
                normalizers: head(saved.normalizers, dq.head, tokens, 1, &span),
                size,
                sight,
            };
            one.backward(dq.data, dk.data, dv.data, &mut scratch);
        }
    });
}

/// One query head of one row: `q`, `k`, `v` `[n, size]`; `out` and `d_out` rows `stride` apart.
struct OneHead<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    d_out: &'a [f32],
    stride: usize,
    normalizers: &'a [f32],
    size: usize,
    sight: Sight,
}

impl OneHead<'_> {
    /// Overwrites `dq`, adds to `dk` and `dv`; all `[n, size]`.
    fn backward(&self, dq: &mut [f32], dk: &mut [f32], dv: &mut [f32], scratch: &mut [f32]) {
        let (n, size) = (self.normalizers.len(), self.size);
        for first in (0..n).step_by(TILE) {
            let count = TILE.min(n - first);
            let from = self.sight.first(first);
            let keys = first + count - from;
            let (p, ds) = scratch.split_at_mut(scratch.len() / 2);
            let (p, ds) = (&mut p[..count * keys], &mut ds[..count * keys]);
            let q = &self.q[first * size..][..count * size];
            let d_out = View::strided(&self.d_out[first * self.stride..], count, size, self.stride);
            let (k, v) = (&self.k[from * size..], &self.v[from * size..]);
            score(p, q, size, k, keys, self.sight.scale);
            multiply_here(
                ViewMut::new(ds, count, keys),
                d_out,
                View::new(v, keys, size).t(),
                1.0,
                Into::Overwrite,
            );
            wide!(|| self.probabilities_and_gradients(p, ds, first, (from, keys)));
            let (p, ds) = (View::new(p, count, keys), View::new(ds, count, keys));
            multiply_here(
                ViewMut::new(&mut dv[from * size..], keys, size),
                p.t(),
                d_out,
                1.0,
                Into::Add,
            );
            multiply_here(
                ViewMut::new(&mut dq[first * size..], count, size),
                ds,
                View::new(k, keys, size),
                1.0,
                Into::Overwrite,
            );
            multiply_here(
                ViewMut::new(&mut dk[from * size..], keys, size),
                ds.t(),
                View::new(q, count, size),
                1.0,
                Into::Add,
            );
        }
    }

    /// Turns scores into probabilities, and their gradients into those of the unscaled products.
    #[inline(always)]
    fn probabilities_and_gradients(
        &self,
        p: &mut [f32],
        ds: &mut [f32],
        first: usize,
        (from, keys): (usize, usize),
    ) {
        let scale = self.sight.scale;
        for (i, (p, ds)) in p
            .chunks_exact_mut(keys)
            .zip(ds.chunks_exact_mut(keys))
            .enumerate()
        {
            let query = first + i;
            let (out, d_out) = (
                &self.out[query * self.stride..][..self.size],
                &self.d_out[query * self.stride..][..self.size],
            );
            let delta = sum(self.size, |j| out[j] * d_out[j]);
            let normalizer = self.normalizers[query];
            let far = self.sight.first(query) - from;
            let (p, p_unseen) = p.split_at_mut(query + 1 - from);
            let (ds, ds_unseen) = ds.split_at_mut(query + 1 - from);
            let ((p_far, p), (ds_far, ds)) = (p.split_at_mut(far), ds.split_at_mut(far));
            for (p, ds) in p.iter_mut().zip(ds.iter_mut()) {
                *p = exp(*p - normalizer);
                *ds = *p * (*ds - delta) * scale;
            }
            for unseen in [p_far, ds_far, p_unseen, ds_unseen] {
                unseen.fill(0.0);
            }
        }
    }
}

fn scale(size: usize) -> f32 {
    1.0 / (size as f32).sqrt()
}

/// `tile` `[q.len()/size, keys] ← q·kᵀ·scale`.
fn score(tile: &mut [f32], q: &[f32], size: usize, k: &[f32], keys: usize, scale: f32) {
    let count = q.len() / size;
    multiply_here(
        ViewMut::new(tile, count, keys),
        View::new(q, count, size),
        View::new(k, keys, size).t(),
        scale,
        Into::Overwrite,
    );
}

/// Replaces scores by probabilities and returns the logarithm of their normalizer.
#[inline(always)]
fn softmax(row: &mut [f32]) -> f32 {
    let most = max(row);
    for value in row.iter_mut() {
        *value = exp(*value - most);
    }
    let total = sum(row.len(), |i| row[i]);
    let inverse = 1.0 / total;
    for value in row.iter_mut() {
        *value *= inverse;
    }
    most + total.ln()
}

/// The part of a `[heads, tokens, size]` buffer that belongs to one head and one row of the batch.
struct Piece<'a> {
    head: usize,
    row: usize,
    data: &'a mut [f32],
}

/// Cuts a buffer into its pieces, ordered by head, then row.
fn pieces<'a>(
    mut data: &'a mut [f32],
    heads: usize,
    bounds: &[usize],
    size: usize,
) -> Vec<Piece<'a>> {
    let mut out = Vec::with_capacity(heads * bounds.len());
    for head in 0..heads {
        for (row, bound) in bounds.windows(2).enumerate() {
            let (piece, rest) = data.split_at_mut((bound[1] - bound[0]) * size);
            out.push(Piece {
                head,
                row,
                data: piece,
            });
            data = rest;
        }
    }
    out
}

/// The part of a read-only `[heads, tokens, size]` buffer.
fn head<'a>(
    data: &'a [f32],
    head: usize,
    tokens: usize,
    size: usize,
    rows: &std::ops::Range<usize>,
) -> &'a [f32] {
    &data[(head * tokens + rows.start) * size..][..rows.len() * size]
}

#[cfg(test)]
mod tests;

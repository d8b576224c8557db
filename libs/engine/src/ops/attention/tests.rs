//! Attention against the plain composition, and its tail against the whole.

use candle_core::{Device, Result, Tensor};

use super::*;
use crate::ops::check::{close, differences, dot, plain, random};
use crate::ops::heads::merge;

const SHAPES: [(usize, usize, usize, &[usize]); 5] = [
    (1, 1, 2, &[0, 1]),
    (3, 1, 64, &[0, 1, 6]),
    (4, 2, 80, &[0, 7]),
    (2, 2, 16, &[0, 65, 70, 200]),
    (6, 3, 128, &[0, 3, 4]),
];

/// `x` is q, k and v one after another, head-major.
fn composition(x: &Tensor, layout: Layout, bounds: &[usize], sight: Sight) -> Result<Tensor> {
    let (tokens, size) = (bounds[bounds.len() - 1], layout.size);
    let x = x.reshape((layout.heads + 2 * layout.kv_heads, tokens, size))?;
    let mut rows = Vec::new();
    for bound in bounds.windows(2) {
        let n = bound[1] - bound[0];
        let mut heads = Vec::new();
        for head in 0..layout.heads {
            let pick = |index: usize| x.get(index)?.narrow(0, bound[0], n)?.contiguous();
            let shared = head / layout.group();
            let (q, k) = (pick(head)?, pick(layout.heads + shared)?);
            let v = pick(layout.heads + layout.kv_heads + shared)?;
            let mask: Vec<f32> = (0..n * n)
                .map(|i| {
                    let (query, key) = (i / n, i % n);
                    let far = sight.window.is_some_and(|window| key + window <= query);
                    if key > query || far {
                        f32::NEG_INFINITY
                    } else {
                        0.0
                    }
                })
                .collect();
            let scores = (q.matmul(&k.t()?)? * f64::from(sight.scale))?;
            let scores = (scores + Tensor::from_vec(mask, (n, n), &Device::Cpu)?)?;
            let scores = scores
                .broadcast_sub(&scores.max_keepdim(1)?.detach())?
                .exp()?;
            heads.push(scores.broadcast_div(&scores.sum_keepdim(1)?)?.matmul(&v)?);
        }
        rows.push(Tensor::cat(&heads, 1)?);
    }
    Tensor::cat(&rows, 0)
}

#[test]
fn forward_and_backward_equal_the_plain_composition_and_differences() {
    compare(Sight::whole);
}

#[test]
fn a_window_and_a_scale_of_its_own_hold_there_and_back() {
    // One that ends within a tile, one that ends in the tile before, one that is longer than all rows.
    for window in [1, 3, 66, 1000] {
        compare(|_| Sight {
            scale: 0.3,
            window: Some(window),
        });
    }
}

fn compare(sight: impl Fn(usize) -> Sight) {
    for (heads, kv_heads, size, bounds) in SHAPES {
        let sight = sight(size);
        let layout = Layout {
            heads,
            kv_heads,
            size,
        };
        let tokens = bounds[bounds.len() - 1];
        let x: Vec<f32> = random(layout.width() * tokens, 1)
            .iter()
            .map(|v| v * 2.0)
            .collect();
        let dy = random(heads * tokens * size, 2);
        let (want, want_dx) = plain(&x, &[x.len()], &dy, |x| {
            composition(x, layout, bounds, sight)
        });

        let (q, rest) = x.split_at(heads * tokens * size);
        let (k, v) = rest.split_at(kv_heads * tokens * size);
        let (mut by_head, mut out, mut normalizers) = (
            vec![9.0; q.len()],
            vec![9.0; q.len()],
            vec![9.0; heads * tokens],
        );
        forward(
            &mut by_head,
            &mut normalizers,
            (q, k, v),
            layout,
            bounds,
            sight,
        );
        merge(&mut out, &by_head, heads, size);
        close(&out, &want, 1e-5);

        let mut dx = vec![9.0; x.len()];
        let (dq, rest) = dx.split_at_mut(q.len());
        let (dk, dv) = rest.split_at_mut(k.len());
        let saved = Saved {
            q,
            k,
            v,
            out: &out,
            normalizers: &normalizers,
        };
        backward((dq, dk, dv), &dy, saved, layout, bounds, sight);
        close(&dx, &want_dx, 1e-5);
        differences(&x, &dx, 5e-3, |x| {
            let (q, rest) = x.split_at(q.len());
            let (k, v) = rest.split_at(k.len());
            let (mut by_head, mut out) = (vec![9.0; q.len()], vec![9.0; q.len()]);
            let mut normalizers = vec![9.0; heads * tokens];
            forward(
                &mut by_head,
                &mut normalizers,
                (q, k, v),
                layout,
                bounds,
                sight,
            );
            merge(&mut out, &by_head, heads, size);
            dot(&out, &dy)
        });
    }
}

#[test]
fn the_last_queries_alone_attend_as_in_the_whole() {
    let (size, m, n) = (8, 70, 3);
    let (q, k, v) = (
        random(m * size, 1),
        random(m * size, 2),
        random(m * size, 3),
    );
    let (mut whole, mut tail) = (vec![0.0; m * size], vec![0.0; n * size]);
    for window in [None, Some(2), Some(67)] {
        let sight = Sight {
            window,
            ..Sight::whole(size)
        };
        attend(&mut whole, &mut vec![0.0; m], &q, (&k, &v), size, sight);
        attend(
            &mut tail,
            &mut vec![0.0; n],
            &q[(m - n) * size..],
            (&k, &v),
            size,
            sight,
        );
        close(&tail, &whole[(m - n) * size..], 1e-6);
    }
}

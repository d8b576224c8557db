//! Every kernel of this machine against the definition.

use super::*;
use crate::ops::Dense;
use crate::ops::check::{close, random};

/// Tokens, inputs, outputs: one of each, odd ones, and more than one task.
const SHAPES: [(usize, usize, usize); 7] = [
    (1, 5, 3),
    (FEW, 1, 1),
    (9, 33, 31),
    (33, 64, 32),
    (40, 70, 129),
    (300, 96, 300),
    (64, 576, 160),
];

/// `[m, k]·[k, n]` in `f64`.
fn definition(
    x: &[f32],
    w: impl Fn(usize, usize) -> f32,
    (m, k, n): (usize, usize, usize),
) -> Vec<f32> {
    let mut out = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let terms = (0..k).map(|l| f64::from(x[i * k + l]) * f64::from(w(l, j)));
            out.push(terms.sum::<f64>() as f32);
        }
    }
    out
}

/// Rounding errors of `inner` products of values up to 1, far from their worst case.
fn tolerance(kernel: Kernel, inner: usize, backward: bool) -> f32 {
    let step = match kernel.compute() {
        Compute::F32 => 1e-6,
        Compute::Int8 if !backward => 1.0 / 127.0,
        _ => 1.0 / 256.0,
    };
    2.0 * step * (inner as f32).sqrt()
}

#[test]
fn every_kernel_multiplies_forward_and_backward() {
    for kernel in Kernel::available() {
        for (tokens, inputs, outputs) in SHAPES {
            let (x, dy) = (random(tokens * inputs, 1), random(tokens * outputs, 2));
            let data = random((outputs + 5) * inputs, 3);
            let weight = &Dense {
                data: &data,
                width: inputs,
            };
            let frozen = Frozen { weight, kernel };
            // A range that does not begin at the first row, into a destination that is wider.
            let range = 2..outputs + 2;
            let stride = outputs + 3;
            let w = |o: usize, i: usize| data[(o + 2) * inputs + i];
            let mut scratch = Scratch::default();

            let mut y = vec![7.0; tokens * stride];
            let view = ViewMut::strided(&mut y, tokens, outputs, stride);
            let x_view = View::new(&x, tokens, inputs);
            forward(view, x_view, frozen, range.clone(), &mut scratch).unwrap();
            let want = definition(&x, |i, o| w(o, i), (tokens, inputs, outputs));
            let got: Vec<f32> = y
                .chunks(stride)
                .flat_map(|row| row[..outputs].to_vec())
                .collect();
            close(&got, &want, tolerance(kernel, inputs, false));
            assert!(
                y.chunks(stride).all(|row| row[outputs..] == [7.0; 3]),
                "{kernel}: beyond its columns"
            );

            let want = definition(&dy, w, (tokens, outputs, inputs));
            for into in [Into::Overwrite, Into::Add] {
                let mut dx = vec![0.5; tokens * inputs];
                let view = ViewMut::new(&mut dx, tokens, inputs);
                let dy_view = View::new(&dy, tokens, outputs);
                backward(view, dy_view, frozen, range.clone(), into, &mut scratch).unwrap();
                if into == Into::Add {
                    dx.iter_mut().for_each(|v| *v -= 0.5);
                }
                close(&dx, &want, tolerance(kernel, outputs, true));
            }
        }
    }
}

#[test]
fn a_value_that_is_not_finite_is_seen_in_every_kernel() {
    let (tokens, width, outputs) = (40, 70, 50);
    let data = random(outputs * width, 3);
    let weight = &Dense { data: &data, width };
    for kernel in Kernel::available() {
        let frozen = Frozen { weight, kernel };
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = random(tokens * width, 1);
            x[17 * width + 69] = bad;
            let mut y = vec![0.0; tokens * outputs];
            let view = ViewMut::new(&mut y, tokens, outputs);
            let x = View::new(&x, tokens, width);
            forward(view, x, frozen, 0..outputs, &mut Scratch::default()).unwrap();
            for (row, values) in y.chunks(outputs).enumerate() {
                assert_eq!(
                    values.iter().all(|v| v.is_finite()),
                    row != 17,
                    "{kernel} row {row}"
                );
            }
        }
    }
}

#[test]
fn one_thread_and_three_give_the_same_bytes() {
    let (tokens, width, outputs) = (300, 96, 300);
    let (x, data) = (random(tokens * width, 1), random(outputs * width, 2));
    let weight = &Dense { data: &data, width };
    for kernel in Kernel::available() {
        let frozen = Frozen { weight, kernel };
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let mut y = vec![0.0; tokens * outputs];
            pool.install(|| {
                let view = ViewMut::new(&mut y, tokens, outputs);
                let x = View::new(&x, tokens, width);
                forward(view, x, frozen, 0..outputs, &mut Scratch::default()).unwrap();
            });
            y
        };
        assert!(run(1) == run(3), "{kernel}");
    }
}

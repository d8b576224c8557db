//! Both ways against the plain composition.

use candle_core::{Device, Tensor};

use super::*;
use crate::kernel::{Compute, Kernel};
use crate::ops::Dense;
use crate::ops::check::{close, differences, plain, random};

#[test]
fn loss_and_gradient_equal_the_plain_composition() {
    let kernels = [Compute::F32, Compute::Bf16].map(Kernel::best);
    for kernel in kernels {
        check(
            kernel,
            if kernel.compute() == Compute::F32 {
                1e-5
            } else {
                2e-2
            },
        );
    }
}

fn check(kernel: Kernel, tolerance: f32) {
    for (positions, width, vocabulary) in [
        (1, 1, 2),
        (1, 64, 9000),
        (130, 5, 33),
        (3, 80, 8192),
        (40, 32, 9001),
    ] {
        let x: Vec<f32> = random(positions * width, 1)
            .iter()
            .map(|v| v * 3.0)
            .collect();
        let table = random(vocabulary * width, 2);
        let targets: Vec<u32> = (0..positions)
            .map(|p| ((p * 7919) % vocabulary) as u32)
            .collect();
        let scale = 0.25;
        let (want, want_dx) = plain(&x, &[positions, width], &vec![scale; positions], |x| {
            let logits =
                x.matmul(&Tensor::from_slice(&table, (vocabulary, width), &Device::Cpu)?.t()?)?;
            let logits = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
            let normalizer = logits.exp()?.sum_keepdim(1)?.log()?;
            let targets = Tensor::from_slice(&targets, (positions, 1), &Device::Cpu)?;
            normalizer - logits.gather(&targets, 1)?
        });
        let output = Frozen {
            weight: &Dense {
                data: &table,
                width,
            },
            kernel,
        };
        let mut scratch = Scratch::default();
        let mut dx = vec![9.0; x.len()];
        let losses =
            losses_and_gradient(&mut dx, &x, output, &targets, scale, &mut scratch).unwrap();
        close(&losses, &want, tolerance);
        close(&dx, &want_dx, tolerance);
        if kernel.compute() == Compute::F32 {
            // Rounding to bf16 is a staircase: it has no differences to compare with.
            differences(&x, &dx, 5e-3, |x| {
                let (mut dx, mut scratch) = (vec![9.0; x.len()], Scratch::default());
                let losses =
                    losses_and_gradient(&mut dx, x, output, &targets, scale, &mut scratch).unwrap();
                losses.iter().map(|loss| f64::from(loss * scale)).sum()
            });
        }

        let wanted: Vec<&[u32]> = targets.chunks(1).collect();
        let scores = log_probabilities(&x, output, &wanted, &mut scratch).unwrap();
        let scores: Vec<f32> = scores.iter().map(|s| -s[0]).collect();
        close(&scores, &losses, 1e-6);
    }
}

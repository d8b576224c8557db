//! The loss of the next token among a few: the softmax of their logits alone.
//!
//! As `MeZO` (arXiv 2305.17333) trains classification, where a word stands for each class. In `f32` whatever the kernel,
//! with sums in `f64`: a few rows of the output layer cost nothing beside a pass.

use super::{Table, embedding};

/// The loss `−ln p(target)` of each position of `x` `[positions, width]`, which is normalized, with `p` the softmax over the tokens
/// `among` alone; `targets` are places in `among`. Where `gradient` has `dx` `[positions, width]` and a scale, `dx` becomes the
/// gradient of `scale · Σ loss`.
///
/// # Errors
/// The output layer cannot be decoded.
///
/// # Panics
/// The slices' lengths do not match, or a token lies beyond the vocabulary.
pub fn losses<T: Table>(
    x: &[f32],
    output: &T,
    among: &[u32],
    targets: &[u32],
    gradient: Option<(&mut [f32], f32)>,
) -> Result<Vec<f32>, T::Error> {
    let width = output.width();
    assert!(x.len() == targets.len() * width, "one row per position");
    let mut rows = vec![0.0; among.len() * width];
    embedding::forward(&mut rows, output, among)?;
    let (dx, scale) = gradient.unwrap_or_default();
    let mut dx = dx.chunks_exact_mut(width);
    let mut losses = Vec::with_capacity(targets.len());
    for (x, target) in x.chunks_exact(width).zip(targets) {
        let logs = softmax(&rows, x);
        let target = *target as usize;
        losses.push(logs.get(target).map_or(f32::NAN, |log| -*log as f32));
        let Some(dx) = dx.next() else {
            continue;
        };
        dx.fill(0.0);
        for (place, (row, log)) in rows.chunks_exact(width).zip(&logs).enumerate() {
            let wanted = if place == target { 1.0 } else { 0.0 };
            let by = scale * (log.exp() - wanted) as f32;
            dx.iter_mut().zip(row).for_each(|(d, w)| *d += by * w);
        }
    }
    Ok(losses)
}

/// The logarithm of the probability of each token `among` these alone, after each position.
///
/// # Errors
/// As [`losses`].
///
/// # Panics
/// As [`losses`].
pub fn log_probabilities<T: Table>(
    x: &[f32],
    output: &T,
    among: &[u32],
) -> Result<Vec<Vec<f64>>, T::Error> {
    let width = output.width();
    let mut rows = vec![0.0; among.len() * width];
    embedding::forward(&mut rows, output, among)?;
    Ok(x.chunks_exact(width).map(|x| softmax(&rows, x)).collect())
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

/// The logarithm of the softmax of what each of `rows` makes of `x`.
fn softmax(rows: &[f32], x: &[f32]) -> Vec<f64> {
    let logits = rows.chunks_exact(x.len()).map(|row| dot(row, x));
    let mut logits: Vec<f64> = logits.collect();
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let all: f64 = logits.iter().map(|logit| (logit - most).exp()).sum();
    let normalizer = most + all.ln();
    logits.iter_mut().for_each(|logit| *logit -= normalizer);
    logits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Compute, Kernel};
    use crate::ops::Dense;
    use crate::ops::cross_entropy;
    use crate::ops::frozen::Frozen;

    const WIDTH: usize = 5;
    const VOCABULARY: usize = 11;

    fn numbers(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.7 + seed).sin()).collect()
    }

    #[test]
    fn a_loss_among_some_is_that_among_all_given_that_it_is_one_of_them() {
        let (data, x) = (numbers(VOCABULARY * WIDTH, 0.3), numbers(2 * WIDTH, 1.1));
        let output = Dense {
            data: &data,
            width: WIDTH,
        };
        let among = [7, 2, 9];
        let found = losses(&x, &output, &among, &[2, 0], None).unwrap();
        let frozen = Frozen {
            weight: &output,
            kernel: Kernel::best(Compute::F32),
        };
        let wanted: [&[u32]; 2] = [&among, &among];
        let all =
            cross_entropy::log_probabilities(&x, frozen, &wanted, &mut Default::default()).unwrap();
        let told = log_probabilities(&x, &output, &among).unwrap();
        for (((found, told), logs), target) in found.iter().zip(told).zip(all).zip([2, 0]) {
            let total: f32 = logs.iter().map(|log| log.exp()).sum();
            let want = total.ln() - logs[target];
            assert!((found - want).abs() < 1e-5, "{found} for {want}");
            assert!((found + told[target] as f32).abs() < 1e-6, "{told:?}");
        }
    }

    #[test]
    fn its_gradient_is_that_of_differences() {
        let (data, x) = (numbers(VOCABULARY * WIDTH, 0.3), numbers(2 * WIDTH, 1.1));
        let output = Dense {
            data: &data,
            width: WIDTH,
        };
        let (among, targets, scale) = ([7, 2, 9], [1, 0], 0.5);
        let total = |x: &[f32]| -> f32 {
            let losses = losses(x, &output, &among, &targets, None).unwrap();
            losses.iter().sum()
        };
        let mut dx = vec![9.0; x.len()];
        losses(&x, &output, &among, &targets, Some((&mut dx, scale))).unwrap();
        let step = 1e-2;
        for (place, got) in dx.iter().enumerate() {
            let moved = |by: f32| {
                let mut x = x.clone();
                x[place] += by;
                total(&x)
            };
            let want = scale * (moved(step) - moved(-step)) / (2.0 * step);
            assert!((got - want).abs() < 1e-3, "{place}: {got} for {want}");
        }
    }
}

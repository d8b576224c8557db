//! The output layer and the loss, over the labelled positions alone.
//!
//! Logits exist for at most [`BLOCK`] positions at a time and are made from slices of the output
//! layer, so that neither `[tokens, vocabulary]` nor a decoded output layer is ever held. The loss
//! and its gradient are one operation: the logits are used for both while they are there.
#![expect(
    clippy::indexing_slicing,
    reason = "x, dx: [positions, width]; logits: [block, vocabulary]; asserted at entry"
)]

use rayon::prelude::*;

use super::Table;
use super::frozen::{self, Frozen};
use super::product::{Into, View, ViewMut};
use super::simd::{exp, max, sum, wide};

/// Positions whose logits exist together.
pub const BLOCK: usize = 128;

/// Rows of the output layer that are decoded together.
const SLICE: usize = 8192;

/// Buffers that are used again.
#[derive(Debug, Default)]
pub struct Scratch {
    /// `[positions of the block, vocabulary]`
    logits: Vec<f32>,
    /// Those of the products.
    pub products: frozen::Scratch,
}

/// The logarithm of the probability of each wanted id after each position.
///
/// `x` `[positions, width]` is normalized; `wanted` has one list of ids per position.
///
/// # Errors
/// The output layer cannot be decoded.
///
/// # Panics
/// The slices' lengths do not match, or an id lies beyond the vocabulary.
pub fn log_probabilities<T: Table>(
    x: &[f32],
    output: Frozen<'_, T>,
    wanted: &[&[u32]],
    scratch: &mut Scratch,
) -> Result<Vec<Vec<f32>>, T::Error> {
    let (width, vocabulary) = (output.weight.width(), output.weight.count());
    assert!(x.len() == wanted.len() * width, "one row per position");
    let mut out = Vec::with_capacity(wanted.len());
    for (x, wanted) in x.chunks(BLOCK * width).zip(wanted.chunks(BLOCK)) {
        scratch.logits(x, output)?;
        let rows = scratch.logits.par_chunks(vocabulary).zip(wanted);
        out.par_extend(rows.map(|(row, wanted)| {
            let normalizer = wide(|| normalizer(row));
            wanted
                .iter()
                .map(|id| row[*id as usize] - normalizer)
                .collect::<Vec<_>>()
        }));
    }
    Ok(out)
}

/// The loss `−ln p(target)` of each position, and in `dx` `[positions, width]` the gradient of
/// `scale · Σ loss`.
///
/// # Errors
/// The output layer cannot be decoded.
///
/// # Panics
/// The slices' lengths do not match, or a target lies beyond the vocabulary.
pub fn losses_and_gradient<T: Table>(
    dx: &mut [f32],
    x: &[f32],
    output: Frozen<'_, T>,
    targets: &[u32],
    scale: f32,
    scratch: &mut Scratch,
) -> Result<Vec<f32>, T::Error> {
    let (width, vocabulary) = (output.weight.width(), output.weight.count());
    assert!(
        x.len() == targets.len() * width && dx.len() == x.len(),
        "one row per position"
    );
    let mut losses = Vec::with_capacity(targets.len());
    let blocks = x.chunks(BLOCK * width).zip(dx.chunks_mut(BLOCK * width));
    for ((x, dx), targets) in blocks.zip(targets.chunks(BLOCK)) {
        scratch.logits(x, output)?;
        let rows = scratch.logits.par_chunks_mut(vocabulary).zip(targets);
        losses.par_extend(rows.map(|(row, target)| {
            let target = *target as usize;
            let normalizer = wide(|| normalizer(row));
            let loss = normalizer - row[target];
            wide(|| {
                for value in row.iter_mut() {
                    *value = exp(*value - normalizer) * scale;
                }
            });
            row[target] -= scale;
            loss
        }));
        scratch.input_gradient(dx, output)?;
    }
    Ok(losses)
}

/// The logits `[positions, vocabulary]`; for few positions only, since all of them are held.
///
/// # Errors
/// The output layer cannot be decoded.
pub fn logits<T: Table>(
    x: &[f32],
    output: Frozen<'_, T>,
    scratch: &mut Scratch,
) -> Result<Vec<f32>, T::Error> {
    scratch.logits(x, output)?;
    Ok(std::mem::take(&mut scratch.logits))
}

impl Scratch {
    fn logits<T: Table>(&mut self, x: &[f32], output: Frozen<'_, T>) -> Result<(), T::Error> {
        let (width, vocabulary) = (output.weight.width(), output.weight.count());
        let positions = x.len() / width;
        self.logits.resize(positions * vocabulary, 0.0);
        for first in (0..vocabulary).step_by(SLICE) {
            let count = SLICE.min(vocabulary - first);
            let logits = ViewMut::strided(&mut self.logits[first..], positions, count, vocabulary);
            let x = View::new(x, positions, width);
            frozen::forward(logits, x, output, first..first + count, &mut self.products)?;
        }
        Ok(())
    }

    /// `dx ← logits' gradient · output`; the logits hold their gradient by now.
    fn input_gradient<T: Table>(
        &mut self,
        dx: &mut [f32],
        output: Frozen<'_, T>,
    ) -> Result<(), T::Error> {
        let (width, vocabulary) = (output.weight.width(), output.weight.count());
        let positions = dx.len() / width;
        for first in (0..vocabulary).step_by(SLICE) {
            let count = SLICE.min(vocabulary - first);
            let gradient = View::strided(&self.logits[first..], positions, count, vocabulary);
            let into = if first == 0 {
                Into::Overwrite
            } else {
                Into::Add
            };
            let dx = ViewMut::new(dx, positions, width);
            let range = first..first + count;
            frozen::backward(dx, gradient, output, range, into, &mut self.products)?;
        }
        Ok(())
    }
}

#[inline(always)]
fn normalizer(row: &[f32]) -> f32 {
    let most = max(row);
    most + sum(row.len(), |i| exp(row[i] - most)).ln()
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::kernel::{Compute, Kernel};
    use crate::ops::Dense;
    use crate::ops::check::{close, plain, random};

    #[test]
    fn loss_and_gradient_equal_the_plain_composition() {
        for (positions, width, vocabulary) in
            [(1, 1, 2), (1, 64, 9000), (130, 5, 33), (3, 80, 8192)]
        {
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
                kernel: Kernel::best(Compute::F32),
            };
            let mut scratch = Scratch::default();
            let mut dx = vec![9.0; x.len()];
            let losses =
                losses_and_gradient(&mut dx, &x, output, &targets, scale, &mut scratch).unwrap();
            close(&losses, &want, 1e-5);
            close(&dx, &want_dx, 1e-5);

            let wanted: Vec<&[u32]> = targets.chunks(1).collect();
            let scores = log_probabilities(&x, output, &wanted, &mut scratch).unwrap();
            let scores: Vec<f32> = scores.iter().map(|s| -s[0]).collect();
            assert_eq!(scores, losses);
        }
    }
}

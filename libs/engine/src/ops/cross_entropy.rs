//! The output layer and the loss, over the labelled positions alone.
//!
//! Neither `[tokens, vocabulary]` nor a decoded output layer is ever held. Losses alone need one product:
//! the vocabulary passes by in [`sliced`] pieces for many positions at a time. Their gradient needs the sum
//! over the whole vocabulary first. Where a product in the kernel's arithmetic is as cheap for a few
//! positions as for many, the logits of [`BLOCK`] positions exist at a time and serve both. Where the
//! output layer must first be brought into another order, the pieces pass by twice instead.
#![expect(
    clippy::indexing_slicing,
    reason = "x, dx: [positions, width]; logits: [block, vocabulary]; asserted at entry"
)]

mod sliced;

use std::ops::Range;

use rayon::prelude::*;

use super::Table;
use super::frozen::{self, Frozen};
use super::product::{Into, View, ViewMut};
use super::simd::{exp, max, sum, wide};
use crate::kernel::Kernel;

/// Positions whose logits exist together. What is planned of memory knows it.
pub const BLOCK: usize = domain::profile::OUTPUT_BLOCK;

/// Rows of the output layer that are decoded together.
const SLICE: usize = 8192;

/// For how many positions, and of how many columns, logits exist together where the losses of
/// `positions` are computed, with their gradient if one trains; and how many rows of the output layer are
/// multiplied at a time.
pub(crate) fn held(
    kernel: Kernel,
    positions: usize,
    vocabulary: usize,
    trains: bool,
) -> (usize, usize, usize) {
    let output = Frozen {
        weight: &(),
        kernel,
    };
    if !trains || output.prefers_many(positions) {
        let piece = vocabulary.min(sliced::PIECE);
        return (positions.min(sliced::POSITIONS), piece, piece);
    }
    (positions.min(BLOCK), vocabulary, vocabulary.min(SLICE))
}

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
    let width = output.weight.width();
    assert!(x.len() == wanted.len() * width, "one row per position");
    sliced::log_probabilities(x, output, wanted, scratch)
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
    if output.prefers_many(targets.len()) {
        return sliced::losses_and_gradient(dx, x, output, targets, scale, scratch);
    }
    let mut losses = Vec::with_capacity(targets.len());
    let blocks = x.chunks(BLOCK * width).zip(dx.chunks_mut(BLOCK * width));
    for ((x, dx), targets) in blocks.zip(targets.chunks(BLOCK)) {
        scratch.logits(x, output)?;
        let rows = scratch.logits.par_chunks_mut(vocabulary).zip(targets);
        losses.par_extend(rows.map(|(row, target)| {
            let target = *target as usize;
            let wanted = row[target];
            let normalizer = wide!(|| {
                let most = max(row);
                row.iter_mut().for_each(|value| *value = exp(*value - most));
                let all = sum(row.len(), |i| row[i]);
                let factor = scale / all;
                row.iter_mut().for_each(|value| *value *= factor);
                most + all.ln()
            });
            let loss = normalizer - wanted;
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
        for rows in parts(vocabulary, SLICE) {
            let logits = &mut self.logits[rows.start..];
            let logits = ViewMut::strided(logits, positions, rows.len(), vocabulary);
            let x = View::new(x, positions, width);
            frozen::forward(logits, x, output, rows, &mut self.products)?;
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
        for rows in parts(vocabulary, SLICE) {
            let gradient = &self.logits[rows.start..];
            let gradient = View::strided(gradient, positions, rows.len(), vocabulary);
            let dx = ViewMut::new(dx, positions, width);
            let into = first_or_more(&rows);
            frozen::backward(dx, gradient, output, rows, into, &mut self.products)?;
        }
        Ok(())
    }
}

/// The rows of the output layer, so many at a time.
fn parts(vocabulary: usize, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..vocabulary).step_by(rows);
    starts.map(move |first| first..vocabulary.min(first + rows))
}

/// What becomes of the input's gradient at these rows: the first begin it, the others add to it.
const fn first_or_more(rows: &Range<usize>) -> Into {
    if rows.start == 0 {
        Into::Overwrite
    } else {
        Into::Add
    }
}

#[cfg(test)]
mod tests;

//! The vocabulary in pieces, for many positions at a time.
#![expect(
    clippy::indexing_slicing,
    reason = "x, dx: [positions, width]; logits: [positions, piece]; asserted by the caller"
)]

use std::ops::Range;

use rayon::prelude::*;

use super::{Scratch, first_or_more, parts};
use crate::ops::Table;
use crate::ops::frozen::{self, Frozen};
use crate::ops::product::{View, ViewMut};
use crate::ops::simd::{exp, max, sum, wide};

/// Positions that are scored together: the output layer is read once for all of them.
pub(super) const POSITIONS: usize = 1024;

/// Rows of the output layer that pass by together.
pub(super) const PIECE: usize = 2048;

/// The logarithm of a sum of exponentials, of which more and more terms become known.
#[derive(Debug, Clone, Copy)]
struct Normalizer {
    most: f32,
    /// `Σ exp(term − most)`
    sum: f32,
}

impl Normalizer {
    const EMPTY: Self = Self {
        most: f32::NEG_INFINITY,
        sum: 0.0,
    };

    #[inline(always)]
    fn add(&mut self, terms: &[f32]) {
        let most = max(terms).max(self.most);
        self.sum = self.sum * exp(self.most - most) + sum(terms.len(), |i| exp(terms[i] - most));
        self.most = most;
    }

    fn logarithm(self) -> f32 {
        self.most + self.sum.ln()
    }
}

/// As [`super::log_probabilities`].
pub(super) fn log_probabilities<T: Table>(
    x: &[f32],
    output: Frozen<'_, T>,
    wanted: &[&[u32]],
    scratch: &mut Scratch,
) -> Result<Vec<Vec<f32>>, T::Error> {
    let mut out = Vec::with_capacity(wanted.len());
    let blocks = x.chunks(POSITIONS * output.weight.width());
    for (x, wanted) in blocks.zip(wanted.chunks(POSITIONS)) {
        let (normalizers, logits) = normalized(x, output, wanted, scratch)?;
        let rows = logits.into_iter().zip(normalizers);
        out.extend(rows.map(|(mut row, normalizer)| {
            row.iter_mut().for_each(|logit| *logit -= normalizer);
            row
        }));
    }
    Ok(out)
}

/// As [`super::losses_and_gradient`].
pub(super) fn losses_and_gradient<T: Table>(
    dx: &mut [f32],
    x: &[f32],
    output: Frozen<'_, T>,
    targets: &[u32],
    scale: f32,
    scratch: &mut Scratch,
) -> Result<Vec<f32>, T::Error> {
    let width = output.weight.width();
    let mut losses = Vec::with_capacity(targets.len());
    let blocks = x
        .chunks(POSITIONS * width)
        .zip(dx.chunks_mut(POSITIONS * width));
    for ((x, dx), targets) in blocks.zip(targets.chunks(POSITIONS)) {
        let wanted: Vec<&[u32]> = targets.iter().map(std::slice::from_ref).collect();
        let (normalizers, logits) = normalized(x, output, &wanted, scratch)?;
        let rows = logits.iter().zip(&normalizers);
        losses.extend(rows.map(|(row, normalizer)| normalizer - row[0]));
        gradient(dx, x, output, (targets, &normalizers), scale, scratch)?;
    }
    Ok(losses)
}

/// Of each position, the logarithm of its sum and the logits of its wanted ids.
type Normalized = (Vec<f32>, Vec<Vec<f32>>);

fn normalized<T: Table>(
    x: &[f32],
    output: Frozen<'_, T>,
    wanted: &[&[u32]],
    scratch: &mut Scratch,
) -> Result<Normalized, T::Error> {
    let mut normalizers = vec![Normalizer::EMPTY; wanted.len()];
    let mut found: Vec<Vec<f32>> = wanted.iter().map(|ids| vec![0.0; ids.len()]).collect();
    for piece in parts(output.weight.count(), PIECE) {
        let logits = scratch.piece(x, output, &piece)?;
        let rows = logits.par_chunks(piece.len()).zip(&mut normalizers);
        rows.for_each(|(row, normalizer)| wide!(|| normalizer.add(row)));
        let rows = logits.chunks(piece.len()).zip(wanted).zip(&mut found);
        for ((row, ids), found) in rows {
            for (id, found) in ids.iter().zip(found) {
                if piece.contains(&(*id as usize)) {
                    *found = row[*id as usize - piece.start];
                }
            }
        }
    }
    let logarithms = normalizers.into_iter().map(Normalizer::logarithm);
    Ok((logarithms.collect(), found))
}

/// `dx ← scale · (probabilities − targets) · output`.
fn gradient<T: Table>(
    dx: &mut [f32],
    x: &[f32],
    output: Frozen<'_, T>,
    (targets, normalizers): (&[u32], &[f32]),
    scale: f32,
    scratch: &mut Scratch,
) -> Result<(), T::Error> {
    let width = output.weight.width();
    let positions = dx.len() / width;
    for piece in parts(output.weight.count(), PIECE) {
        let logits = scratch.piece(x, output, &piece)?;
        let rows = logits
            .par_chunks_mut(piece.len())
            .zip(targets)
            .zip(normalizers);
        rows.for_each(|((row, target), normalizer)| {
            wide!(|| {
                for value in row.iter_mut() {
                    *value = exp(*value - normalizer) * scale;
                }
            });
            if piece.contains(&(*target as usize)) {
                row[*target as usize - piece.start] -= scale;
            }
        });
        let into = first_or_more(&piece);
        let dx = ViewMut::new(dx, positions, width);
        let gradient = View::new(&scratch.logits, positions, piece.len());
        frozen::backward(dx, gradient, output, piece, into, &mut scratch.products)?;
    }
    Ok(())
}

impl Scratch {
    /// The logits `[positions, piece]`.
    fn piece<T: Table>(
        &mut self,
        x: &[f32],
        output: Frozen<'_, T>,
        piece: &Range<usize>,
    ) -> Result<&mut [f32], T::Error> {
        let width = output.weight.width();
        let positions = x.len() / width;
        self.logits.resize(positions * piece.len(), 0.0);
        let logits = ViewMut::new(&mut self.logits, positions, piece.len());
        let x = View::new(x, positions, width);
        frozen::forward(logits, x, output, piece.clone(), &mut self.products)?;
        Ok(&mut self.logits)
    }
}

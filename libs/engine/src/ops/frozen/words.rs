//! Operands of the dot-product instructions: two bf16 or four 8-bit integers along the inner
//! dimension in each 32-bit word.
//!
//! The left operand is `[rows, words]`, row by row. The right one lies in panels of [`PANEL`]
//! columns, `[panels, words, PANEL]`, so that a vector register or a tile takes whole lines of it.
//! Rows, words and columns beyond the matrix are zero. The inner dimension may be made of segments,
//! each padded by itself: `[x | l]·[w ; b]` is `x·w + l·b`.
//!
//! Everything here needs AVX-512 with BF16, as the kernels that read words do.
#![expect(
    unsafe_code,
    clippy::indexing_slicing,
    reason = "left: [rows, words]; panel: [words, PANEL]; sizes follow from `Shape`; vector \
              instructions are asked for by kernels that exist only where they are present"
)]

use std::ops::Range;

use rayon::prelude::*;

use super::lanes::{
    bytes_of_row, bytes_sum, lines_of_columns, pairs_of_columns, pairs_of_row, scale, zip_rows,
};
use crate::ops::product::View;

/// Columns of a panel.
pub(super) const PANEL: usize = 32;

/// Rows of the left operand that are multiplied together.
pub(super) const ROWS: usize = 32;

/// Words are padded to whole steps: the 64 bytes of a tile's row.
pub(super) const STEP: usize = 16;

/// What an 8-bit integer of the left operand is raised by, to be unsigned as the instructions want.
pub(super) const BIAS: i32 = 128;

/// Panels that one task brings into order, so that it reads more than a cache line of each row.
const TOGETHER: usize = 4;

/// How many values of the inner dimension a word holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Two bf16.
    Pair,
    /// Four 8-bit integers.
    Quad,
}

impl Word {
    /// Words of `inner` values, padded.
    pub(super) const fn words(self, inner: usize) -> usize {
        let values = match self {
            Self::Pair => 2 * STEP,
            Self::Quad => 4 * STEP,
        };
        inner.div_ceil(values) * STEP
    }
}

/// The sizes of a product `[rows, words] · [words, cols]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    /// Words of all segments together.
    pub(super) words: usize,
    pub(super) cols: usize,
    pub(super) word: Word,
}

impl Shape {
    pub(super) const fn panels(self) -> usize {
        self.cols.div_ceil(PANEL)
    }

    pub(super) const fn left_len(self) -> usize {
        self.rows.next_multiple_of(ROWS) * self.words
    }

    pub(super) const fn panel_len(self) -> usize {
        self.words * PANEL
    }

    /// The part of a larger buffer that the panels of this shape take.
    pub(super) fn whole(self, right: &mut [u32]) -> &mut [u32] {
        &mut right[..self.panels() * self.panel_len()]
    }
}

/// A segment of the left operand: `x` `[rows, inner]` as pairs, in the words of `at`.
pub(super) fn left_pairs(left: &mut [u32], x: View<'_>, shape: Shape, at: &Range<usize>) {
    let tasks = left.par_chunks_mut(ROWS * shape.words).enumerate();
    tasks.for_each(|(block, left)| {
        for (i, row) in left.chunks_exact_mut(shape.words).enumerate() {
            let values = x.row(block * ROWS + i).unwrap_or_default();
            // SAFETY: the instructions are present.
            unsafe { pairs_of_row(&mut row[at.clone()], values) };
        }
    });
}

/// The left operand: `x` `[rows, inner]` as quads raised by [`BIAS`], and the scale of each row.
///
/// A row with an infinity or NaN has no finite scale, so that it stays visible in every product.
pub(super) fn left_quads(left: &mut [u32], scales: &mut Vec<f32>, x: View<'_>, shape: Shape) {
    scales.resize(shape.rows.next_multiple_of(ROWS), 0.0);
    let tasks = left
        .par_chunks_mut(ROWS * shape.words)
        .zip(scales.par_chunks_mut(ROWS));
    tasks.enumerate().for_each(|(block, (left, scales))| {
        for (i, (row, own)) in left.chunks_exact_mut(shape.words).zip(scales).enumerate() {
            let values = x.row(block * ROWS + i).unwrap_or_default();
            *own = quads(row, values, BIAS);
        }
    });
}

/// Returns the scale.
fn quads(out: &mut [u32], row: &[f32], bias: i32) -> f32 {
    // SAFETY: the instructions are present.
    let scale = unsafe { scale(row) };
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    // SAFETY: as above.
    unsafe { bytes_of_row(out, row, inverse, bias) };
    scale
}

/// A segment of the panels of `wᵀ`, `w` `[cols, inner]`, as pairs.
pub(super) fn panels_of_transposed(
    panels: &mut [u32],
    w: View<'_>,
    shape: Shape,
    at: &Range<usize>,
) {
    let tasks = panels.par_chunks_mut(shape.panel_len()).enumerate();
    tasks.for_each(|(panel, out)| {
        let out = &mut out[at.start * PANEL..at.end * PANEL];
        for half in 0..PANEL / STEP {
            let first = panel * PANEL + half * STEP;
            let rows = std::array::from_fn(|i| w.row(first + i).unwrap_or_default());
            // SAFETY: the instructions are present.
            unsafe { pairs_of_columns(&mut out[half * STEP..], PANEL, &rows) };
        }
    });
}

/// A segment of the panels of `w` `[inner, cols]` itself, as pairs.
pub(super) fn panels(panels: &mut [u32], w: View<'_>, shape: Shape, at: &Range<usize>) {
    let pitch = shape.panel_len();
    let tasks = panels.par_chunks_mut(TOGETHER * pitch).enumerate();
    tasks.for_each(|(task, out)| {
        let row = |row: usize| {
            let row = w.row(row).unwrap_or_default();
            row.get(task * TOGETHER * PANEL..).unwrap_or_default()
        };
        for word in 0..at.len() {
            let out = &mut out[(at.start + word) * PANEL..];
            // SAFETY: the instructions are present.
            unsafe { zip_rows(out, pitch, PANEL, row(2 * word), row(2 * word + 1)) };
        }
    });
}

/// The panels of `wᵀ`, `w` `[cols, inner]`, as quads; the scale of each column and its sum.
pub(super) fn panels_of_quads(
    panels: &mut [u32],
    columns: &mut Vec<Column>,
    w: View<'_>,
    shape: Shape,
) {
    columns.resize(shape.panels() * PANEL, Column::default());
    let tasks = panels
        .par_chunks_mut(shape.panel_len())
        .zip(columns.par_chunks_mut(PANEL));
    tasks.enumerate().for_each(|(panel, (out, columns))| {
        let mut rows = vec![0u32; STEP * shape.words];
        for half in 0..PANEL / STEP {
            for (i, words) in rows.chunks_exact_mut(shape.words).enumerate() {
                let row = w.row(panel * PANEL + half * STEP + i).unwrap_or_default();
                columns[half * STEP + i] = Column {
                    scale: quads(words, row, 0),
                    // SAFETY: the instructions are present.
                    sum: unsafe { bytes_sum(words) },
                };
            }
            // SAFETY: as above.
            unsafe { lines_of_columns(&mut out[half * STEP..], PANEL, &rows, shape.words) };
        }
    });
}

/// What undoes the quantization of one column.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Column {
    pub(super) scale: f32,
    /// Sum of its integers, which the bias of the left operand has added [`BIAS`] times.
    pub(super) sum: i32,
}

//! Operands of the dot-product instructions: two bf16 or four 8-bit integers along the inner
//! dimension in each 32-bit word.
//!
//! The left operand is `[rows, words]`, row by row. The right one lies in panels of [`PANEL`]
//! columns, `[panels, words, PANEL]`, so that a vector register or a tile takes whole lines of it.
//! Rows, words and columns beyond the matrix are zero.
//!
//! Everything here needs AVX-512 with BF16, as the kernels that read words do.
#![expect(
    unsafe_code,
    clippy::indexing_slicing,
    reason = "left: [rows, words]; panel: [words, PANEL]; sizes follow from `Shape`; vector \
              instructions are asked for by `Product`, which exists only where they are present"
)]

use rayon::prelude::*;

use super::lanes::{bytes, bytes_sum, pairs, scale, transposed, zipped};
use crate::ops::product::View;

/// Columns of a panel.
pub(super) const PANEL: usize = 32;

/// Rows of the left operand that are multiplied together.
pub(super) const ROWS: usize = 32;

/// Words are padded to whole steps: the 64 bytes of a tile's row.
pub(super) const STEP: usize = 16;

/// What an 8-bit integer of the left operand is raised by, to be unsigned as the instructions want.
pub(super) const BIAS: i32 = 128;

/// How many values of the inner dimension a word holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Two bf16.
    Pair,
    /// Four 8-bit integers.
    Quad,
}

/// The sizes of a product `[rows, inner] · [inner, cols]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) cols: usize,
    pub(super) word: Word,
}

impl Shape {
    /// Words of a row, padded.
    pub(super) const fn words(self) -> usize {
        let values = match self.word {
            Word::Pair => 2 * STEP,
            Word::Quad => 4 * STEP,
        };
        self.inner.div_ceil(values) * STEP
    }

    pub(super) const fn panels(self) -> usize {
        self.cols.div_ceil(PANEL)
    }

    pub(super) const fn left_len(self) -> usize {
        self.rows.next_multiple_of(ROWS) * self.words()
    }

    pub(super) const fn panel_len(self) -> usize {
        self.words() * PANEL
    }
}

/// `x` `[rows, inner]` as pairs.
pub(super) fn left_pairs(out: &mut Vec<u32>, x: View<'_>, shape: Shape) {
    let words = shape.words();
    out.resize(shape.left_len(), 0);
    let tasks = out.par_chunks_mut(ROWS * words).enumerate();
    tasks.for_each(|(block, out)| {
        for (i, out) in out.chunks_exact_mut(words).enumerate() {
            let row = x.row(block * ROWS + i).unwrap_or_default();
            let (lines, _) = out.as_chunks_mut::<STEP>();
            for (step, line) in lines.iter_mut().enumerate() {
                // SAFETY: the instructions are present.
                *line = unsafe { pairs(rest(row, 2 * STEP * step)) };
            }
        }
    });
}

/// `x` `[rows, inner]` as quads raised by [`BIAS`], and the scale of each row.
///
/// A row with an infinity or NaN has no finite scale, so that it stays visible in every product.
pub(super) fn left_quads(out: &mut Vec<u32>, scales: &mut Vec<f32>, x: View<'_>, shape: Shape) {
    let words = shape.words();
    out.resize(shape.left_len(), 0);
    scales.resize(shape.rows.next_multiple_of(ROWS), 0.0);
    let tasks = out
        .par_chunks_mut(ROWS * words)
        .zip(scales.par_chunks_mut(ROWS));
    tasks.enumerate().for_each(|(block, (out, scales))| {
        for (i, (out, own)) in out.chunks_exact_mut(words).zip(scales).enumerate() {
            let row = x.row(block * ROWS + i).unwrap_or_default();
            *own = quads(out, row, BIAS);
        }
    });
}

/// Returns the scale.
fn quads(out: &mut [u32], row: &[f32], bias: i32) -> f32 {
    // SAFETY: the instructions are present.
    let scale = unsafe { scale(row) };
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let (lines, _) = out.as_chunks_mut::<STEP>();
    for (step, line) in lines.iter_mut().enumerate() {
        // SAFETY: as above.
        *line = unsafe { bytes(rest(row, 4 * STEP * step), inverse, bias) };
    }
    scale
}

/// What is left of a row from `first` on.
fn rest(row: &[f32], first: usize) -> &[f32] {
    row.get(first..).unwrap_or_default()
}

/// The panels of `wᵀ`, `w` `[cols, inner]`, as pairs.
pub(super) fn panels_of_transposed(out: &mut Vec<u32>, w: View<'_>, shape: Shape) {
    out.resize(shape.panels() * shape.panel_len(), 0);
    let tasks = out.par_chunks_mut(shape.panel_len()).enumerate();
    tasks.for_each(|(panel, out)| {
        for half in 0..PANEL / STEP {
            let row = |i: usize| w.row(panel * PANEL + half * STEP + i).unwrap_or_default();
            for (step, out) in out.chunks_exact_mut(STEP * PANEL).enumerate() {
                // SAFETY: the instructions are present.
                let lines =
                    std::array::from_fn(|i| unsafe { pairs(rest(row(i), 2 * STEP * step)) });
                place(out, half, &lines);
            }
        }
    });
}

/// The panels of `wᵀ`, `w` `[cols, inner]`, as quads; the scale of each column and its sum.
pub(super) fn panels_of_quads(
    out: &mut Vec<u32>,
    columns: &mut Vec<Column>,
    w: View<'_>,
    shape: Shape,
) {
    let words = shape.words();
    out.resize(shape.panels() * shape.panel_len(), 0);
    columns.resize(shape.panels() * PANEL, Column::default());
    let tasks = out
        .par_chunks_mut(shape.panel_len())
        .zip(columns.par_chunks_mut(PANEL));
    tasks.enumerate().for_each(|(panel, (out, columns))| {
        let mut rows = vec![0u32; STEP * words];
        for half in 0..PANEL / STEP {
            for (i, words) in rows.chunks_exact_mut(words).enumerate() {
                let row = w.row(panel * PANEL + half * STEP + i).unwrap_or_default();
                columns[half * STEP + i] = Column {
                    scale: quads(words, row, 0),
                    // SAFETY: the instructions are present.
                    sum: unsafe { bytes_sum(words) },
                };
            }
            for (step, out) in out.chunks_exact_mut(STEP * PANEL).enumerate() {
                let line = |i: usize| rows[i * words + step * STEP..].first_chunk::<STEP>();
                let lines = std::array::from_fn(|i| line(i).copied().unwrap_or_default());
                place(out, half, &lines);
            }
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

/// The panels of `w` `[inner, cols]` itself, as pairs.
pub(super) fn panels(out: &mut Vec<u32>, w: View<'_>, shape: Shape) {
    out.resize(shape.panels() * shape.panel_len(), 0);
    let tasks = out.par_chunks_mut(shape.panel_len()).enumerate();
    tasks.for_each(|(panel, out)| {
        let row = |row: usize| rest(w.row(row).unwrap_or_default(), panel * PANEL);
        let (lines, _) = out.as_chunks_mut::<PANEL>();
        for (word, line) in lines.iter_mut().enumerate() {
            let (low, high) = (row(2 * word), row(2 * word + 1));
            let (halves, _) = line.as_chunks_mut::<STEP>();
            for (half, to) in halves.iter_mut().enumerate() {
                // SAFETY: the instructions are present.
                *to = unsafe { zipped(rest(low, half * STEP), rest(high, half * STEP)) };
            }
        }
    });
}

/// Writes a block of lines, transposed, into one half of 16 lines of a panel.
fn place(out: &mut [u32], half: usize, lines: &[[u32; STEP]; STEP]) {
    // SAFETY: the instructions are present.
    let turned = unsafe { transposed(lines) };
    for (line, words) in out.chunks_exact_mut(PANEL).zip(&turned) {
        line[half * STEP..][..STEP].copy_from_slice(words);
    }
}

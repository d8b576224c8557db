//! Products in blocks of words, with tiles or dot-product instructions.
#![expect(
    unsafe_code,
    clippy::indexing_slicing,
    reason = "blocks of the result are written by pointer; each lies inside it, and no two overlap"
)]

use rayon::prelude::*;

use super::dots;
use super::tiles::Tiles;
use super::words::{
    BIAS, Column, PANEL, ROWS, Shape, Word, left_pairs, left_quads, panels, panels_of_quads,
    panels_of_transposed,
};
use crate::kernel::{Compute, Unit};
use crate::ops::product::{Into, View, ViewMut};

/// Blocks of rows, and panels, of one task: 256 rows of the left operand stay in the second-level
/// cache while a few panels pass by.
const TASK_BLOCKS: usize = 8;
const TASK_PANELS: usize = 4;

/// Buffers that are used again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    left: Vec<u32>,
    scales: Vec<f32>,
    panels: Vec<u32>,
    columns: Vec<Column>,
}

/// `y ← x · wᵀ`, `w` `[outputs, inputs]`.
pub(super) fn forward(
    y: ViewMut<'_>,
    x: View<'_>,
    w: View<'_>,
    compute: Compute,
    unit: Unit,
    scratch: &mut Scratch,
) {
    assert!(x.cols() == w.cols(), "shapes of a product must match");
    let word = match compute {
        Compute::Int8 => Word::Quad,
        _ => Word::Pair,
    };
    let shape = Shape {
        rows: x.rows(),
        inner: x.cols(),
        cols: w.rows(),
        word,
    };
    let Scratch {
        left,
        scales,
        panels,
        columns,
    } = scratch;
    let undo = match word {
        Word::Pair => {
            left_pairs(left, x, shape);
            panels_of_transposed(panels, w, shape);
            None
        }
        Word::Quad => {
            left_quads(left, scales, x, shape);
            panels_of_quads(panels, columns, w, shape);
            Some((scales.as_slice(), columns.as_slice()))
        }
    };
    Product {
        shape,
        left,
        panels,
        undo,
        unit,
    }
    .run(y, Into::Overwrite);
}

/// `dx ← dy · w` (or added to it), `w` `[outputs, inputs]`.
pub(super) fn backward(
    dx: ViewMut<'_>,
    dy: View<'_>,
    w: View<'_>,
    into: Into,
    unit: Unit,
    scratch: &mut Scratch,
) {
    assert!(dy.cols() == w.rows(), "shapes of a product must match");
    let shape = Shape {
        rows: dy.rows(),
        inner: w.rows(),
        cols: w.cols(),
        word: Word::Pair,
    };
    left_pairs(&mut scratch.left, dy, shape);
    panels(&mut scratch.panels, w, shape);
    Product {
        shape,
        left: &scratch.left,
        panels: &scratch.panels,
        undo: None,
        unit,
    }
    .run(dx, into);
}

/// Both operands in words.
struct Product<'a> {
    shape: Shape,
    left: &'a [u32],
    panels: &'a [u32],
    /// Scales of rows, and of columns with their sums, where the words are integers.
    undo: Option<(&'a [f32], &'a [Column])>,
    unit: Unit,
}

/// The destination, shared by tasks that write different blocks of it.
#[derive(Clone, Copy)]
struct Destination {
    data: *mut f32,
    stride: usize,
    into: Into,
}

// SAFETY: every task writes blocks of its own; see `Product::run`.
unsafe impl Sync for Destination {}

impl Product<'_> {
    fn run(&self, mut y: ViewMut<'_>, into: Into) {
        let shape = self.shape;
        assert!(
            y.rows() == shape.rows && y.cols() == shape.cols,
            "shapes of a product must match"
        );
        assert!(
            self.left.len() >= shape.left_len()
                && self.panels.len() >= shape.panels() * shape.panel_len(),
            "operands must be whole"
        );
        let y = Destination {
            stride: y.row_stride(),
            data: y.as_mut_ptr(),
            into,
        };
        let blocks = shape.rows.div_ceil(ROWS);
        let down = blocks.div_ceil(TASK_BLOCKS);
        let across = shape.panels().div_ceil(TASK_PANELS);
        let tasks = (0..down * across).into_par_iter().with_max_len(1);
        tasks.for_each(|task| {
            let (row, column) = (task % down * TASK_BLOCKS, task / down * TASK_PANELS);
            // SAFETY: a unit is only chosen where it is present (`Kernel::best`, `Kernel::named`).
            let tiles = (self.unit == Unit::Amx).then(|| unsafe { Tiles::configured() });
            for panel in column..(column + TASK_PANELS).min(shape.panels()) {
                for block in row..(row + TASK_BLOCKS).min(blocks) {
                    self.block(tiles.as_ref(), &y, block, panel);
                }
            }
        });
    }

    /// One block of [`ROWS`] × [`PANEL`] results.
    fn block(&self, tiles: Option<&Tiles>, y: &Destination, block: usize, panel: usize) {
        let shape = self.shape;
        let (first, column) = (block * ROWS, panel * PANEL);
        let rows = ROWS.min(shape.rows - first);
        let cols = PANEL.min(shape.cols - column);
        let left = &self.left[first * shape.words()..][..ROWS * shape.words()];
        let panel = &self.panels[panel * shape.panel_len()..][..shape.panel_len()];
        // SAFETY: inside the destination, whose every row holds `cols` values from `column` on.
        let corner = unsafe { y.data.add(first * y.stride + column) };
        let compute = |c: *mut u32, stride: usize| {
            let (left, panel, words) = (left.as_ptr(), panel.as_ptr(), shape.words());
            // SAFETY: operands are whole blocks, sliced above; `c` has room for one; the unit is here.
            unsafe {
                match tiles {
                    Some(tiles) => tiles.block(shape.word, c, stride, left, panel, words),
                    None => dots::block(shape.word, c, stride, left, panel, words),
                }
            }
        };
        let whole = rows == ROWS && cols == PANEL;
        if whole && self.undo.is_none() && y.into == Into::Overwrite {
            compute(corner.cast(), y.stride);
            return;
        }
        let mut own = Block([0; ROWS * PANEL]);
        compute(own.0.as_mut_ptr(), PANEL);
        for (i, own) in own.0.chunks_exact(PANEL).take(rows).enumerate() {
            // SAFETY: row `first + i` of the destination, whose blocks no other task touches.
            let out = unsafe { std::slice::from_raw_parts_mut(corner.add(i * y.stride), cols) };
            match self.undo {
                Some((scales, columns)) => {
                    let (scale, columns) = (scales[first + i], &columns[column..][..cols]);
                    for ((out, own), column) in out.iter_mut().zip(own).zip(columns) {
                        let sum = own.cast_signed() - BIAS * column.sum;
                        *out = sum as f32 * (scale * column.scale);
                    }
                }
                None if y.into == Into::Add => {
                    let pairs = out.iter_mut().zip(own);
                    pairs.for_each(|(out, own)| *out += f32::from_bits(*own));
                }
                None => {
                    let pairs = out.iter_mut().zip(own);
                    pairs.for_each(|(out, own)| *out = f32::from_bits(*own));
                }
            }
        }
    }
}

/// Results that do not go straight to their place; aligned for whole stores.
#[repr(align(64))]
struct Block([u32; ROWS * PANEL]);

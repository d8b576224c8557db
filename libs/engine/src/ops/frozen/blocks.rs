//! The blocks of one product of words, dealt to threads.
#![expect(
    unsafe_code,
    clippy::indexing_slicing,
    reason = "blocks of the result are written by pointer; each lies inside it, and no two overlap"
)]

use rayon::prelude::*;

use super::dots;
use super::tiles::Tiles;
use super::words::{BIAS, Column, PANEL, ROWS, Shape};
use crate::kernel::Unit;
use crate::ops::product::{Into, ViewMut};

/// Blocks of rows, and panels, of one task: 256 rows of the left operand stay in the second-level
/// cache while a few panels pass by.
const TASK_BLOCKS: usize = 8;
const TASK_PANELS: usize = 4;

/// Both operands in words.
pub(super) struct Product<'a> {
    shape: Shape,
    /// Words from one row of `left` to the next.
    pitch: usize,
    left: &'a [u32],
    right: &'a [u32],
    unit: Unit,
    /// Scales of rows, and of columns with their sums, where the words are integers.
    pub(super) undo: Option<(&'a [f32], &'a [Column])>,
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

impl<'a> Product<'a> {
    /// Operands of floating-point words.
    pub(super) const fn new(shape: Shape, left: &'a [u32], right: &'a [u32], unit: Unit) -> Self {
        Self {
            shape,
            pitch: shape.words,
            left,
            right,
            unit,
            undo: None,
        }
    }

    /// As [`Product::run`], overwriting, where the rows of the left operand lie `pitch` words apart.
    pub(super) fn run_pitched(mut self, y: ViewMut<'_>, pitch: usize) {
        self.pitch = pitch;
        self.run(y, Into::Overwrite);
    }

    /// Computes the product into `y`.
    ///
    /// # Panics
    /// The shapes do not match.
    pub(super) fn run(&self, mut y: ViewMut<'_>, into: Into) {
        let shape = self.shape;
        assert!(
            y.rows() == shape.rows && y.cols() == shape.cols,
            "shapes of a product must match"
        );
        assert!(
            self.pitch >= shape.words
                && self.left.len() >= shape.rows.next_multiple_of(ROWS) * self.pitch
                && self.right.len() >= shape.panels() * shape.panel_len(),
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
        let left = &self.left[first * self.pitch..][..ROWS * self.pitch];
        let right = &self.right[panel * shape.panel_len()..][..shape.panel_len()];
        // SAFETY: inside the destination, whose every row holds `cols` values from `column` on.
        let corner = unsafe { y.data.add(first * y.stride + column) };
        let compute = |c: *mut u32, stride: usize| {
            let (left, pitch) = (left.as_ptr(), self.pitch);
            let (right, words) = (right.as_ptr(), shape.words);
            // SAFETY: operands are whole blocks, sliced above; `c` has room for one; the unit is here.
            unsafe {
                match tiles {
                    Some(tiles) => {
                        tiles.block(shape.word, (c, stride), (left, pitch), right, words)
                    }
                    None => dots::block(shape.word, (c, stride), (left, pitch), right, words),
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

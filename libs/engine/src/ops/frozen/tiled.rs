//! Products in blocks of words, with tiles or dot-product instructions.

use std::ops::Range;

use super::aligned::Aligned;
use super::blocks::Product;
use super::words::{
    Column, Shape, Word, left_pairs, left_quads, panels, panels_of_quads, panels_of_transposed,
};
use super::{Beside, Into, Way};
use crate::kernel::Unit;
use crate::ops::product::{View, ViewMut};

/// Buffers that are used again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    left: Aligned,
    right: Aligned,
    scales: Vec<f32>,
    columns: Vec<Column>,
}

/// `y ← x · wᵀ`, both rounded to bf16; `w` `[outputs, inputs]`.
pub(super) fn forward(y: ViewMut<'_>, x: View<'_>, w: View<'_>, unit: Unit, scratch: &mut Scratch) {
    let shape = shape(x, w.rows(), &[x.cols()]);
    let all = 0..shape.words;
    let (left, right) = operands(scratch, shape);
    left_pairs(left, x, shape, &all);
    panels_of_transposed(right, w, shape, &all);
    Product::new(shape, left, right, unit).run(y, Into::Overwrite);
}

/// `y ← x · wᵀ`, both rounded to 8-bit integers.
pub(super) fn forward_quads(
    y: ViewMut<'_>,
    x: View<'_>,
    w: View<'_>,
    unit: Unit,
    scratch: &mut Scratch,
) {
    let shape = Shape {
        rows: x.rows(),
        words: Word::Quad.words(x.cols()),
        cols: w.rows(),
        word: Word::Quad,
    };
    let left = scratch.left.take(shape.left_len());
    let right = scratch.right.take(shape.panels() * shape.panel_len());
    left_quads(left, &mut scratch.scales, x, shape);
    panels_of_quads(right, &mut scratch.columns, w, shape);
    let mut product = Product::new(shape, left, right, unit);
    product.undo = Some((&scratch.scales, &scratch.columns));
    product.run(y, Into::Overwrite);
}

/// `dx ← dy · w` (or added to it), both rounded to bf16; `w` `[outputs, inputs]`.
pub(super) fn backward(
    dx: ViewMut<'_>,
    dy: View<'_>,
    w: View<'_>,
    into: Into,
    unit: Unit,
    scratch: &mut Scratch,
) {
    let shape = shape(dy, w.cols(), &[w.rows()]);
    let all = 0..shape.words;
    let (left, right) = operands(scratch, shape);
    left_pairs(left, dy, shape, &all);
    panels(right, w, shape, &all);
    Product::new(shape, left, right, unit).run(dx, into);
}

/// Forward `low ← x · aᵀ`, then `y ← x · wᵀ + low · bᵀ`; backward `low ← x · b`, then
/// `y ← x · w + low · a`, with gradients as `x`, `low` and `y`. All rounded to bf16.
pub(super) fn beside(
    way: Way,
    (y, mut low): (ViewMut<'_>, ViewMut<'_>),
    x: View<'_>,
    w: View<'_>,
    Beside { a, b }: Beside<'_>,
    (unit, scratch): (Unit, &mut Scratch),
) {
    let (pack, cols, first, second): (Pack, _, _, _) = match way {
        Way::Forward => (panels_of_transposed, w.rows(), a, b),
        Way::Backward => (panels, w.cols(), b, a),
    };
    let shape = shape(x, cols, &[x.cols(), low.cols()]);
    let own = 0..Word::Pair.words(x.cols());
    let side = own.end..shape.words;
    let (left, right) = operands(scratch, shape);
    left_pairs(left, x, shape, &own);

    let narrow = Shape {
        words: own.end,
        cols: low.cols(),
        ..shape
    };
    let factor = narrow.whole(right);
    pack(factor, first, narrow, &own);
    Product::new(narrow, left, factor, unit).run_pitched(low.reborrow(), shape.words);

    left_pairs(left, low.view(), shape, &side);
    pack(right, w, shape, &own);
    pack(right, second, shape, &side);
    Product::new(shape, left, right, unit).run(y, Into::Overwrite);
}

/// Brings a segment of the right operand into panels.
type Pack = fn(&mut [u32], View<'_>, Shape, &Range<usize>);

/// The shape of a product of pairs whose inner dimension has these segments.
fn shape(left: View<'_>, cols: usize, segments: &[usize]) -> Shape {
    Shape {
        rows: left.rows(),
        words: segments.iter().map(|inner| Word::Pair.words(*inner)).sum(),
        cols,
        word: Word::Pair,
    }
}

/// Room for both operands; `right` has room for a narrower product of the same operand too.
fn operands(scratch: &mut Scratch, shape: Shape) -> (&mut [u32], &mut [u32]) {
    let left = scratch.left.take(shape.left_len());
    let right = scratch.right.take(shape.panels() * shape.panel_len());
    (left, right)
}

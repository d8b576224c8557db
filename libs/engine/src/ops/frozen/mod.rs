//! Products with a frozen matrix, in the arithmetic of a kernel. There is no other way to multiply
//! by frozen weights, and no gradient of them.
//!
//! A matrix is decoded and brought into the kernel's order each time it is used: for a batch of
//! tokens that costs a few percent of the product, and the weights are held once, in whatever
//! precision the plan chose. Each element of a result is summed by one thread in one order.

#[cfg(target_arch = "x86_64")]
mod aligned;
#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg(target_arch = "x86_64")]
mod dots;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod needs;
mod rounded;
#[cfg(target_arch = "x86_64")]
mod tiled;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod words;

use std::ops::Range;

pub(crate) use needs::Needs;

use super::Table;
use super::product::{Into, View, ViewMut, multiply};
use crate::kernel::{Compute, Kernel, Unit};

#[cfg(target_arch = "x86_64")]
pub(crate) use tiles::are_available as tiles_are_available;

/// Rows of a product below which it is done in `f32` whatever the kernel: bringing a matrix into
/// another order for a token or two takes longer than multiplying by it.
const FEW: usize = 8;

/// A frozen matrix, `[outputs, inputs]`, and the arithmetic of products with it.
#[derive(Debug)]
pub struct Frozen<'a, T> {
    /// Its rows are the outputs.
    pub weight: &'a T,
    /// How it is multiplied by.
    pub kernel: Kernel,
}

impl<T> Clone for Frozen<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Frozen<'_, T> {}

/// A low-rank change beside a frozen weight.
#[derive(Debug, Clone, Copy)]
pub struct Beside<'a> {
    /// `[rank, inputs]`
    pub a: View<'a>,
    /// `[outputs, rank]`, scaled.
    pub b: View<'a>,
}

impl<T> Frozen<'_, T> {
    /// Whether the matrix is brought into another order for a product with so many tokens, which costs
    /// the less the more there are.
    #[must_use]
    pub const fn prefers_many(&self, tokens: usize) -> bool {
        cfg!(target_arch = "x86_64")
            && matches!(self.kernel.unit(), Unit::Avx512Dot | Unit::Amx)
            && tokens >= FEW
    }

    /// Whether [`beside`] is faster for so many tokens than the product and the change by themselves.
    #[must_use]
    pub const fn takes_beside(&self, tokens: usize, way: Way) -> bool {
        let words = self.prefers_many(tokens);
        match way {
            Way::Forward => words && matches!(self.kernel.compute(), Compute::Bf16),
            Way::Backward => words,
        }
    }
}

/// Which way a product goes: from inputs to outputs, or from the outputs' gradient to the inputs'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `x · weightᵀ`
    Forward,
    /// `dy · weight`
    Backward,
}

/// Buffers that products use again.
#[derive(Debug, Default)]
pub struct Scratch {
    decoded: Vec<f32>,
    /// The caller's, for the `b` of [`Beside`].
    pub(super) joined: Vec<f32>,
    rounded: rounded::Scratch,
    #[cfg(target_arch = "x86_64")]
    tiled: tiled::Scratch,
}

/// `y` `[tokens, range]` ← `x` `[tokens, inputs]` · `weight[range]ᵀ`.
///
/// # Errors
/// The rows cannot be decoded.
///
/// # Panics
/// The shapes do not match.
pub fn forward<T: Table>(
    y: ViewMut<'_>,
    x: View<'_>,
    frozen: Frozen<'_, T>,
    range: Range<usize>,
    scratch: &mut Scratch,
) -> Result<(), T::Error> {
    let Frozen { weight, kernel } = frozen;
    let count = range.len();
    let rows = weight.rows(range, &mut scratch.decoded)?;
    let w = View::new(rows, count, weight.width());
    match (kernel.compute(), kernel.unit()) {
        (Compute::F32, _) => multiply(y, x, w.t(), 1.0, Into::Overwrite),
        _ if x.rows() < FEW => multiply(y, x, w.t(), 1.0, Into::Overwrite),
        #[cfg(target_arch = "x86_64")]
        (compute, unit @ (Unit::Avx512Dot | Unit::Amx)) => match compute {
            Compute::Int8 => tiled::forward_quads(y, x, w, unit, &mut scratch.tiled),
            _ => tiled::forward(y, x, w, unit, &mut scratch.tiled),
        },
        (Compute::Bf16, _) => rounded::pairs(y, x, w.t(), Into::Overwrite, &mut scratch.rounded),
        (Compute::Int8, _) => rounded::quads(y, x, w, &mut scratch.rounded),
    }
    Ok(())
}

/// A product and the change beside it as one. Forward: `low` `[tokens, rank]` ← `x · aᵀ`, then
/// `y ← x · weightᵀ + low · bᵀ`. Backward: `low ← x · b`, then `y ← x · weight + low · a`, where `x` is the
/// gradient of the output, `low` that of the forward's and `y` that of the input.
///
/// # Errors
/// The weight cannot be decoded.
///
/// # Panics
/// The shapes do not match, or the kernel does not take it: see [`Frozen::takes_beside`].
pub fn beside<T: Table>(
    way: Way,
    (y, low): (ViewMut<'_>, ViewMut<'_>),
    x: View<'_>,
    frozen: Frozen<'_, T>,
    change: Beside<'_>,
    scratch: &mut Scratch,
) -> Result<(), T::Error> {
    assert!(
        frozen.takes_beside(x.rows(), way),
        "the kernel takes no change beside its product"
    );
    #[cfg(target_arch = "x86_64")]
    {
        let (outputs, inputs) = (frozen.weight.count(), frozen.weight.width());
        let rows = frozen.weight.rows(0..outputs, &mut scratch.decoded)?;
        let w = View::new(rows, outputs, inputs);
        let with = (frozen.kernel.unit(), &mut scratch.tiled);
        tiled::beside(way, (y, low), x, w, change, with);
    }
    Ok(())
}

/// `dx` `[tokens, inputs]` ← (or added to it) `dy` `[tokens, range]` · `weight[range]`.
///
/// # Errors
/// The rows cannot be decoded.
///
/// # Panics
/// The shapes do not match.
pub fn backward<T: Table>(
    dx: ViewMut<'_>,
    dy: View<'_>,
    frozen: Frozen<'_, T>,
    range: Range<usize>,
    into: Into,
    scratch: &mut Scratch,
) -> Result<(), T::Error> {
    let Frozen { weight, kernel } = frozen;
    let count = range.len();
    let rows = weight.rows(range, &mut scratch.decoded)?;
    let w = View::new(rows, count, weight.width());
    match (kernel.compute(), kernel.unit()) {
        (Compute::F32, _) => multiply(dx, dy, w, 1.0, into),
        _ if dy.rows() < FEW => multiply(dx, dy, w, 1.0, into),
        #[cfg(target_arch = "x86_64")]
        (_, unit @ (Unit::Avx512Dot | Unit::Amx)) => {
            tiled::backward(dx, dy, w, into, unit, &mut scratch.tiled);
        }
        _ => rounded::pairs(dx, dy, w, into, &mut scratch.rounded),
    }
    Ok(())
}

#[cfg(test)]
mod tests;

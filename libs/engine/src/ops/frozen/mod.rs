//! Products with a frozen matrix, in the arithmetic of a kernel. There is no other way to multiply
//! by frozen weights, and no gradient of them.
//!
//! A matrix is decoded and brought into the kernel's order each time it is used: for a batch of
//! tokens that costs a few percent of the product, and the weights are held once, in whatever
//! precision the plan chose. Each element of a result is summed by one thread in one order.

#[cfg(target_arch = "x86_64")]
mod dots;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod rounded;
#[cfg(target_arch = "x86_64")]
mod tiled;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod words;

use std::ops::Range;

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

/// Buffers that products use again.
#[derive(Debug, Default)]
pub struct Scratch {
    decoded: Vec<f32>,
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
        (compute, unit @ (Unit::Avx512Dot | Unit::Amx)) => {
            tiled::forward(y, x, w, compute, unit, &mut scratch.tiled);
        }
        (Compute::Bf16, _) => rounded::pairs(y, x, w.t(), Into::Overwrite, &mut scratch.rounded),
        (Compute::Int8, _) => rounded::quads(y, x, w, &mut scratch.rounded),
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

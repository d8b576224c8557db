//! The few operations that models are made of, each a file with forward and explicit backward.
//!
//! All work on row-major `f32` slices in the flat layout `[tokens, width]`; only attention knows
//! where one row of a batch ends and the next begins, so that rows of different lengths need no
//! padding. What a backward needs is a parameter of it: either kept from the forward or computed
//! again by the caller. No reduction is ever split by thread, so results do not depend on the
//! number of threads; and lanes of a reduction are fixed, so they do not depend on the width of
//! the vector unit.
//!
//! Kernels index slices whose shapes are stated and asserted at their entry.

pub mod product;

pub mod activation;
pub mod attention;
pub mod choice;
pub mod cross_entropy;
pub(crate) mod dropout;
pub mod embedding;
pub mod frozen;
pub mod gelu;
pub(crate) mod head_norm;
pub mod heads;
pub mod layer_norm;
pub(crate) mod lora_abreast;
pub(crate) mod lora_dropped;
pub mod lora_linear;
pub mod rms_norm;
pub mod side_term;
pub mod swiglu;

mod simd;

pub(crate) use simd::{Kernel, wide};

#[cfg(test)]
pub(crate) mod check;

use std::ops::Range;

/// A frozen matrix `[count, width]` read by rows: as it lies in memory, or decoded when used.
pub trait Table: Sync {
    /// Why rows cannot be decoded.
    type Error;

    /// Number of rows.
    fn count(&self) -> usize;

    /// Values in a row.
    fn width(&self) -> usize;

    /// The rows of `range`, `[range, width]`; `scratch` holds them where they must be decoded.
    ///
    /// # Errors
    /// The rows cannot be decoded.
    fn rows<'a>(
        &'a self,
        range: Range<usize>,
        scratch: &'a mut Vec<f32>,
    ) -> Result<&'a [f32], Self::Error>;
}

/// A table in plain `f32`.
#[derive(Debug, Clone, Copy)]
pub struct Dense<'a> {
    /// `[count, width]`
    pub data: &'a [f32],
    /// Values in a row.
    pub width: usize,
}

impl Table for Dense<'_> {
    type Error = std::convert::Infallible;

    fn count(&self) -> usize {
        self.data.len() / self.width
    }

    fn width(&self) -> usize {
        self.width
    }

    fn rows<'a>(
        &'a self,
        range: Range<usize>,
        _scratch: &'a mut Vec<f32>,
    ) -> Result<&'a [f32], Self::Error> {
        Ok(self
            .data
            .get(range.start * self.width..range.end * self.width)
            .unwrap_or_default())
    }
}

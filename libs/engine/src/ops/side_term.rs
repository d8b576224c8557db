//! A frozen low-rank term beside a frozen weight: `y += s·(x·Aᵀ)·Bᵀ` forward, `dx += s·(dy·B)·A` backward.
//!
//! It is a part of the base as far as training goes: there is no gradient of it, no moment, and no adapter
//! has it. It is computed in `f32`, whatever the base is held in.

use super::lora_linear::{Change, Factors};
use super::product::{View, ViewMut};

/// The term of one stack; of rank 0 there is none.
#[derive(Debug, Default)]
pub struct SideTerm {
    factors: Factors,
    scale: f32,
}

impl SideTerm {
    /// A term of these factors and scale.
    #[must_use]
    pub const fn new(factors: Factors, scale: f32) -> Self {
        Self { factors, scale }
    }

    /// Columns of `x·Aᵀ`.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.factors.rank()
    }

    /// Bytes of its factors.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let parts = self.factors.parts.iter();
        size_of_val(self.factors.a.as_slice())
            + parts
                .map(|part| size_of_val(part.b.as_slice()))
                .sum::<usize>()
    }

    /// Adds the term of `x` `[tokens, inputs]` to `y` `[tokens, outputs]`; `low` `[tokens, rank]` is
    /// overwritten.
    pub fn forward(&self, y: &mut [f32], outputs: usize, low: &mut [f32], x: &[f32]) {
        if self.rank() > 0 {
            let tokens = y.len() / outputs;
            let x = View::new(x, tokens, x.len() / tokens.max(1));
            self.change().add(y, outputs, low, x);
        }
    }

    /// Adds the gradient that reaches the input through the term, given that of the output, `dy`
    /// `[tokens, outputs]`; `d_low` `[tokens, rank]` is overwritten.
    pub fn backward(&self, dx: &mut [f32], d_low: &mut [f32], dy: &[f32], outputs: usize) {
        if self.rank() > 0 {
            let tokens = dy.len() / outputs;
            self.change()
                .low_gradient(d_low, View::new(dy, tokens, outputs));
            let inputs = dx.len() / tokens.max(1);
            self.change()
                .add_to_input_gradient(ViewMut::new(dx, tokens, inputs), d_low);
        }
    }

    const fn change(&self) -> Change<'_> {
        Change {
            factors: &self.factors,
            scale: self.scale,
        }
    }
}

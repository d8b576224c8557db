//! As [`super::lora_linear`], where the low-rank change sees an input of which parts are left out (LoRA dropout):
//! `y = x·Wᵀ + s·(d(x)·Aᵀ)·Bᵀ`.
//!
//! PEFT draws a mask for each weight; here the weights of a stack, whose input is the same, share one.

use super::Table;
use super::dropout::Dropout;
use super::frozen::{self, Frozen, Scratch};
use super::lora_linear::{Change, Learned};
use super::product::{Into, View, ViewMut, multiply};

/// `x` `[tokens, inputs]` → `y` `[tokens, outputs]`; `dropped` is d(x), `low` `[tokens, Σ rank]` receives `d(x)·Aᵀ`.
///
/// # Errors
/// The frozen weight cannot be decoded.
///
/// # Panics
/// The slices' lengths do not match.
pub(crate) fn forward<T: Table>(
    (y, low): (&mut [f32], &mut [f32]),
    (x, dropped): (&[f32], &[f32]),
    frozen: Frozen<'_, T>,
    change: Change<'_>,
    scratch: &mut Scratch,
) -> Result<(), T::Error> {
    let (inputs, outputs) = (frozen.weight.width(), frozen.weight.count());
    let tokens = x.len() / inputs;
    let whole = ViewMut::new(y, tokens, outputs);
    let x = View::new(x, tokens, inputs);
    frozen::forward(whole, x, frozen, 0..outputs, scratch)?;
    change.add(y, outputs, low, View::new(dropped, tokens, inputs));
    Ok(())
}

/// The mask of one stack in one pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask {
    pub(crate) dropout: Dropout,
    pub(crate) stream: u64,
}

/// As [`super::lora_linear::backward`]; `learned.x` is d(x), and `d_dropped` `[tokens, inputs]` is overwritten.
///
/// # Errors
/// The frozen weight cannot be decoded.
///
/// # Panics
/// The slices' lengths do not match.
pub(crate) fn backward<T: Table>(
    dx: Option<(&mut [f32], &mut [f32])>,
    dy: &[f32],
    frozen: Frozen<'_, T>,
    mut learned: Learned<'_>,
    mask: Mask,
    scratch: &mut Scratch,
) -> Result<(), T::Error> {
    let (inputs, outputs) = (frozen.weight.width(), frozen.weight.count());
    let tokens = dy.len() / outputs;
    let dy = View::new(dy, tokens, outputs);
    learned.change.low_gradient(learned.d_low, dy);
    if let Some((dx, d_dropped)) = dx {
        let whole = ViewMut::new(dx, tokens, inputs);
        frozen::backward(whole, dy, frozen, 0..outputs, Into::Overwrite, scratch)?;
        let rank = learned.change.factors.rank();
        multiply(
            ViewMut::new(d_dropped, tokens, inputs),
            View::new(learned.d_low, tokens, rank),
            View::new(&learned.change.factors.a, rank, inputs),
            1.0,
            Into::Overwrite,
        );
        mask.dropout.add(dx, d_dropped, mask.stream);
    }
    learned.factors_gradient(dy);
    Ok(())
}

//! The frozen weights of one transformer block.

use domain::adapter::Projection;

use super::Stack;

/// The stacks of a block in forward order, with the projections each holds.
pub(crate) const STACKS: [&[Projection]; 4] = [
    &[Projection::Q, Projection::K, Projection::V],
    &[Projection::O],
    &[Projection::Gate, Projection::Up],
    &[Projection::Down],
];

/// The frozen weights of one block.
pub(crate) struct Block {
    /// `[hidden]`
    pub(crate) attention_norm: Vec<f32>,
    /// `[hidden]`
    pub(crate) feed_forward_norm: Vec<f32>,
    /// As in [`STACKS`].
    pub(crate) stacks: [Stack; 4],
}

impl Block {
    pub(super) fn bytes(&self) -> usize {
        let norms = size_of_val(self.attention_norm.as_slice())
            + size_of_val(self.feed_forward_norm.as_slice());
        norms
            + self
                .stacks
                .iter()
                .map(|stack| stack.matrix.bytes() + stack.side.bytes())
                .sum::<usize>()
    }
}

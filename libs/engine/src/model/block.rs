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
    /// Of queries, keys and values side by side; empty where the family has none.
    pub(crate) biases: Vec<f32>,
    /// Of each head of the queries, and of the keys, `[head size]`; none where the family has none.
    pub(crate) head_norms: Option<[Vec<f32>; 2]>,
    /// As in [`STACKS`].
    pub(crate) stacks: [Stack; 4],
}

impl Block {
    /// Its vectors, in the order in which they are read.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vec<f32>> {
        let always = [&self.attention_norm, &self.feed_forward_norm, &self.biases];
        let heads = self.head_norms.iter().flatten();
        always
            .into_iter()
            .chain(heads)
            .filter(|vector| !vector.is_empty())
    }

    pub(super) fn bytes(&self) -> usize {
        let vectors = self.vectors().map(|vector| size_of_val(vector.as_slice()));
        vectors.sum::<usize>()
            + self
                .stacks
                .iter()
                .map(|stack| stack.matrix.bytes() + stack.side.bytes())
                .sum::<usize>()
    }
}

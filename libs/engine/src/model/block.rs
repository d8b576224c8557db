//! The frozen weights of one transformer block.

use domain::adapter::Projection;

use super::{Norm, Sliding, Stack};

/// The stacks of a block in forward order, with the projections that each may hold: those that the family has.
pub(crate) const STACKS: [&[Projection]; 4] = [
    &[
        Projection::Q,
        Projection::K,
        Projection::V,
        Projection::CAttn,
    ],
    &[Projection::O, Projection::AttnCProj],
    &[Projection::Gate, Projection::Up, Projection::CFc],
    &[Projection::Down, Projection::MlpCProj],
];

/// The frozen weights of one block.
pub(crate) struct Block {
    /// Before attention.
    pub(crate) attention_norm: Norm,
    /// Before the feed-forward network.
    pub(crate) feed_forward_norm: Norm,
    /// Of what each stack gives; empty where it has none.
    pub(crate) biases: [Vec<f32>; 4],
    /// Of each head of the queries, and of the keys, `[head size]`; none where the family has none.
    pub(crate) head_norms: Option<[Vec<f32>; 2]>,
    /// Behind attention, and behind the feed-forward network; none where the family has none.
    pub(crate) post_norms: Option<[Norm; 2]>,
    /// The window and the rotations of a layer that has its own.
    pub(crate) sliding: Option<Sliding>,
    /// As in [`STACKS`].
    pub(crate) stacks: [Stack; 4],
}

impl Block {
    /// One that has stacks alone.
    pub(super) const fn of_stacks(stacks: [Stack; 4]) -> Self {
        Self {
            attention_norm: Norm::NONE,
            feed_forward_norm: Norm::NONE,
            biases: [const { Vec::new() }; 4],
            head_norms: None,
            post_norms: None,
            sliding: None,
            stacks,
        }
    }

    /// Its vectors, in the order in which they are read.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vec<f32>> {
        let norms = [&self.attention_norm, &self.feed_forward_norm];
        fn both(norm: &Norm) -> [&Vec<f32>; 2] {
            [&norm.weight, &norm.bias]
        }
        let heads = self.head_norms.iter().flatten();
        let behind = self.post_norms.iter().flatten().flat_map(both);
        let all = norms.into_iter().flat_map(both).chain(&self.biases);
        all.chain(heads)
            .chain(behind)
            .filter(|vector| !vector.is_empty())
    }

    pub(crate) fn bytes(&self) -> usize {
        let vectors = self.vectors().map(|vector| size_of_val(vector.as_slice()));
        vectors.sum::<usize>()
            + self
                .stacks
                .iter()
                .map(|stack| stack.matrix.bytes() + stack.side.bytes())
                .sum::<usize>()
    }
}

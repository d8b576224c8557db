//! What the forward of a block leaves for its backward.

use super::Workspace;

/// How much of the forward is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing: there will be no backward.
    Nothing,
    /// The inputs of the blocks from this one on; a block is computed again in backward.
    Inputs { from: usize },
    /// Everything that backward reads of them and that is not cheap to compute again.
    All { from: usize },
}

/// What one block leaves. Normalized inputs and the gated product are computed again: they are
/// cheap and large.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The block's input, `[tokens, hidden]`; empty unless anything is kept.
    pub(crate) x: Vec<f32>,
    /// Queries and keys before their heads were normalized, `[tokens, (heads + kv_heads)·size]`; empty where they
    /// are not.
    pub(crate) raw: Vec<f32>,
    /// Rotated queries, keys and values, head-major.
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    /// `[heads, tokens]`
    pub(crate) normalizers: Vec<f32>,
    /// What attention gives, `[tokens, heads·size]`.
    pub(crate) attended: Vec<f32>,
    /// What attention and feed-forward network gave before it was normalized, `[tokens, hidden]`; empty where it is
    /// not.
    pub(crate) behind: [Vec<f32>; 2],
    /// The residual stream between attention and feed-forward, `[tokens, hidden]`.
    pub(crate) middle: Vec<f32>,
    /// Gate and up: `[tokens, 2·intermediate]`, or both rounded, two to a word, `[tokens, intermediate]`.
    pub(crate) gate_up: Vec<f32>,
    /// `x·Aᵀ` of the four stacks.
    pub(crate) low: [Vec<f32>; 4],
}

impl Kept {
    /// Gives the buffers back.
    pub(crate) fn give(self, workspace: &mut Workspace) {
        let Self {
            x,
            raw,
            q,
            k,
            v,
            normalizers,
            attended,
            behind,
            middle,
            gate_up,
            low,
        } = self;
        for buffer in [x, raw, q, k, v, normalizers, attended, middle, gate_up]
            .into_iter()
            .chain(behind)
            .chain(low)
        {
            workspace.give(buffer);
        }
    }
}

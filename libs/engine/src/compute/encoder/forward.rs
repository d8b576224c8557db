//! The way up.

use super::super::activations::Kept;
use super::super::forward::{Pass, Trace, add};
use super::super::{Error, Keep, Packed};
use crate::control::Control;
use crate::model::{Block, Encoder, Layer, Norm};
use crate::ops::gelu::Gelu;
use crate::ops::heads::{Cut, cut, merge};
use crate::ops::{activation, attention, embedding, layer_norm};

impl Pass<'_> {
    /// Runs all blocks over the batch.
    pub(super) fn encode(
        &mut self,
        encoder: &Encoder,
        keep: Keep,
        control: &Control,
    ) -> Result<Trace, Error> {
        let mut hidden = self.embedded(encoder)?;
        let mut blocks = Vec::with_capacity(encoder.layers.len());
        let model = self.model;
        let layers = model.blocks().iter().zip(&encoder.layers);
        for (index, (block, layer)) in layers.enumerate() {
            control.block()?;
            let (next, mut kept) = self.encoder_block(index, (block, layer), &hidden)?;
            let input = std::mem::replace(&mut hidden, next);
            match keep {
                Keep::All { from } if index >= from => kept.x = input,
                Keep::Inputs { from } if index >= from => {
                    kept.give(self.workspace);
                    kept = Kept {
                        x: input,
                        ..Kept::default()
                    };
                }
                Keep::Nothing | Keep::Inputs { .. } | Keep::All { .. } => {
                    kept.give(self.workspace);
                    self.workspace.give(input);
                    kept = Kept::default();
                }
            }
            blocks.push(kept);
        }
        Ok(Trace { hidden, blocks })
    }

    /// The normalized sum of each token's row and its place's.
    fn embedded(&mut self, encoder: &Encoder) -> Result<Vec<f32>, Error> {
        let width = self.model.config().hidden;
        let mut x = self.workspace.take(self.packed.tokens.len() * width);
        embedding::forward(&mut x, self.model.embedding(), &self.packed.tokens)?;
        let padding = self.model.config().padding;
        let rows = x.chunks_exact_mut(width);
        for (row, place) in rows.zip(places(self.packed, padding)) {
            let more = encoder.positions.get(place * width..);
            add(row, more.unwrap_or_default());
        }
        let y = self.layer_normed(&x, &encoder.embedding_norm);
        self.workspace.give(x);
        Ok(y)
    }

    /// One block over `x` `[tokens, hidden]`, and what backward reads of it but for `x` itself.
    pub(super) fn encoder_block(
        &mut self,
        index: usize,
        (block, layer): (&Block, &Layer),
        x: &[f32],
    ) -> Result<(Vec<f32>, Kept), Error> {
        let [qkv, o, up, down] = &block.stacks;
        let [qkv_bias, o_bias, up_bias, down_bias] = &layer.biases;
        let mut kept = Kept::default();
        let (mut joined, low_qkv) = self.linear(index, 0, qkv, x)?;
        add_rows(&mut joined, qkv_bias);
        self.attend(&joined, &mut kept);
        self.workspace.give(joined);
        let (mut middle, low_o) = self.linear(index, 1, o, &kept.attended)?;
        add_rows(&mut middle, o_bias);
        add(&mut middle, x);
        let between = self.layer_normed(&middle, &layer.attention_norm);
        kept.middle = middle;

        let (mut inner, low_up) = self.linear(index, 2, up, &between)?;
        add_rows(&mut inner, up_bias);
        let curved = self.curved(&inner);
        kept.gate_up = inner;
        let (mut last, low_down) = self.linear(index, 3, down, &curved)?;
        self.workspace.give(curved);
        add_rows(&mut last, down_bias);
        add(&mut last, &between);
        self.workspace.give(between);
        let y = self.layer_normed(&last, &layer.output_norm);
        // What the last normalization read; an encoder normalizes no heads, whose place this is.
        kept.raw = last;
        kept.low = [low_qkv, low_o, low_up, low_down];
        Ok((y, kept))
    }

    /// Attention of the joined projections, left in `kept`.
    fn attend(&mut self, joined: &[f32], kept: &mut Kept) {
        let (layout, tokens) = (self.model.layout(), self.packed.tokens.len());
        let (heads, size) = (layout.heads, layout.size);
        let len = heads * tokens * size;
        kept.q = self.workspace.take(len);
        kept.k = self.workspace.take(len);
        kept.v = self.workspace.take(len);
        let into = Cut {
            q: &mut kept.q,
            k: &mut kept.k,
            v: &mut kept.v,
        };
        cut(into, joined, layout, &self.rope, &self.packed.positions);
        let mut by_head = self.workspace.take(len);
        kept.normalizers = self.workspace.take(heads * tokens);
        attention::whole::forward(
            &mut by_head,
            &mut kept.normalizers,
            (&kept.q, &kept.k, &kept.v),
            layout,
            &self.packed.bounds,
        );
        kept.attended = self.workspace.take(len);
        merge(&mut kept.attended, &by_head, heads, size);
        self.workspace.give(by_head);
    }

    /// The normalized rows of `x`.
    pub(super) fn layer_normed(&mut self, x: &[f32], norm: &Norm) -> Vec<f32> {
        let mut y = self.workspace.take(x.len());
        let both = (norm.weight.as_slice(), norm.bias.as_slice());
        layer_norm::forward(&mut y, x, both, self.model.config().epsilon);
        y
    }

    /// The curve of the feed-forward network.
    pub(super) fn curved(&mut self, x: &[f32]) -> Vec<f32> {
        let mut y = self.workspace.take(x.len());
        activation::forward::<Gelu>(&mut y, x);
        y
    }
}

/// The row of the table of positions that each token adds. Where the table has those of texts behind the number of a token
/// that fills them up, such a token's own is the row of its number and it counts for nothing, as in transformers.
fn places(packed: &Packed, padding: Option<u32>) -> Vec<usize> {
    let Some(filler) = padding else {
        return packed.positions.clone();
    };
    let mut seen = 0;
    let both = packed.tokens.iter().zip(&packed.positions);
    both.map(|(token, position)| {
        if *position == 0 {
            seen = 0;
        }
        if *token != filler {
            seen += 1;
            return filler as usize + seen;
        }
        filler as usize
    })
    .collect()
}

/// Adds `bias` to every row.
fn add_rows(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len().max(1)) {
        add(row, bias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_begin_behind_the_fillers_number_and_fillers_count_for_nothing() {
        let packed = Packed {
            tokens: vec![0, 7, 1, 8, 2, 0, 9],
            positions: vec![0, 1, 2, 3, 4, 0, 1],
            ..Packed::default()
        };
        assert_eq!(places(&packed, None), packed.positions);
        assert_eq!(places(&packed, Some(1)), [2, 3, 1, 4, 5, 2, 3]);
    }
}

//! The forward pass.

use super::activations::{Keep, Kept};
use super::{Changes, Error, Packed, Workspace, norm};
use crate::control::Control;
use crate::model::{Block, Model, Norm, Stack};
use crate::ops::attention::Sight;
use crate::ops::head_norm::{self, Norms};
use crate::ops::heads::{Cut, Layout, Rope, cut, merge};
use crate::ops::lora_abreast;
use crate::ops::lora_dropped::{self, Mask};
use crate::ops::lora_linear;
use crate::ops::{Table, attention, embedding};

/// What all blocks of a pass share.
pub(super) struct Pass<'a> {
    pub(super) model: &'a Model,
    pub(super) changes: Option<&'a Changes>,
    /// Copies of the rows, one after the other, each with a change of its own.
    copies: usize,
    pub(super) packed: &'a Packed,
    pub(super) rope: Rope,
    /// That of the layers with a window.
    pub(super) near: Option<Rope>,
    pub(super) workspace: &'a mut Workspace,
}

/// The residual stream after the last block `[tokens, hidden]`, and what the blocks left.
pub(crate) struct Trace {
    pub(crate) hidden: Vec<f32>,
    pub(crate) blocks: Vec<Kept>,
}

/// Runs all blocks over `packed`.
pub(crate) fn forward(
    model: &Model,
    changes: Option<&Changes>,
    packed: &Packed,
    keep: Keep,
    control: &Control,
    workspace: &mut Workspace,
) -> Result<Trace, Error> {
    decoder(model, "predict tokens")?;
    let mut pass = Pass::new(model, changes, packed, workspace);
    let mut hidden = pass.embed()?;
    let mut blocks = Vec::with_capacity(model.blocks().len());
    for (index, block) in model.blocks().iter().enumerate() {
        control.block()?;
        let (next, mut kept) = pass.block(index, block, &hidden, None)?;
        let input = std::mem::replace(&mut hidden, next);
        match keep {
            Keep::All { from } if index >= from => kept.x = input,
            Keep::Inputs { from } if index >= from => {
                kept.give(pass.workspace);
                kept = Kept {
                    x: input,
                    ..Kept::default()
                };
            }
            Keep::Nothing | Keep::Inputs { .. } | Keep::All { .. } => {
                kept.give(pass.workspace);
                pass.workspace.give(input);
                kept = Kept::default();
            }
        }
        blocks.push(kept);
    }
    Ok(Trace { hidden, blocks })
}

/// Runs all blocks over `packed`, each with a change that is made just before it; keeps nothing.
///
/// `own` holds one block's change, of each of the copies that the rows are: `prepare` is told which block comes and
/// leaves them there.
pub(crate) fn forward_each(
    model: &Model,
    packed: &Packed,
    own: &mut Changes,
    prepare: &mut dyn FnMut(usize, &mut Changes),
    control: &Control,
    workspace: &mut Workspace,
) -> Result<Vec<f32>, Error> {
    decoder(model, "train without gradients")?;
    let mut pass = Pass::new(model, None, packed, workspace);
    let mut hidden = pass.embed()?;
    let (mut rope, mut near) = (pass.rope, pass.near);
    for (index, block) in model.blocks().iter().enumerate() {
        control.block()?;
        prepare(index, own);
        let mut pass = Pass {
            model,
            changes: Some(own),
            copies: own.blocks.len(),
            packed,
            rope,
            near,
            workspace: &mut *workspace,
        };
        let (next, kept) = pass.block(0, block, &hidden, None)?;
        kept.give(pass.workspace);
        pass.workspace.give(std::mem::replace(&mut hidden, next));
        (rope, near) = (pass.rope, pass.near);
    }
    Ok(hidden)
}

/// Keys and values of the tokens seen so far, for one sequence.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// Per block, per key head: `[seen, size]`.
    blocks: Vec<Vec<KeysValues>>,
    seen: usize,
}

#[derive(Debug, Default)]
pub(super) struct KeysValues {
    k: Vec<f32>,
    v: Vec<f32>,
}

/// Runs all blocks over the next tokens of the one sequence in `cache`; gives `[tokens, hidden]`.
pub(crate) fn forward_cached(
    model: &Model,
    changes: Option<&Changes>,
    tokens: &[u32],
    cache: &mut Cache,
    control: &Control,
    workspace: &mut Workspace,
) -> Result<Vec<f32>, Error> {
    decoder(model, "write")?;
    let mut packed = Packed::unlabelled(&[tokens], model.config())?;
    packed
        .positions
        .iter_mut()
        .for_each(|position| *position += cache.seen);
    let context = model.config().context;
    if packed.longest() > context {
        return Err(Error::TooLong {
            row: 0,
            tokens: packed.longest(),
            context,
        });
    }
    cache.blocks.resize_with(model.blocks().len(), Vec::new);
    let mut pass = Pass::new(model, changes, &packed, workspace);
    let mut hidden = pass.embed()?;
    for ((index, block), cache) in model.blocks().iter().enumerate().zip(&mut cache.blocks) {
        control.block()?;
        let (next, kept) = pass.block(index, block, &hidden, Some(cache))?;
        kept.give(pass.workspace);
        pass.workspace.give(std::mem::replace(&mut hidden, next));
    }
    cache.seen += tokens.len();
    Ok(hidden)
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        model: &'a Model,
        changes: Option<&'a Changes>,
        packed: &'a Packed,
        workspace: &'a mut Workspace,
    ) -> Self {
        let config = model.config();
        let (longest, size) = (packed.longest(), config.head_size);
        let learned = config.architecture.facts().learned_positions;
        let rope = match model.encoder() {
            None if !learned => Rope::new(longest, size, config.rope_theta, &config.rope_factors),
            _ => Rope::still(longest, size),
        };
        let near = config.sliding;
        let near = near.map(|near| Rope::new(longest, size, near.theta, &[]));
        workspace.begin(packed.tokens.len());
        Self {
            model,
            changes,
            packed,
            rope,
            near,
            workspace,
            copies: 1,
        }
    }

    fn embed(&mut self) -> Result<Vec<f32>, Error> {
        let model = self.model;
        self.embed_from(model.embedding(), model.positions())
    }

    /// The rows of this table, at these positions where the family has a table of them.
    pub(super) fn embed_from<T: Table<Error = candle_core::Error>>(
        &mut self,
        table: &T,
        positions: &[f32],
    ) -> Result<Vec<f32>, Error> {
        let config = self.model.config();
        let mut x = self
            .workspace
            .take(self.packed.tokens.len() * config.hidden);
        embedding::forward(&mut x, table, &self.packed.tokens)?;
        if config.architecture.facts().scaled_embedding {
            let root = (config.hidden as f32).sqrt();
            x.iter_mut().for_each(|value| *value *= root);
        }
        if !positions.is_empty() {
            let rows = x.chunks_exact_mut(config.hidden);
            for (row, position) in rows.zip(&self.packed.positions) {
                let own = positions.chunks_exact(config.hidden).nth(*position);
                // Invariant: no row is longer than the context, which is the table's length.
                add(row, own.unwrap_or_default());
            }
        }
        Ok(x)
    }

    /// `x + attention(norm(x))`, then `+ feed_forward(norm(·))`. `kept.x` is left to the caller.
    pub(super) fn block(
        &mut self,
        index: usize,
        block: &Block,
        x: &[f32],
        cache: Option<&mut Vec<KeysValues>>,
    ) -> Result<(Vec<f32>, Kept), Error> {
        let mut kept = Kept::default();
        self.attention_half(index, block, x, &mut kept, cache)?;
        let mut y = self.feed_forward_half(index, block, &mut kept)?;
        add(&mut y, &kept.middle);
        Ok((y, kept))
    }

    /// Computes again what backward of a block reads, from the input it kept.
    pub(super) fn again(
        &mut self,
        index: usize,
        block: &Block,
        x: Vec<f32>,
    ) -> Result<Kept, Error> {
        let (y, mut kept) = self.block(index, block, &x, None)?;
        self.workspace.give(y);
        kept.x = x;
        Ok(kept)
    }

    fn attention_half(
        &mut self,
        index: usize,
        block: &Block,
        x: &[f32],
        kept: &mut Kept,
        cache: Option<&mut Vec<KeysValues>>,
    ) -> Result<(), Error> {
        let [qkv, o, ..] = &block.stacks;
        let (layout, tokens) = (self.model.layout(), self.packed.tokens.len());
        let normed = self.normed(x, &block.attention_norm);
        let (mut joined, low_qkv) = self.linear(index, 0, qkv, &normed)?;
        self.workspace.give(normed);
        let [qkv_bias, o_bias, ..] = &block.biases;
        bias(&mut joined, qkv_bias);
        kept.raw = self.norm_heads(&mut joined, block);
        let Layout {
            heads,
            kv_heads,
            size,
        } = layout;
        kept.q = self.workspace.take(heads * tokens * size);
        kept.k = self.workspace.take(kv_heads * tokens * size);
        kept.v = self.workspace.take(kv_heads * tokens * size);
        let into = Cut {
            q: &mut kept.q,
            k: &mut kept.k,
            v: &mut kept.v,
        };
        cut(
            into,
            &joined,
            layout,
            self.rope(block),
            &self.packed.positions,
        );
        self.workspace.give(joined);

        let mut by_head = self.workspace.take(heads * tokens * size);
        kept.normalizers = self.workspace.take(heads * tokens);
        match cache {
            None => attention::forward(
                &mut by_head,
                &mut kept.normalizers,
                (&kept.q, &kept.k, &kept.v),
                layout,
                &self.packed.bounds,
                self.sight(block),
            ),
            Some(cache) => attend_cached(&mut by_head, kept, cache, layout, self.sight(block)),
        }
        kept.attended = self.workspace.take(by_head.len());
        merge(&mut kept.attended, &by_head, heads, size);
        self.workspace.give(by_head);
        let (mut out, low_o) = self.linear(index, 1, o, &kept.attended)?;
        bias(&mut out, o_bias);
        let [behind, _] = &mut kept.behind;
        kept.middle = self.normed_behind(out, block, 0, behind);
        add(&mut kept.middle, x);
        let [first, second, ..] = &mut kept.low;
        (*first, *second) = (low_qkv, low_o);
        Ok(())
    }

    fn feed_forward_half(
        &mut self,
        index: usize,
        block: &Block,
        kept: &mut Kept,
    ) -> Result<Vec<f32>, Error> {
        let [.., gate_up, down] = &block.stacks;
        let normed = self.normed(&kept.middle, &block.feed_forward_norm);
        let (mut joined, low_gate_up) = self.linear(index, 2, gate_up, &normed)?;
        self.workspace.give(normed);
        let [.., up_bias, down_bias] = &block.biases;
        bias(&mut joined, up_bias);
        let gated = self.gate(joined, &mut kept.gate_up);
        let (mut out, low_down) = self.linear(index, 3, down, &gated)?;
        self.workspace.give(gated);
        bias(&mut out, down_bias);
        let [_, behind] = &mut kept.behind;
        let y = self.normed_behind(out, block, 1, behind);
        let [.., third, fourth] = &mut kept.low;
        (*third, *fourth) = (low_gate_up, low_down);
        Ok(y)
    }

    /// The normalized rows of `x`.
    pub(super) fn normed(&mut self, x: &[f32], norm: &Norm) -> Vec<f32> {
        let mut y = self.workspace.take(x.len());
        norm::forward(&mut y, x, norm, self.model.config().epsilon);
        y
    }

    /// What a half of a block gave, normalized where the family does so; `before` then receives what it was.
    fn normed_behind(
        &mut self,
        out: Vec<f32>,
        block: &Block,
        half: usize,
        before: &mut Vec<f32>,
    ) -> Vec<f32> {
        let norms = block.post_norms.as_ref();
        let Some(norm) = norms.and_then(|norms| norms.get(half)) else {
            return out;
        };
        let y = self.normed(&out, norm);
        *before = out;
        y
    }

    /// The rotations of a block.
    pub(super) fn rope(&self, block: &Block) -> &Rope {
        let near = self.near.as_ref().filter(|_| block.sliding.is_some());
        near.unwrap_or(&self.rope)
    }

    /// What the queries of a block see.
    pub(super) fn sight(&self, block: &Block) -> Sight {
        Sight {
            scale: self.model.config().scores_by(),
            window: block.sliding.map(|sliding| sliding.window),
        }
    }

    /// The output of a stack and its `x·Aᵀ`.
    pub(super) fn linear(
        &mut self,
        index: usize,
        place: usize,
        stack: &Stack,
        x: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>), Error> {
        let (inputs, outputs) = (stack.matrix.width(), stack.matrix.count());
        let tokens = x.len() / inputs;
        let change = self.changes.and_then(|changes| changes.of(index, place));
        let mut y = self.workspace.take(tokens * outputs);
        let mut low = self
            .workspace
            .take(tokens * change.map_or(0, |change| change.factors.rank()));
        let frozen = self.model.frozen(&stack.matrix);
        match change.zip(self.mask(index, place)) {
            Some((change, mask)) => {
                let dropped = self.dropped(x, mask);
                let (both, scratch) = ((x, &*dropped), &mut self.workspace.ops.products);
                lora_dropped::forward((&mut y, &mut low), both, frozen, change, scratch)?;
                self.workspace.give(dropped);
            }
            None if self.copies > 1 => {
                let all = (0..self.copies).map(|copy| self.changes?.of(copy, place));
                let all: Vec<_> = all.flatten().collect();
                let scratch = &mut self.workspace.ops.products;
                lora_abreast::forward(&mut y, &mut low, x, frozen, &all, scratch)?;
            }
            None => {
                let scratch = &mut self.workspace.ops.products;
                lora_linear::forward(&mut y, &mut low, x, frozen, change, scratch)?;
            }
        }
        let mut side = self.workspace.take(tokens * stack.side.rank());
        stack.side.forward(&mut y, outputs, &mut side, x);
        self.workspace.give(side);
        Ok((y, low))
    }
}

impl Pass<'_> {
    /// Normalizes the heads of queries and keys, where that is done; gives them as they were.
    fn norm_heads(&mut self, joined: &mut [f32], block: &Block) -> Vec<f32> {
        let (layout, tokens) = (self.model.layout(), self.packed.tokens.len());
        let Some(norms) = self.head_norms(block) else {
            return Vec::new();
        };
        let mut raw = self.workspace.take(tokens * head_norm::width(layout));
        head_norm::forward(joined, &mut raw, layout, norms);
        raw
    }

    /// How the heads of a block are normalized, if they are.
    pub(super) fn head_norms<'b>(&self, block: &'b Block) -> Option<Norms<'b>> {
        let [q, k] = block.head_norms.as_ref()?;
        let epsilon = self.model.config().epsilon;
        Some(Norms { q, k, epsilon })
    }

    /// What the change of a stack leaves out of its input in this pass.
    pub(super) fn mask(&self, index: usize, place: usize) -> Option<Mask> {
        let stream = (4 * index + place) as u64;
        let dropout = self.packed.dropout?;
        Some(Mask { dropout, stream })
    }

    /// The input as the change sees it.
    pub(super) fn dropped(&mut self, x: &[f32], mask: Mask) -> Vec<f32> {
        let mut dropped = self.workspace.take(x.len());
        mask.dropout.mask(&mut dropped, x, mask.stream);
        dropped
    }
}

/// Whatever is computed here is a decoder's.
pub(super) fn decoder(model: &Model, what: &'static str) -> Result<(), Error> {
    match model.encoder() {
        None => Ok(()),
        Some(_) => Err(Error::Encoder { what }),
    }
}

fn attend_cached(
    by_head: &mut [f32],
    kept: &mut Kept,
    cache: &mut Vec<KeysValues>,
    layout: Layout,
    sight: Sight,
) {
    let Layout { kv_heads, size, .. } = layout;
    cache.resize_with(kv_heads, KeysValues::default);
    let fresh = kept.k.len() / kv_heads;
    for ((own, k), v) in cache
        .iter_mut()
        .zip(kept.k.chunks_exact(fresh))
        .zip(kept.v.chunks_exact(fresh))
    {
        own.k.extend_from_slice(k);
        own.v.extend_from_slice(v);
    }
    let norms = kept.normalizers.chunks_exact_mut(fresh / size);
    let heads = by_head
        .chunks_exact_mut(fresh)
        .zip(norms)
        .zip(kept.q.chunks_exact(fresh));
    for (head, ((out, norms), q)) in heads.enumerate() {
        if let Some(own) = cache.get(head / layout.group()) {
            attention::attend(out, norms, q, (&own.k, &own.v), size, sight);
        }
    }
}

/// Adds `bias` to every row of `y`, where there is one.
fn bias(y: &mut [f32], bias: &[f32]) {
    if !bias.is_empty() {
        y.chunks_exact_mut(bias.len())
            .for_each(|row| add(row, bias));
    }
}

/// `y += x`.
pub(super) fn add(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

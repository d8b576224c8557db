//! The backward pass: the gradient of the adapter, or a look at what makes that of the frozen weights;
//! never a gradient as large as a weight.

use super::activations::Kept;
use super::forward::{Pass, Trace};
use super::{Changes, Error, Packed, Workspace, norm};
use crate::control::Control;
use crate::model::{Block, Model, Stack};
use crate::ops::Table;
use crate::ops::attention;
use crate::ops::head_norm;
use crate::ops::heads::{Cut, Layout, cut_backward};
use crate::ops::lora_dropped;
use crate::ops::lora_linear::{self, Learned};

/// What is learned on the way back.
pub(crate) enum Learn<'a> {
    /// The gradient of the adapter's factors: overwritten.
    Factors(&'a mut Changes),
    /// Whatever an observer makes of the gradients of the frozen weights.
    Frozen(&'a mut dyn Observe),
}

/// Sees both sides of the product that the gradient of a frozen weight is, and keeps neither.
pub(crate) trait Observe: Send {
    /// The lowest block of which something is to be seen; none: nothing is.
    fn lowest(&self) -> Option<usize>;

    /// Whether something of a stack is to be seen.
    fn wants(&self, block: usize, place: usize) -> bool;

    /// The gradient of the weights of `stack` in a block is `dyᵀ·x`: `dy` `[tokens, outputs]`, `x`
    /// `[tokens, inputs]`.
    fn see(
        &mut self,
        block: usize,
        stack: &Stack,
        dy: &[f32],
        x: &[f32],
        workspace: &mut Workspace,
    );
}

impl Learn<'_> {
    pub(super) fn lowest(&self, changes: Option<&Changes>) -> Option<usize> {
        match self {
            Self::Factors(_) => changes?.lowest(),
            Self::Frozen(observer) => observer.lowest(),
        }
    }
}

/// Learns what `learn` asks for, given `d_hidden` `[tokens, hidden]`, the gradient of the residual
/// stream after the last block. Stops at the lowest block of which something is learned.
#[expect(
    clippy::too_many_arguments,
    reason = "a pass has a model, an adapter, a batch, a trace, and who watches it"
)]
pub(crate) fn backward(
    mut learn: Learn<'_>,
    d_hidden: Vec<f32>,
    trace: Trace,
    model: &Model,
    changes: Option<&Changes>,
    packed: &Packed,
    control: &Control,
    workspace: &mut Workspace,
) -> Result<(), Error> {
    let mut pass = Pass::new(model, changes, packed, workspace);
    pass.workspace.give(trace.hidden);
    let Some(lowest) = learn.lowest(changes) else {
        return Ok(());
    };
    let mut d = d_hidden;
    let blocks = model.blocks().iter().zip(trace.blocks).enumerate();
    for (index, (block, kept)) in blocks.skip(lowest).collect::<Vec<_>>().into_iter().rev() {
        control.block()?;
        let kept = if kept.middle.is_empty() {
            pass.again(index, block, kept.x)?
        } else {
            kept
        };
        d = pass.block_backward(
            Place {
                index,
                block,
                lowest: index == lowest,
            },
            &mut learn,
            d,
            kept,
        )?;
    }
    pass.workspace.give(d);
    Ok(())
}

#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) index: usize,
    pub(super) block: &'a Block,
    /// Whether no gradient is needed below this block.
    pub(super) lowest: bool,
}

impl Pass<'_> {
    /// From the gradient of the block's output to that of its input.
    fn block_backward(
        &mut self,
        at: Place<'_>,
        learn: &mut Learn<'_>,
        d: Vec<f32>,
        mut kept: Kept,
    ) -> Result<Vec<f32>, Error> {
        let gate_up = std::mem::take(&mut kept.gate_up);
        let d = self.feed_forward_backward(at, learn, d, gate_up, &kept)?;
        let d = self.attention_backward(at, learn, d, &kept)?;
        kept.give(self.workspace);
        Ok(d)
    }

    fn feed_forward_backward(
        &mut self,
        at: Place<'_>,
        learn: &mut Learn<'_>,
        mut d: Vec<f32>,
        gate_up: Vec<f32>,
        kept: &Kept,
    ) -> Result<Vec<f32>, Error> {
        let [_, _, low_gate_up, low_down] = &kept.low;
        let behind = self.behind_backward(&d, at.block, 1, kept);
        let gated = self.needed(learn, at, 3).then(|| self.gated(&gate_up));
        let inner = self.model.config().intermediate;
        let mut d_gated = self.workspace.take(self.packed.tokens.len() * inner);
        let x = gated.as_deref();
        let dy = behind.as_deref().unwrap_or(&d);
        self.stack_backward(at, 3, learn, Some(&mut d_gated), dy, (x, low_down))?;
        self.workspace.give(gated.unwrap_or_default());
        self.workspace.give(behind.unwrap_or_default());

        let gate_up = self.gate_gradient(gate_up, &d_gated);
        self.workspace.give(d_gated);
        let normed = self
            .needed(learn, at, 2)
            .then(|| self.normed(&kept.middle, &at.block.feed_forward_norm));
        let mut d_normed = self.workspace.take(kept.middle.len());
        let x = normed.as_deref();
        self.stack_backward(
            at,
            2,
            learn,
            Some(&mut d_normed),
            &gate_up,
            (x, low_gate_up),
        )?;
        self.workspace.give(normed.unwrap_or_default());
        self.workspace.give(gate_up);
        norm::backward(
            &mut d,
            &d_normed,
            &kept.middle,
            &at.block.feed_forward_norm,
            self.model.config().epsilon,
        );
        self.workspace.give(d_normed);
        Ok(d)
    }

    fn attention_backward(
        &mut self,
        at: Place<'_>,
        learn: &mut Learn<'_>,
        mut d: Vec<f32>,
        kept: &Kept,
    ) -> Result<Vec<f32>, Error> {
        let [low_qkv, low_o, ..] = &kept.low;
        let behind = self.behind_backward(&d, at.block, 0, kept);
        let mut d_attended = self.workspace.take(kept.attended.len());
        let x = Some(kept.attended.as_slice());
        let dy = behind.as_deref().unwrap_or(&d);
        self.stack_backward(at, 1, learn, Some(&mut d_attended), dy, (x, low_o))?;
        self.workspace.give(behind.unwrap_or_default());

        let mut d_joined = self.heads_backward(d_attended, at.block, kept);
        if let Some(norms) = self.head_norms(at.block) {
            head_norm::backward(&mut d_joined, &kept.raw, self.model.layout(), norms);
        }
        let normed = self
            .needed(learn, at, 0)
            .then(|| self.normed(&kept.x, &at.block.attention_norm));
        let x = normed.as_deref();
        if at.lowest {
            self.stack_backward(at, 0, learn, None, &d_joined, (x, low_qkv))?;
        } else {
            let mut d_normed = self.workspace.take(kept.x.len());
            self.stack_backward(at, 0, learn, Some(&mut d_normed), &d_joined, (x, low_qkv))?;
            norm::backward(
                &mut d,
                &d_normed,
                &kept.x,
                &at.block.attention_norm,
                self.model.config().epsilon,
            );
            self.workspace.give(d_normed);
        }
        self.workspace.give(normed.unwrap_or_default());
        self.workspace.give(d_joined);
        Ok(d)
    }

    /// The gradient of what a half of a block gave, from that of what was added to the residual stream; none where the
    /// two are the same.
    fn behind_backward(
        &mut self,
        d: &[f32],
        block: &Block,
        half: usize,
        kept: &Kept,
    ) -> Option<Vec<f32>> {
        let norm = block.post_norms.as_ref()?.get(half)?;
        let x = kept.behind.get(half)?;
        let mut out = self.workspace.take(d.len());
        out.fill(0.0);
        norm::backward(&mut out, d, x, norm, self.model.config().epsilon);
        Some(out)
    }

    /// From the gradient of attention's output to that of the joined projections.
    fn heads_backward(&mut self, d_attended: Vec<f32>, block: &Block, kept: &Kept) -> Vec<f32> {
        let Layout {
            heads,
            kv_heads,
            size,
        } = self.model.layout();
        let tokens = self.packed.tokens.len();
        let mut dq = self.workspace.take(heads * tokens * size);
        let mut dk = self.workspace.take(kv_heads * tokens * size);
        let mut dv = self.workspace.take(kv_heads * tokens * size);
        let saved = attention::Saved {
            q: &kept.q,
            k: &kept.k,
            v: &kept.v,
            out: &kept.attended,
            normalizers: &kept.normalizers,
        };
        attention::backward(
            (&mut dq, &mut dk, &mut dv),
            &d_attended,
            saved,
            self.model.layout(),
            &self.packed.bounds,
            self.sight(block),
        );
        self.workspace.give(d_attended);
        let mut d_joined = self.workspace.take(tokens * self.model.layout().width());
        let from = Cut {
            q: &mut dq,
            k: &mut dk,
            v: &mut dv,
        };
        cut_backward(
            &mut d_joined,
            &from,
            self.model.layout(),
            self.rope(block),
            &self.packed.positions,
        );
        for buffer in [dq, dk, dv] {
            self.workspace.give(buffer);
        }
        d_joined
    }

    /// Whether something is learned at a stack, so that its input is needed again.
    pub(super) fn needed(&self, learn: &Learn<'_>, at: Place<'_>, place: usize) -> bool {
        match learn {
            Learn::Factors(_) => self
                .changes
                .is_some_and(|changes| changes.of(at.index, place).is_some()),
            Learn::Frozen(observer) => observer.wants(at.index, place),
        }
    }

    /// The gradient of a stack's input, where it is asked for, and what is learned there; this reads
    /// the stack's input and its `x·Aᵀ`.
    #[expect(
        clippy::too_many_arguments,
        reason = "where, what is learned there, and both gradients"
    )]
    pub(super) fn stack_backward(
        &mut self,
        at: Place<'_>,
        place: usize,
        learn: &mut Learn<'_>,
        mut dx: Option<&mut [f32]>,
        dy: &[f32],
        (x, low): (Option<&[f32]>, &[f32]),
    ) -> Result<(), Error> {
        let Some(stack) = at.block.stacks.get(place) else {
            // Invariant: `place` is one of the four.
            return Ok(());
        };
        let gradient = match learn {
            Learn::Factors(gradient) => gradient.stack_mut(at.index, place),
            Learn::Frozen(observer) => {
                if let Some(x) = x.filter(|_| observer.wants(at.index, place)) {
                    observer.see(at.index, stack, dy, x, self.workspace);
                }
                None
            }
        };
        let mut d_low = self.workspace.take(low.len());
        let change = self.changes.and_then(|changes| changes.of(at.index, place));
        let mask = self.mask(at.index, place).filter(|_| change.is_some());
        let dropped = mask.zip(x).map(|(mask, x)| self.dropped(x, mask));
        let learned = change.zip(dropped.as_deref().or(x)).zip(gradient);
        let learned = learned.map(|((change, x), gradient)| Learned {
            change,
            x,
            low,
            gradient,
            d_low: &mut d_low,
        });
        let frozen = self.model.frozen(&stack.matrix);
        match (learned, mask) {
            (Some(learned), Some(mask)) => {
                let len = dx.as_deref().map_or(0, <[f32]>::len);
                let mut d_dropped = self.workspace.take(len);
                let both = dx.as_deref_mut().map(|dx| (dx, d_dropped.as_mut_slice()));
                let scratch = &mut self.workspace.ops.products;
                lora_dropped::backward(both, dy, frozen, learned, mask, scratch)?;
                self.workspace.give(d_dropped);
            }
            (learned, _) => {
                let scratch = &mut self.workspace.ops.products;
                lora_linear::backward(dx.as_deref_mut(), dy, frozen, learned, scratch)?;
            }
        }
        self.workspace.give(d_low);
        self.workspace.give(dropped.unwrap_or_default());
        if let Some(dx) = dx {
            let outputs = stack.matrix.count();
            let mut side = self.workspace.take(dy.len() / outputs * stack.side.rank());
            stack.side.backward(dx, &mut side, dy, outputs);
            self.workspace.give(side);
        }
        Ok(())
    }
}

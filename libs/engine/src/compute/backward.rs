//! The backward pass: the gradient of the adapter, and of nothing else.

use super::activations::Kept;
use super::forward::{Pass, Trace, add};
use super::{Changes, Error, Packed, Workspace};
use crate::control::Control;
use crate::model::{Block, Model};
use crate::ops::Table;
use crate::ops::heads::{Cut, Layout, cut_backward};
use crate::ops::lora_linear::{self, Factors, Learned};
use crate::ops::{attention, rms_norm};

/// Overwrites `gradient` by that of `changes`, given `d_hidden` `[tokens, hidden]`, the gradient of
/// the residual stream after the last block. Stops at the lowest adapted block.
#[expect(
    clippy::too_many_arguments,
    reason = "a pass has a model, an adapter, a batch, a trace, and who watches it"
)]
pub(crate) fn backward(
    gradient: &mut Changes,
    d_hidden: Vec<f32>,
    trace: Trace,
    model: &Model,
    changes: &Changes,
    packed: &Packed,
    control: &Control,
    workspace: &mut Workspace,
) -> Result<(), Error> {
    let mut pass = Pass::new(model, Some(changes), packed, workspace);
    pass.workspace.give(trace.hidden);
    let Some(lowest) = changes.lowest() else {
        return Ok(());
    };
    let mut d = d_hidden;
    let blocks = model
        .blocks()
        .iter()
        .zip(trace.blocks)
        .zip(&mut gradient.blocks)
        .enumerate();
    for (index, ((block, kept), gradient)) in
        blocks.skip(lowest).collect::<Vec<_>>().into_iter().rev()
    {
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
            gradient,
            d,
            kept,
        )?;
    }
    pass.workspace.give(d);
    Ok(())
}

#[derive(Clone, Copy)]
struct Place<'a> {
    index: usize,
    block: &'a Block,
    /// Whether no gradient is needed below this block.
    lowest: bool,
}

impl Pass<'_> {
    /// From the gradient of the block's output to that of its input.
    fn block_backward(
        &mut self,
        at: Place<'_>,
        gradient: &mut [Factors; 4],
        d: Vec<f32>,
        mut kept: Kept,
    ) -> Result<Vec<f32>, Error> {
        let gate_up = std::mem::take(&mut kept.gate_up);
        let d = self.feed_forward_backward(at, gradient, d, gate_up, &kept)?;
        let d = self.attention_backward(at, gradient, d, &kept)?;
        kept.give(self.workspace);
        Ok(d)
    }

    fn feed_forward_backward(
        &mut self,
        at: Place<'_>,
        gradient: &mut [Factors; 4],
        mut d: Vec<f32>,
        gate_up: Vec<f32>,
        kept: &Kept,
    ) -> Result<Vec<f32>, Error> {
        let [_, _, low_gate_up, low_down] = &kept.low;
        let gated = self.needed(at, 3).then(|| self.gated(&gate_up));
        let inner = self.model.config().intermediate;
        let mut d_gated = self.workspace.take(self.packed.tokens.len() * inner);
        let x = gated.as_deref();
        self.stack_backward(at, 3, gradient, Some(&mut d_gated), &d, (x, low_down))?;
        self.workspace.give(gated.unwrap_or_default());

        let gate_up = self.gate_gradient(gate_up, &d_gated);
        self.workspace.give(d_gated);
        let normed = self
            .needed(at, 2)
            .then(|| self.normed(&kept.middle, &at.block.feed_forward_norm));
        let mut d_normed = self.workspace.take(kept.middle.len());
        let x = normed.as_deref();
        self.stack_backward(
            at,
            2,
            gradient,
            Some(&mut d_normed),
            &gate_up,
            (x, low_gate_up),
        )?;
        self.workspace.give(normed.unwrap_or_default());
        self.workspace.give(gate_up);
        rms_norm::backward(
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
        gradient: &mut [Factors; 4],
        mut d: Vec<f32>,
        kept: &Kept,
    ) -> Result<Vec<f32>, Error> {
        let [low_qkv, low_o, ..] = &kept.low;
        let mut d_attended = self.workspace.take(kept.attended.len());
        let x = Some(kept.attended.as_slice());
        self.stack_backward(at, 1, gradient, Some(&mut d_attended), &d, (x, low_o))?;

        let d_joined = self.heads_backward(d_attended, kept);
        let normed = self
            .needed(at, 0)
            .then(|| self.normed(&kept.x, &at.block.attention_norm));
        let x = normed.as_deref();
        if at.lowest {
            self.stack_backward(at, 0, gradient, None, &d_joined, (x, low_qkv))?;
        } else {
            let mut d_normed = self.workspace.take(kept.x.len());
            self.stack_backward(
                at,
                0,
                gradient,
                Some(&mut d_normed),
                &d_joined,
                (x, low_qkv),
            )?;
            rms_norm::backward(
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

    /// From the gradient of attention's output to that of the joined projections.
    fn heads_backward(&mut self, d_attended: Vec<f32>, kept: &Kept) -> Vec<f32> {
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
            &self.rope,
            &self.packed.positions,
        );
        for buffer in [dq, dk, dv] {
            self.workspace.give(buffer);
        }
        d_joined
    }

    /// Whether a stack is adapted, so that its input is needed again.
    fn needed(&self, at: Place<'_>, place: usize) -> bool {
        self.changes
            .is_some_and(|changes| changes.of(at.index, place).is_some())
    }

    /// The gradient of a stack's input, where it is asked for, and of its factors, where it has some;
    /// these read the stack's input and its `x·Aᵀ`.
    #[expect(
        clippy::too_many_arguments,
        reason = "where, what is learned there, and both gradients"
    )]
    fn stack_backward(
        &mut self,
        at: Place<'_>,
        place: usize,
        gradient: &mut [Factors; 4],
        mut dx: Option<&mut [f32]>,
        dy: &[f32],
        (x, low): (Option<&[f32]>, &[f32]),
    ) -> Result<(), Error> {
        let (Some(stack), Some(gradient)) = (at.block.stacks.get(place), gradient.get_mut(place))
        else {
            // Invariant: `place` is one of the four.
            return Ok(());
        };
        let mut d_low = self.workspace.take(low.len());
        let change = self.changes.and_then(|changes| changes.of(at.index, place));
        let learned = change.zip(x).map(|(change, x)| Learned {
            change,
            x,
            low,
            gradient,
            d_low: &mut d_low,
        });
        let frozen = self.model.frozen(&stack.matrix);
        let scratch = &mut self.workspace.ops.products;
        lora_linear::backward(dx.as_deref_mut(), dy, frozen, learned, scratch)?;
        self.workspace.give(d_low);
        if let Some(dx) = dx {
            let outputs = stack.matrix.count();
            let mut side = self.workspace.take(dy.len() / outputs * stack.side.rank());
            stack.side.backward(dx, &mut side, dy, outputs);
            self.workspace.give(side);
        }
        Ok(())
    }
}

/// The gradient `[tokens, hidden]` of which only the rows at `positions` are not zero.
pub(crate) fn scatter(
    tokens: usize,
    hidden: usize,
    positions: &[usize],
    rows: &[f32],
    workspace: &mut Workspace,
) -> Vec<f32> {
    let mut out = workspace.take(tokens * hidden);
    out.fill(0.0);
    for (position, row) in positions.iter().zip(rows.chunks_exact(hidden)) {
        if let Some(out) = out.get_mut(position * hidden..(position + 1) * hidden) {
            add(out, row);
        }
    }
    out
}

//! The backward pass: the gradient of the adapter, and of nothing else.

use super::activations::Kept;
use super::forward::{Pass, Trace, add};
use super::{Changes, Error, Packed, Workspace};
use crate::control::Control;
use crate::model::{Block, Model, Stack};
use crate::ops::heads::{Cut, Layout, cut_backward};
use crate::ops::lora_linear::{self, Factors};
use crate::ops::{Table, attention, rms_norm, swiglu};

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
        mut gate_up: Vec<f32>,
        kept: &Kept,
    ) -> Result<Vec<f32>, Error> {
        let [_, _, stack_gate_up, stack_down] = &at.block.stacks;
        let [_, _, g_gate_up, g_down] = gradient;
        let [_, _, low_gate_up, low_down] = &kept.low;

        let gated = self.needed(at, 3).then(|| self.gated(&gate_up));
        let inputs = stack_down.matrix.width();
        let d_low =
            self.factors_backward(at, 3, g_down, &d, gated.as_deref(), low_down, stack_down);
        self.workspace.give(gated.unwrap_or_default());
        let mut d_gated = self
            .workspace
            .take(d.len() / stack_down.matrix.count() * inputs);
        self.input_backward(at, 3, &mut d_gated, &d, d_low, stack_down)?;

        swiglu::backward(&mut gate_up, &d_gated, self.model.config().intermediate);
        self.workspace.give(d_gated);
        let normed = self
            .needed(at, 2)
            .then(|| self.normed(&kept.middle, &at.block.feed_forward_norm));
        let d_low = self.factors_backward(
            at,
            2,
            g_gate_up,
            &gate_up,
            normed.as_deref(),
            low_gate_up,
            stack_gate_up,
        );
        let mut d_normed = normed.unwrap_or_else(|| self.workspace.take(kept.middle.len()));
        self.input_backward(at, 2, &mut d_normed, &gate_up, d_low, stack_gate_up)?;
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
        let [stack_qkv, stack_o, ..] = &at.block.stacks;
        let [g_qkv, g_o, ..] = gradient;
        let [low_qkv, low_o, ..] = &kept.low;

        let d_low = self.factors_backward(at, 1, g_o, &d, Some(&kept.attended), low_o, stack_o);
        let mut d_attended = self.workspace.take(kept.attended.len());
        self.input_backward(at, 1, &mut d_attended, &d, d_low, stack_o)?;

        let d_joined = self.heads_backward(d_attended, kept);
        let normed = self
            .needed(at, 0)
            .then(|| self.normed(&kept.x, &at.block.attention_norm));
        let d_low = self.factors_backward(
            at,
            0,
            g_qkv,
            &d_joined,
            normed.as_deref(),
            low_qkv,
            stack_qkv,
        );
        let mut d_normed = normed.unwrap_or_else(|| self.workspace.take(kept.x.len()));
        if at.lowest {
            self.workspace.give(d_low);
        } else {
            self.input_backward(at, 0, &mut d_normed, &d_joined, d_low, stack_qkv)?;
            rms_norm::backward(
                &mut d,
                &d_normed,
                &kept.x,
                &at.block.attention_norm,
                self.model.config().epsilon,
            );
        }
        self.workspace.give(d_normed);
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

    /// The gradient of a stack's factors; returns that of its `x·Aᵀ`.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call per stack, with what that stack keeps"
    )]
    fn factors_backward(
        &mut self,
        at: Place<'_>,
        place: usize,
        gradient: &mut Factors,
        dy: &[f32],
        x: Option<&[f32]>,
        low: &[f32],
        stack: &Stack,
    ) -> Vec<f32> {
        let mut d_low = self.workspace.take(low.len());
        let change = self.changes.and_then(|changes| changes.of(at.index, place));
        if let Some((change, x)) = change.zip(x) {
            let widths = lora_linear::Widths {
                inputs: stack.matrix.width(),
                outputs: stack.matrix.count(),
            };
            lora_linear::backward_factors(
                gradient,
                &mut d_low,
                dy,
                lora_linear::Saved { x, low },
                widths,
                change,
            );
        }
        d_low
    }

    /// The gradient of a stack's input.
    #[expect(
        clippy::too_many_arguments,
        reason = "a product of the backward pass names every buffer that it reads and writes"
    )]
    fn input_backward(
        &mut self,
        at: Place<'_>,
        place: usize,
        dx: &mut [f32],
        dy: &[f32],
        d_low: Vec<f32>,
        stack: &Stack,
    ) -> Result<(), Error> {
        let change = self.changes.and_then(|changes| changes.of(at.index, place));
        let frozen = self.model.frozen(&stack.matrix);
        let scratch = &mut self.workspace.ops.products;
        lora_linear::backward_input(dx, dy, &d_low, frozen, change, scratch)?;
        self.workspace.give(d_low);
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

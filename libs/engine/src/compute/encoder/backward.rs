//! The way down.

use super::super::Error;
use super::super::activations::Kept;
use super::super::backward::{Learn, Place};
use super::super::forward::{Pass, Trace, add};
use crate::control::Control;
use crate::model::{Encoder, Layer, Norm};
use crate::ops::gelu::Gelu;
use crate::ops::heads::{Cut, cut_backward};
use crate::ops::{activation, attention, layer_norm};

impl Pass<'_> {
    /// Learns what `learn` asks for, given the gradient `[tokens, hidden]` of what the last block gave. Stops at the
    /// lowest block of which something is learned.
    pub(super) fn decode(
        &mut self,
        encoder: &Encoder,
        mut learn: Learn<'_>,
        d_hidden: Vec<f32>,
        trace: Trace,
        control: &Control,
    ) -> Result<(), Error> {
        self.workspace.give(trace.hidden);
        let Some(lowest) = learn.lowest(self.changes) else {
            self.workspace.give(d_hidden);
            return Ok(());
        };
        let mut d = d_hidden;
        let model = self.model;
        let layers = model.blocks().iter().zip(&encoder.layers);
        let layers: Vec<_> = layers.zip(trace.blocks).enumerate().skip(lowest).collect();
        for (index, ((block, layer), kept)) in layers.into_iter().rev() {
            control.block()?;
            let kept = if kept.middle.is_empty() {
                let (y, again) = self.encoder_block(index, (block, layer), &kept.x)?;
                self.workspace.give(y);
                Kept { x: kept.x, ..again }
            } else {
                kept
            };
            let at = Place {
                index,
                block,
                lowest: index == lowest,
            };
            d = self.encoder_backward(at, layer, &mut learn, d, &kept)?;
            kept.give(self.workspace);
        }
        self.workspace.give(d);
        Ok(())
    }

    /// From the gradient of the block's output to that of its input.
    fn encoder_backward(
        &mut self,
        at: Place<'_>,
        layer: &Layer,
        learn: &mut Learn<'_>,
        d: Vec<f32>,
        kept: &Kept,
    ) -> Result<Vec<f32>, Error> {
        let d = self.norm_backward(d, &kept.raw, &layer.output_norm);
        let d = self.inner_backward(at, layer, learn, d, kept)?;
        let d = self.norm_backward(d, &kept.middle, &layer.attention_norm);
        self.outer_backward(at, learn, d, kept)
    }

    /// The feed-forward network's half: `d` is the gradient of what the last normalization reads.
    fn inner_backward(
        &mut self,
        at: Place<'_>,
        layer: &Layer,
        learn: &mut Learn<'_>,
        mut d: Vec<f32>,
        kept: &Kept,
    ) -> Result<Vec<f32>, Error> {
        let [_, _, low_up, low_down] = &kept.low;
        let curved = self
            .needed(learn, at, 3)
            .then(|| self.curved(&kept.gate_up));
        let mut d_curved = self.workspace.take(kept.gate_up.len());
        let x = (curved.as_deref(), low_down.as_slice());
        self.stack_backward(at, 3, learn, Some(&mut d_curved), &d, x)?;
        self.workspace.give(curved.unwrap_or_default());
        let mut d_inner = self.workspace.take(kept.gate_up.len());
        d_inner.copy_from_slice(&kept.gate_up);
        activation::backward::<Gelu>(&mut d_inner, &d_curved);
        self.workspace.give(d_curved);

        let needed = self.needed(learn, at, 2);
        let between = needed.then(|| self.layer_normed(&kept.middle, &layer.attention_norm));
        let mut d_between = self.workspace.take(kept.middle.len());
        let x = (between.as_deref(), low_up.as_slice());
        self.stack_backward(at, 2, learn, Some(&mut d_between), &d_inner, x)?;
        self.workspace.give(between.unwrap_or_default());
        self.workspace.give(d_inner);
        add(&mut d, &d_between);
        self.workspace.give(d_between);
        Ok(d)
    }

    /// Attention's half: `d` is the gradient of what the first normalization reads.
    fn outer_backward(
        &mut self,
        at: Place<'_>,
        learn: &mut Learn<'_>,
        mut d: Vec<f32>,
        kept: &Kept,
    ) -> Result<Vec<f32>, Error> {
        let [low_qkv, low_o, ..] = &kept.low;
        let mut d_attended = self.workspace.take(kept.attended.len());
        let x = (Some(kept.attended.as_slice()), low_o.as_slice());
        self.stack_backward(at, 1, learn, Some(&mut d_attended), &d, x)?;
        let d_joined = self.whole_heads_backward(d_attended, kept);
        let x = self.needed(learn, at, 0).then_some(kept.x.as_slice());
        let x = (x, low_qkv.as_slice());
        if at.lowest {
            self.stack_backward(at, 0, learn, None, &d_joined, x)?;
        } else {
            let mut d_x = self.workspace.take(kept.x.len());
            self.stack_backward(at, 0, learn, Some(&mut d_x), &d_joined, x)?;
            add(&mut d, &d_x);
            self.workspace.give(d_x);
        }
        self.workspace.give(d_joined);
        Ok(d)
    }

    /// From the gradient of attention's output to that of the joined projections.
    fn whole_heads_backward(&mut self, d_attended: Vec<f32>, kept: &Kept) -> Vec<f32> {
        let (layout, tokens) = (self.model.layout(), self.packed.tokens.len());
        let len = d_attended.len();
        let mut dq = self.workspace.take(len);
        let mut dk = self.workspace.take(len);
        let mut dv = self.workspace.take(len);
        let saved = attention::Saved {
            q: &kept.q,
            k: &kept.k,
            v: &kept.v,
            out: &kept.attended,
            normalizers: &kept.normalizers,
        };
        attention::whole::backward(
            (&mut dq, &mut dk, &mut dv),
            &d_attended,
            saved,
            layout,
            &self.packed.bounds,
        );
        self.workspace.give(d_attended);
        let mut d_joined = self.workspace.take(tokens * layout.width());
        let from = Cut {
            q: &mut dq,
            k: &mut dk,
            v: &mut dv,
        };
        let positions = &self.packed.positions;
        cut_backward(&mut d_joined, &from, layout, &self.rope, positions);
        for buffer in [dq, dk, dv] {
            self.workspace.give(buffer);
        }
        d_joined
    }

    /// The gradient of what a normalization reads, from that of what it gives.
    fn norm_backward(&mut self, d: Vec<f32>, x: &[f32], norm: &Norm) -> Vec<f32> {
        let mut d_x = self.workspace.take(x.len());
        d_x.fill(0.0);
        layer_norm::backward(&mut d_x, &d, x, &norm.weight, self.model.config().epsilon);
        self.workspace.give(d);
        d_x
    }
}

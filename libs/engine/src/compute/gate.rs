//! The curve of the feed-forward network, with a gate or without, there and back.

use super::forward::Pass;
use crate::kernel::Compute;
use crate::model::Curve;
use crate::ops::activation::{self, GeluTanh, Silu};
use crate::ops::swiglu;

impl Pass<'_> {
    /// The gated product of `gate_up`, and in `kept` what [`Pass::gated`] reads.
    pub(super) fn gate(&mut self, gate_up: Vec<f32>, kept: &mut Vec<f32>) -> Vec<f32> {
        match self.model.config().architecture.facts().curve {
            Curve::Silu => self.gate_by::<Silu>(gate_up, kept),
            Curve::GeluTanh => self.gate_by::<GeluTanh>(gate_up, kept),
        }
    }

    fn gate_by<C: activation::Curve>(
        &mut self,
        gate_up: Vec<f32>,
        kept: &mut Vec<f32>,
    ) -> Vec<f32> {
        let width = self.model.config().intermediate;
        let mut y = self.workspace.take(self.packed.tokens.len() * width);
        if self.rounds() {
            *kept = self.workspace.take(y.len());
            swiglu::rounded::forward::<C>(&mut y, kept, &gate_up, width);
            self.workspace.give(gate_up);
            return y;
        }
        if self.has_gate() {
            swiglu::forward::<C>(&mut y, &gate_up, width);
        } else {
            activation::forward::<C>(&mut y, &gate_up);
        }
        *kept = gate_up;
        y
    }

    /// The gated product again, from what was kept of gate and up.
    pub(super) fn gated(&mut self, kept: &[f32]) -> Vec<f32> {
        match self.model.config().architecture.facts().curve {
            Curve::Silu => self.gated_by::<Silu>(kept),
            Curve::GeluTanh => self.gated_by::<GeluTanh>(kept),
        }
    }

    fn gated_by<C: activation::Curve>(&mut self, kept: &[f32]) -> Vec<f32> {
        let width = self.model.config().intermediate;
        let tokens = self.packed.tokens.len();
        let mut y = self.workspace.take(tokens * width);
        if self.rounds() {
            swiglu::rounded::again::<C>(&mut y, kept);
        } else if self.has_gate() {
            swiglu::forward::<C>(&mut y, kept, width);
        } else {
            activation::forward::<C>(&mut y, kept);
        }
        y
    }

    /// The gradient of gate and up, from what was kept of them and that of their gated product.
    pub(super) fn gate_gradient(&mut self, kept: Vec<f32>, d_gated: &[f32]) -> Vec<f32> {
        match self.model.config().architecture.facts().curve {
            Curve::Silu => self.gate_gradient_by::<Silu>(kept, d_gated),
            Curve::GeluTanh => self.gate_gradient_by::<GeluTanh>(kept, d_gated),
        }
    }

    fn gate_gradient_by<C: activation::Curve>(
        &mut self,
        mut kept: Vec<f32>,
        d_gated: &[f32],
    ) -> Vec<f32> {
        let width = self.model.config().intermediate;
        if self.rounds() {
            let mut d = self.workspace.take(2 * d_gated.len());
            swiglu::rounded::backward::<C>(&mut d, &kept, d_gated, width);
            self.workspace.give(kept);
            return d;
        }
        if self.has_gate() {
            swiglu::backward::<C>(&mut kept, d_gated, width);
        } else {
            activation::backward::<C>(&mut kept, d_gated);
        }
        kept
    }

    fn has_gate(&self) -> bool {
        self.model.config().architecture.facts().gated
    }

    /// Whether gate and up are rounded: where the products round their operands anyway.
    fn rounds(&self) -> bool {
        self.has_gate() && self.model.kernel().compute() != Compute::F32
    }
}

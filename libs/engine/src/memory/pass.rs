//! The buffers of a step, taken and given in the order of `compute::forward` and
//! `compute::backward`. Whoever changes one changes the other; a test compares both.

use domain::adapter::Projection;

use super::Demand;
use super::pool::{Buffer, Pool};
use crate::compute::Keep;
use crate::kernel::Compute;
use crate::model::{Config, STACKS};

/// The workspace of a training run, or of one evaluation after another.
pub(super) fn workspace(config: &Config, demand: &Demand<'_>) -> Pool {
    let mut pass = Pass::new(config, demand);
    match demand.optimizer {
        super::Optimizer::AdamW => {
            // No gradient reaches the blocks below the lowest adapted one.
            let from = pass.lowest();
            let keep = if demand.checkpoint {
                Keep::Inputs { from }
            } else {
                Keep::All { from }
            };
            // The second step finds the buffers of the first in another order.
            for _ in 0..2 {
                let (hidden, trace) = pass.forward(keep);
                let d = pass.head(&hidden, true);
                pass.backward(hidden, trace, d);
            }
        }
        super::Optimizer::Mezo | super::Optimizer::None => {
            for _ in 0..2 {
                let (hidden, trace) = pass.forward(Keep::Nothing);
                drop(trace);
                let d = pass.head(&hidden, false);
                pass.pool.give(hidden);
                pass.pool.give(d);
            }
        }
    }
    pass.pool
}

/// The sizes of a step, and the pool it runs on.
pub(super) struct Pass<'a> {
    pool: Pool,
    pub(super) config: &'a Config,
    demand: &'a Demand<'a>,
    tokens: usize,
    /// Width of the queries of all heads, and of the keys.
    pub(super) queries: usize,
    keys: usize,
}

/// As `compute::activations::Kept`.
#[derive(Default)]
struct Kept {
    x: Option<Buffer>,
    /// What a block computes again if it was not kept.
    rest: Option<Rest>,
}

pub(super) struct Rest {
    pub(super) raw: Buffer,
    pub(super) q: Buffer,
    pub(super) k: Buffer,
    pub(super) v: Buffer,
    pub(super) normalizers: Buffer,
    pub(super) attended: Buffer,
    pub(super) middle: Buffer,
    pub(super) gate_up: Buffer,
    pub(super) behind: [Buffer; 2],
    pub(super) low: [Buffer; 4],
}

impl<'a> Pass<'a> {
    fn new(config: &'a Config, demand: &'a Demand<'a>) -> Self {
        Self {
            pool: Pool::default(),
            config,
            demand,
            tokens: demand.tokens(),
            queries: config.heads * config.head_size,
            keys: config.kv_heads * config.head_size,
        }
    }

    pub(super) fn take(&mut self, width: usize) -> Buffer {
        self.pool.take(self.tokens * width)
    }

    pub(super) fn give(&mut self, buffer: Buffer) {
        self.pool.give(buffer);
    }

    /// The summed rank of a stack.
    pub(super) fn rank(&self, layer: usize, stack: usize) -> usize {
        let of = |projection: &Projection| self.demand.rank(layer, *projection);
        let projections = STACKS.get(stack).copied().unwrap_or_default();
        projections.iter().map(of).sum()
    }

    /// Whether gate and up are kept rounded.
    fn rounds(&self) -> bool {
        self.gated() && self.demand.kernel.compute() != Compute::F32
    }

    fn gated(&self) -> bool {
        self.config.architecture.facts().gated
    }

    /// What a half of a block gives, normalized where the family does so: what it was before, and what it is.
    fn normed_behind(&mut self, out: Buffer) -> (Buffer, Buffer) {
        if self.config.architecture.facts().post_norms {
            let normed = self.take(self.config.hidden);
            (out, normed)
        } else {
            (Buffer::default(), out)
        }
    }

    /// The gradient of what was normalized.
    fn behind_backward(&mut self) -> Buffer {
        if self.config.architecture.facts().post_norms {
            self.take(self.config.hidden)
        } else {
            Buffer::default()
        }
    }

    fn encodes(&self) -> bool {
        self.config.architecture.is_encoder()
    }

    fn outputs(&self, stack: usize) -> usize {
        let of = |projection: &Projection| match self.config.has(*projection) {
            true => self.config.shape(*projection).0,
            false => 0,
        };
        let projections = STACKS.get(stack).copied().unwrap_or_default();
        projections.iter().map(of).sum()
    }

    fn is_adapted(&self, layer: usize) -> bool {
        (0..STACKS.len()).any(|stack| self.rank(layer, stack) > 0)
    }

    fn lowest(&self) -> usize {
        let layers = 0..self.config.layers;
        let adapted = self.demand.optimizer != super::Optimizer::None;
        layers
            .clone()
            .find(|layer| adapted && self.is_adapted(*layer))
            .unwrap_or(self.config.layers)
    }

    fn forward(&mut self, keep: Keep) -> (Buffer, Vec<Kept>) {
        let mut trace = Vec::new();
        let mut hidden = if self.encodes() {
            self.embedded()
        } else {
            self.take(self.config.hidden)
        };
        for layer in 0..self.config.layers {
            let (next, rest) = self.block(layer);
            let input = std::mem::replace(&mut hidden, next);
            let mut kept = Kept::default();
            match keep {
                Keep::All { from } if layer >= from => {
                    (kept.x, kept.rest) = (Some(input), Some(rest))
                }
                Keep::Inputs { from } if layer >= from => {
                    self.give_rest(rest);
                    kept.x = Some(input);
                }
                Keep::Nothing | Keep::Inputs { .. } | Keep::All { .. } => {
                    self.give_rest(rest);
                    self.give(input);
                }
            }
            trace.push(kept);
        }
        (hidden, trace)
    }

    pub(super) fn linear(&mut self, layer: usize, stack: usize) -> (Buffer, Buffer) {
        let y = self.take(self.outputs(stack));
        let rank = if self.demand.optimizer == super::Optimizer::None {
            0
        } else {
            self.rank(layer, stack)
        };
        (y, self.take(rank))
    }

    fn block(&mut self, layer: usize) -> (Buffer, Rest) {
        if self.encodes() {
            return self.encoder_block(layer);
        }
        let hidden = self.config.hidden;
        let normed = self.take(hidden);
        let (joined, low_qkv) = self.linear(layer, 0);
        self.give(normed);
        let raw = if self.config.architecture.facts().head_norms {
            self.take(self.queries + self.keys)
        } else {
            Buffer::default()
        };
        let (q, k, v) = (
            self.take(self.queries),
            self.take(self.keys),
            self.take(self.keys),
        );
        self.give(joined);
        let by_head = self.take(self.queries);
        let normalizers = self.take(self.config.heads);
        let attended = self.take(self.queries);
        self.give(by_head);
        let (out, low_o) = self.linear(layer, 1);
        let (attention_out, middle) = self.normed_behind(out);
        let normed = self.take(hidden);
        let (joined, low_gate_up) = self.linear(layer, 2);
        self.give(normed);
        let gated = self.take(self.config.intermediate);
        let gate_up = if self.rounds() {
            let kept = self.take(self.config.intermediate);
            self.give(joined);
            kept
        } else {
            joined
        };
        let (out, low_down) = self.linear(layer, 3);
        self.give(gated);
        let (feed_forward_out, y) = self.normed_behind(out);
        let rest = Rest {
            raw,
            q,
            k,
            v,
            normalizers,
            attended,
            middle,
            gate_up,
            behind: [attention_out, feed_forward_out],
            low: [low_qkv, low_o, low_gate_up, low_down],
        };
        (y, rest)
    }

    fn give_rest(&mut self, rest: Rest) {
        let Rest {
            raw,
            q,
            k,
            v,
            normalizers,
            attended,
            middle,
            gate_up,
            behind,
            low,
        } = rest;
        for buffer in [raw, q, k, v, normalizers, attended, middle, gate_up] {
            self.give(buffer);
        }
        low.into_iter().chain(behind).for_each(|own| self.give(own));
    }

    /// The output layer; with a gradient, that of the residual stream.
    fn head(&mut self, _: &Buffer, gradient: bool) -> Buffer {
        if self.encodes() {
            // What is pooled is small and no buffer of the workspace.
            return match gradient {
                true => self.take(self.config.hidden),
                false => Buffer::default(),
            };
        }
        let rows = self.demand.predicted() * self.config.hidden;
        let (x, normed) = (self.pool.take(rows), self.pool.take(rows));
        if !gradient {
            self.give(x);
            self.give(normed);
            return Buffer::default();
        }
        let d_normed = self.pool.take(rows);
        let d = self.take(self.config.hidden);
        for buffer in [x, d_normed, normed] {
            self.give(buffer);
        }
        d
    }

    fn backward(&mut self, hidden: Buffer, trace: Vec<Kept>, d: Buffer) {
        self.give(hidden);
        let lowest = self.lowest();
        let layers = trace.into_iter().enumerate().skip(lowest);
        for (layer, kept) in layers.collect::<Vec<_>>().into_iter().rev() {
            let rest = match kept.rest {
                Some(rest) => rest,
                None => {
                    let (y, rest) = self.block(layer);
                    self.give(y);
                    rest
                }
            };
            self.block_backward(layer, rest, kept.x.unwrap_or_default());
        }
        self.give(d);
    }

    /// The gradient of a stack's `x·Aᵀ` passes.
    pub(super) fn low(&mut self, layer: usize, stack: usize) {
        let rank = self.rank(layer, stack);
        let d_low = self.take(rank);
        self.give(d_low);
    }

    fn block_backward(&mut self, layer: usize, rest: Rest, x: Buffer) {
        if self.encodes() {
            let lowest = layer == self.lowest();
            return self.encoder_backward(layer, rest, x, lowest);
        }
        let inner = self.config.intermediate;
        let behind = self.behind_backward();
        let gated = (self.rank(layer, 3) > 0).then(|| self.take(inner));
        let d_gated = self.take(inner);
        self.low(layer, 3);
        self.give(gated.unwrap_or_default());
        self.give(behind);
        let d_gate_up = if self.rounds() {
            let d = self.take(2 * inner);
            self.give(rest.gate_up);
            d
        } else {
            rest.gate_up
        };
        self.give(d_gated);
        self.input(layer, 2, d_gate_up, false);

        let behind = self.behind_backward();
        let d_attended = self.take(self.queries);
        self.low(layer, 1);
        self.give(behind);
        let d_heads = [self.queries, self.keys, self.keys].map(|width| self.take(width));
        self.give(d_attended);
        let d_joined = self.take(self.queries + 2 * self.keys);
        d_heads.into_iter().for_each(|buffer| self.give(buffer));
        self.input(layer, 0, d_joined, layer == self.lowest());
        self.give(x);
        let (q, k, v) = (rest.q, rest.k, rest.v);
        for buffer in [
            rest.raw,
            q,
            k,
            v,
            rest.normalizers,
            rest.attended,
            rest.middle,
        ] {
            self.give(buffer);
        }
        let others = rest.low.into_iter().chain(rest.behind);
        others.for_each(|own| self.give(own));
    }

    /// The gradient of a stack's normalized input, from `dy`; of the lowest block's none is needed.
    fn input(&mut self, layer: usize, stack: usize, dy: Buffer, lowest: bool) {
        let hidden = self.config.hidden;
        let normed = (self.rank(layer, stack) > 0).then(|| self.take(hidden));
        let d_normed = (!lowest).then(|| self.take(hidden));
        self.low(layer, stack);
        for buffer in [normed, d_normed, Some(dy)] {
            self.give(buffer.unwrap_or_default());
        }
    }
}

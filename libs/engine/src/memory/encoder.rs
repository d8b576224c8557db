//! The buffers of an encoder's step, in the order of `compute::encoder`. Whoever changes one changes the other; a test
//! compares both.

use domain::adapter;

use super::pass::{Pass, Rest};
use super::pool::Buffer;
use crate::model::Config;

/// Values of an encoder that are no stacks and no table of words: positions, biases, normalizations, BERT's pooler.
pub(super) fn vectors(config: &Config) -> usize {
    let Config {
        hidden,
        intermediate,
        ..
    } = *config;
    // Queries, keys, values and both outputs; two normalizations.
    let layer = 5 * hidden + intermediate + 4 * hidden;
    let pooler = match config.architecture.encoder() {
        Some(adapter::Encoder::Bert) => hidden * (hidden + 1),
        _ => 0,
    };
    config.places() * hidden + 2 * hidden + config.layers * layer + pooler
}

/// Trained values of a head's dense layer; what it has for each class is little beside them.
pub(super) fn head(config: &Config) -> u64 {
    let dense = config
        .architecture
        .encoder()
        .is_some_and(adapter::Encoder::has_dense);
    let hidden = config.hidden as u64;
    if dense { hidden * (hidden + 1) } else { 0 }
}

impl Pass<'_> {
    pub(super) fn embedded(&mut self) -> Buffer {
        let x = self.take(self.config.hidden);
        let y = self.take(self.config.hidden);
        self.give(x);
        y
    }

    pub(super) fn encoder_block(&mut self, layer: usize) -> (Buffer, Rest) {
        let (hidden, inner) = (self.config.hidden, self.config.intermediate);
        let (joined, low_qkv) = self.linear(layer, 0);
        let [q, k, v] = [self.queries; 3].map(|width| self.take(width));
        let by_head = self.take(self.queries);
        let normalizers = self.take(self.config.heads);
        let attended = self.take(self.queries);
        self.give(by_head);
        self.give(joined);
        let (middle, low_o) = self.linear(layer, 1);
        let between = self.take(hidden);
        let (gate_up, low_up) = self.linear(layer, 2);
        let curved = self.take(inner);
        let (raw, low_down) = self.linear(layer, 3);
        self.give(curved);
        self.give(between);
        let y = self.take(hidden);
        let rest = Rest {
            raw,
            q,
            k,
            v,
            normalizers,
            attended,
            middle,
            gate_up,
            behind: [Buffer::default(), Buffer::default()],
            low: [low_qkv, low_o, low_up, low_down],
        };
        (y, rest)
    }

    pub(super) fn encoder_backward(&mut self, layer: usize, rest: Rest, x: Buffer, lowest: bool) {
        let (hidden, inner) = (self.config.hidden, self.config.intermediate);
        self.renewed(hidden);
        let curved = (self.rank(layer, 3) > 0).then(|| self.take(inner));
        let d_curved = self.take(inner);
        self.low(layer, 3);
        self.give(curved.unwrap_or_default());
        let d_inner = self.take(inner);
        self.give(d_curved);
        let between = (self.rank(layer, 2) > 0).then(|| self.take(hidden));
        let d_between = self.take(hidden);
        self.low(layer, 2);
        self.give(between.unwrap_or_default());
        self.give(d_inner);
        self.give(d_between);
        self.renewed(hidden);

        let d_attended = self.take(self.queries);
        self.low(layer, 1);
        let d_heads = [self.queries; 3].map(|width| self.take(width));
        self.give(d_attended);
        let d_joined = self.take(3 * self.queries);
        d_heads.into_iter().for_each(|buffer| self.give(buffer));
        let d_x = (!lowest).then(|| self.take(hidden));
        self.low(layer, 0);
        self.give(d_x.unwrap_or_default());
        self.give(d_joined);
        self.give(x);
        let gate_up = rest.gate_up;
        self.give(gate_up);
        for buffer in [rest.raw, rest.q, rest.k, rest.v, rest.normalizers] {
            self.give(buffer);
        }
        self.give(rest.attended);
        self.give(rest.middle);
        rest.low.into_iter().for_each(|low| self.give(low));
    }

    /// A gradient that takes the place of another of its size.
    fn renewed(&mut self, width: usize) {
        let other = self.take(width);
        self.give(other);
    }
}

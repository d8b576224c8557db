//! One row through the model.

use std::collections::BTreeMap;

use candle_core::{D, Result, Tensor, Var};
use domain::adapter::{Projection, WeightName};

use super::frozen::product;
use super::model::{Block, Frozen};

/// The trained factors of each weight: A `[rank, in]` and B `[out, rank]`, and the scale of `B·A`.
pub(super) struct Factors {
    pub(super) scale: f64,
    pub(super) vars: BTreeMap<WeightName, (Var, Var)>,
}

/// The summed loss `−ln p` of `targets`, each the token after a position of the row `tokens`.
pub(super) fn loss(
    frozen: &Frozen,
    factors: &Factors,
    tokens: &[u32],
    targets: &[(usize, u32)],
) -> Result<Tensor> {
    let device = frozen.embedding.device();
    let ids = Tensor::from_slice(tokens, tokens.len(), device)?;
    let rope = Rope::new(frozen, tokens.len())?;
    let mut x = frozen.embedding.index_select(&ids, 0)?;
    for (layer, block) in (0u16..).zip(&frozen.blocks) {
        let own = Layer {
            frozen,
            block,
            factors,
            layer,
        };
        x = own.forward(&x, &rope)?;
    }
    let positions: Vec<u32> = targets
        .iter()
        .map(|(position, _)| *position as u32)
        .collect();
    let wanted: Vec<u32> = targets.iter().map(|(_, token)| *token).collect();
    let (count, positions) = (targets.len(), Tensor::new(positions, device)?);
    let x = normed(&x.index_select(&positions, 0)?, &frozen.final_norm, frozen)?;
    let logits = product(&x, &frozen.output)?;
    let wanted = Tensor::from_vec(wanted, (count, 1), device)?;
    let scores = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
    scores.gather(&wanted, 1)?.sum_all()?.neg()
}

struct Layer<'a> {
    frozen: &'a Frozen,
    block: &'a Block,
    factors: &'a Factors,
    layer: u16,
}

impl Layer<'_> {
    /// `x + attention(norm(x))`, then `+ feed_forward(norm(·))`; all `[tokens, hidden]`.
    fn forward(&self, x: &Tensor, rope: &Rope) -> Result<Tensor> {
        let normalized = normed(x, &self.block.attention_norm, self.frozen)?;
        let x = (x + self.attention(&normalized, rope)?)?;
        let normalized = normed(&x, &self.block.feed_forward_norm, self.frozen)?;
        let gate = self.linear(&normalized, Projection::Gate)?.silu()?;
        let gated = (gate * self.linear(&normalized, Projection::Up)?)?;
        x + self.linear(&gated, Projection::Down)?
    }

    /// `x·Wᵀ + s·(x·Aᵀ)·Bᵀ`
    fn linear(&self, x: &Tensor, projection: Projection) -> Result<Tensor> {
        let y = product(x, self.block.weight(projection)?)?;
        let name = WeightName::new(self.layer, projection);
        let Some((a, b)) = self.factors.vars.get(&name) else {
            return Ok(y);
        };
        let change = x.matmul(&a.t()?)?.matmul(&b.t()?)?;
        y + (change * self.factors.scale)?
    }

    fn attention(&self, x: &Tensor, rope: &Rope) -> Result<Tensor> {
        let config = &self.frozen.config;
        let (tokens, size) = (x.dim(0)?, config.head_size);
        let heads = |projection, count| {
            let joined = self.linear(x, projection)?;
            joined.reshape((tokens, count, size))?.transpose(0, 1)
        };
        let queries = rope.turn(&heads(Projection::Q, config.heads)?)?;
        let keys = rope.turn(&heads(Projection::K, config.kv_heads)?)?;
        let values = heads(Projection::V, config.kv_heads)?;
        let group = config.heads / config.kv_heads;
        let shared = |x: &Tensor| {
            let shape = (config.kv_heads, group, tokens, size);
            let repeated = x.unsqueeze(1)?.broadcast_as(shape)?;
            repeated.reshape((config.heads, tokens, size))
        };
        let scores = queries.matmul(&shared(&keys)?.transpose(1, 2)?.contiguous()?)?;
        let scores = (scores / (size as f64).sqrt())?.broadcast_add(&rope.mask)?;
        let probabilities = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let attended = probabilities.matmul(&shared(&values)?.contiguous()?)?;
        let joined = attended.transpose(0, 1)?.reshape((tokens, ()))?;
        self.linear(&joined, Projection::O)
    }
}

/// `x / sqrt(mean(x²) + ε) · w`
fn normed(x: &Tensor, weight: &Tensor, frozen: &Frozen) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    let root = (mean + f64::from(frozen.config.epsilon))?.sqrt()?;
    x.broadcast_div(&root)?.broadcast_mul(weight)
}

/// Rotary angles, and what a query may not see.
struct Rope {
    /// `[tokens, size/2]`
    cos: Tensor,
    /// `[tokens, size/2]`
    sin: Tensor,
    /// `[tokens, tokens]`: minus infinity above the diagonal.
    mask: Tensor,
}

impl Rope {
    fn new(frozen: &Frozen, tokens: usize) -> Result<Self> {
        let (device, size) = (frozen.embedding.device(), frozen.config.head_size);
        let frequency =
            |j: usize| 1.0 / frozen.config.rope_theta.powf((2 * j) as f32 / size as f32);
        let angles = (0..tokens).flat_map(|t| (0..size / 2).map(move |j| t as f32 * frequency(j)));
        let angles = Tensor::from_iter(angles, device)?.reshape((tokens, size / 2))?;
        let hidden = (0..tokens * tokens).map(|i| {
            let unseen = i % tokens > i / tokens;
            if unseen { f32::NEG_INFINITY } else { 0.0 }
        });
        Ok(Self {
            cos: angles.cos()?,
            sin: angles.sin()?,
            mask: Tensor::from_iter(hidden, device)?.reshape((tokens, tokens))?,
        })
    }

    /// Rotates `x` `[heads, tokens, size]`; the two halves of a head form the pairs.
    fn turn(&self, x: &Tensor) -> Result<Tensor> {
        let half = x.dim(2)? / 2;
        let (low, high) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let new_low = (low.broadcast_mul(&self.cos)? - high.broadcast_mul(&self.sin)?)?;
        let new_high = (high.broadcast_mul(&self.cos)? + low.broadcast_mul(&self.sin)?)?;
        Tensor::cat(&[new_low, new_high], 2)
    }
}

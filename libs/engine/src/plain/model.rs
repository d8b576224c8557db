//! A model's frozen weights in `f32` on a device.

use candle_core::{Device, Result, Tensor};
use domain::adapter::Projection;

use crate::model::{self, Config, Matrix};
use crate::ops::Table;

/// The frozen weights on their device.
pub(super) struct Frozen {
    pub(super) config: Config,
    /// `[vocabulary, hidden]`
    pub(super) embedding: Tensor,
    pub(super) blocks: Vec<Block>,
    /// `[hidden]`
    pub(super) final_norm: Tensor,
    /// `[vocabulary, hidden]`; the embedding itself when tied.
    pub(super) output: Tensor,
}

/// One block's.
pub(super) struct Block {
    /// `[hidden]`
    pub(super) attention_norm: Tensor,
    /// `[hidden]`
    pub(super) feed_forward_norm: Tensor,
    /// `[out, in]` in the order of `Projection::ALL`.
    weights: Vec<(Projection, Tensor)>,
}

impl Block {
    pub(super) fn weight(&self, projection: Projection) -> Result<&Tensor> {
        let found = self.weights.iter().find(|(own, _)| *own == projection);
        match found {
            Some((_, weight)) => Ok(weight),
            None => candle_core::bail!("the block has no {projection:?}"),
        }
    }
}

impl Frozen {
    pub(super) fn new(model: &model::Model, device: &Device) -> Result<Self> {
        let embedding = matrix(model, model.embedding(), device)?;
        let output = if model.config().tied {
            embedding.clone()
        } else {
            matrix(model, model.output().weight, device)?
        };
        let blocks = model.blocks().iter().map(|own| block(model, own, device));
        Ok(Self {
            config: model.config().clone(),
            embedding,
            blocks: blocks.collect::<Result<_>>()?,
            final_norm: vector(&model.final_norm().weight, device)?,
            output,
        })
    }
}

fn block(model: &model::Model, own: &model::Block, device: &Device) -> Result<Block> {
    let mut weights = Vec::new();
    for stack in &own.stacks {
        let whole = matrix(model, &stack.matrix, device)?;
        for part in &stack.parts {
            let weight = whole.narrow(0, part.first, part.outputs)?.contiguous()?;
            weights.push((part.projection, weight));
        }
    }
    Ok(Block {
        attention_norm: vector(&own.attention_norm.weight, device)?,
        feed_forward_norm: vector(&own.feed_forward_norm.weight, device)?,
        weights,
    })
}

fn vector(values: &[f32], device: &Device) -> Result<Tensor> {
    Tensor::from_slice(values, values.len(), device)
}

fn matrix(model: &model::Model, own: &Matrix, device: &Device) -> Result<Tensor> {
    let shape = (own.count(), own.width());
    let mut scratch = Vec::new();
    let values = model
        .threads()
        .run(|| own.rows(0..own.count(), &mut scratch))?;
    Tensor::from_slice(values, shape, device)
}

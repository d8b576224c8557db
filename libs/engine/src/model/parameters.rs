//! The parameters of a decoder one by one: what moves where all of them are trained.
//!
//! Promises: every tensor is named once and has a number of its own in every direction, which neither the model's
//! other tensors nor the files that they lie in change; its values are those that are computed with, a weight's
//! `[out, in]` row by row, whatever the family's files say.

use domain::adapter::WeightName;

use super::block::STACKS;
use super::{Block, Config, Matrix, Model, Norm, Stack};
use crate::normal::Moving;
use crate::ops::side_term::SideTerm;
use crate::source::Name;
use crate::threads::Threads;

/// The number of the embedding's table in every direction. Those of adapters' tensors end far below.
pub(crate) const EMBEDDING: u32 = 1 << 31;

/// That of the output layer's, where it is not the embedding's.
pub(crate) const OUTPUT: u32 = EMBEDDING + 1;

/// Numbers that a block has.
const BLOCK: u32 = 64;

/// Where in a block its biases begin, and its normalizations; weights stand before both.
const BIASES: u32 = 16;
const NORMS: u32 = 32;

/// The number of a decoder's tensor in every direction; none for an encoder's.
pub(crate) fn number(name: Name) -> Option<u32> {
    let of = |layer: u16, place: u32| EMBEDDING + BLOCK * (1 + u32::from(layer)) + place;
    Some(match name {
        Name::Embedding => EMBEDDING,
        Name::Output => OUTPUT,
        Name::Positions => EMBEDDING + 2,
        Name::FinalNorm => EMBEDDING + 3,
        Name::FinalNormBias => EMBEDDING + 4,
        Name::Weight(own) => of(own.layer(), own.projection() as u32),
        Name::Bias(own) => of(own.layer(), BIASES + own.projection() as u32),
        Name::AttentionNorm(layer) => of(layer, NORMS),
        Name::AttentionNormBias(layer) => of(layer, NORMS + 1),
        Name::FeedForwardNorm(layer) => of(layer, NORMS + 2),
        Name::FeedForwardNormBias(layer) => of(layer, NORMS + 3),
        Name::AttentionPostNorm(layer) => of(layer, NORMS + 4),
        Name::FeedForwardPostNorm(layer) => of(layer, NORMS + 5),
        Name::QueryNorm(layer) => of(layer, NORMS + 6),
        Name::KeyNorm(layer) => of(layer, NORMS + 7),
        Name::Of(_) | Name::OfLayer(..) | Name::Top(_) => return None,
    })
}

/// A tensor's number and its values.
pub(crate) type Parameter<'a> = (u32, &'a mut [f32]);

/// Moved where it is.
impl<'a> From<Parameter<'a>> for Moving<'a> {
    fn from((tensor, values): Parameter<'a>) -> Self {
        Self {
            tensor,
            values,
            from: None,
            scale: None,
        }
    }
}

impl Model {
    /// Whether every parameter can be moved where it lies: a decoder that is held in `f32`, without a side term.
    pub(crate) fn is_movable(&self) -> bool {
        let stacks = || self.blocks.iter().flat_map(|block| &block.stacks);
        let alone = stacks().all(|stack| stack.side.rank() == 0);
        let matrices = stacks().map(|stack| &stack.matrix);
        let mut all = matrices.chain([&self.embedding]).chain(&self.output);
        alone && self.encoder.is_none() && all.all(|matrix| matches!(matrix, Matrix::Dense { .. }))
    }

    /// How many parameters a decoder of these sizes has.
    #[must_use]
    pub fn parameters_of(config: &Config) -> u64 {
        let names = Name::all(config);
        let sizes = names
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>() as u64);
        sizes.sum()
    }

    /// The compute threads, and every parameter by its number, in ascending order.
    pub(crate) fn parameters(&mut self) -> (&Threads, Vec<Parameter<'_>>) {
        let Self {
            config,
            threads,
            embedding,
            blocks,
            final_norm,
            positions,
            output,
            ..
        } = self;
        let tables = [
            (Name::Embedding, Some(embedding)),
            (Name::Output, output.as_mut()),
        ];
        let mut all = Vec::new();
        for (name, matrix) in tables {
            if let Some(Matrix::Dense { data, .. }) = matrix {
                push(&mut all, name, data);
            }
        }
        push(&mut all, Name::Positions, positions);
        push_norm(&mut all, [Name::FinalNorm, Name::FinalNormBias], final_norm);
        for (layer, block) in (0u16..).zip(blocks) {
            all.extend(block.parameters(config, layer));
        }
        (&*threads, all)
    }

    /// Calls `each` with every parameter by its number, in ascending order, on the compute threads.
    pub(crate) fn for_each_parameter(&mut self, mut each: impl FnMut(u32, &mut [f32]) + Send) {
        let (threads, all) = self.parameters();
        threads.run(|| {
            for (number, values) in all {
                each(number, values);
            }
        });
    }
}

impl Block {
    /// One without anything.
    pub(crate) fn empty() -> Self {
        Self::of_stacks(std::array::from_fn(|_| Stack {
            matrix: Matrix::Dense {
                data: Vec::new(),
                cols: 1,
            },
            parts: Vec::new(),
            side: SideTerm::default(),
        }))
    }

    /// Becomes a copy of another that is held in `f32`; buffers are used again.
    pub(crate) fn copy_from(&mut self, from: &Self) {
        let Self {
            attention_norm,
            feed_forward_norm,
            biases,
            head_norms,
            post_norms,
            sliding,
            stacks,
        } = from;
        self.attention_norm.clone_from(attention_norm);
        self.feed_forward_norm.clone_from(feed_forward_norm);
        self.biases.clone_from(biases);
        self.head_norms.clone_from(head_norms);
        self.post_norms.clone_from(post_norms);
        self.sliding = *sliding;
        for (own, from) in self.stacks.iter_mut().zip(stacks) {
            own.parts.clone_from(&from.parts);
            // Invariant: both are dense, for a block is copied of a model that can be moved alone.
            if let (
                Matrix::Dense { data, cols },
                Matrix::Dense {
                    data: values,
                    cols: width,
                },
            ) = (&mut own.matrix, &from.matrix)
            {
                data.clone_from(values);
                *cols = *width;
            }
        }
    }

    /// Its parameters, the block being that of `layer` and held in `f32`, in ascending order.
    pub(crate) fn parameters(&mut self, config: &Config, layer: u16) -> Vec<Parameter<'_>> {
        let Self {
            attention_norm,
            feed_forward_norm,
            biases,
            head_norms,
            post_norms,
            sliding: _,
            stacks,
        } = self;
        let mut all = Vec::new();
        for stack in stacks {
            let Matrix::Dense { data, cols } = &mut stack.matrix else {
                continue;
            };
            let mut rest = data.as_mut_slice();
            for part in &stack.parts {
                let (own, others) = rest.split_at_mut((part.outputs * *cols).min(rest.len()));
                rest = others;
                let name = WeightName::new(layer, part.projection);
                push(&mut all, Name::Weight(name), own);
            }
        }
        for (projections, bias) in STACKS.iter().zip(biases) {
            let mut rest = bias.as_mut_slice();
            for projection in projections.iter().filter(|own| config.has_bias(**own)) {
                let (outputs, _) = config.shape(*projection);
                let (own, others) = rest.split_at_mut(outputs.min(rest.len()));
                rest = others;
                push(
                    &mut all,
                    Name::Bias(WeightName::new(layer, *projection)),
                    own,
                );
            }
        }
        let names = [Name::AttentionNorm(layer), Name::AttentionNormBias(layer)];
        push_norm(&mut all, names, attention_norm);
        let names = [
            Name::FeedForwardNorm(layer),
            Name::FeedForwardNormBias(layer),
        ];
        push_norm(&mut all, names, feed_forward_norm);
        if let Some([attention, feed_forward]) = post_norms {
            push(
                &mut all,
                Name::AttentionPostNorm(layer),
                &mut attention.weight,
            );
            push(
                &mut all,
                Name::FeedForwardPostNorm(layer),
                &mut feed_forward.weight,
            );
        }
        if let Some([queries, keys]) = head_norms {
            push(&mut all, Name::QueryNorm(layer), queries);
            push(&mut all, Name::KeyNorm(layer), keys);
        }
        all
    }
}

fn push<'a>(all: &mut Vec<Parameter<'a>>, name: Name, values: &'a mut [f32]) {
    if let Some(number) = number(name).filter(|_| !values.is_empty()) {
        all.push((number, values));
    }
}

fn push_norm<'a>(all: &mut Vec<Parameter<'a>>, [weight, bias]: [Name; 2], norm: &'a mut Norm) {
    push(all, weight, &mut norm.weight);
    push(all, bias, &mut norm.bias);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::model::{Base, LoadOptions};

    /// Every tensor of every family is there once, as large as the family says, in ascending order.
    #[test]
    fn every_tensor_is_a_parameter_once() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
        for name in [
            "tiny",
            "tiny.gguf",
            "architectures/llama3",
            "architectures/mistral",
            "architectures/qwen2",
            "architectures/qwen3",
            "architectures/gpt2",
            "architectures/gemma3",
        ] {
            let base = Base::F32;
            let options = LoadOptions {
                base,
                ..LoadOptions::default()
            };
            let mut model = Model::load(&folder.join(name), &options).unwrap();
            assert!(model.is_movable(), "{name}");
            let want: Vec<(u32, usize)> = Name::all(model.config())
                .into_iter()
                .map(|(name, shape)| (number(name).unwrap(), shape.iter().product()))
                .collect();
            let (mut got, mut count) = (Vec::new(), 0);
            model.for_each_parameter(|number, values| {
                got.push((number, values.len()));
                count += values.len() as u64;
            });
            assert!(
                got.is_sorted_by_key(|(number, _)| *number),
                "{name}: {got:?}"
            );
            let sorted: BTreeSet<_> = want.iter().copied().collect();
            assert_eq!(sorted.len(), want.len(), "{name}");
            assert_eq!(got, sorted.into_iter().collect::<Vec<_>>(), "{name}");
            assert_eq!(count, Model::parameters_of(model.config()), "{name}");
        }
    }

    #[test]
    fn what_is_not_held_in_f32_cannot_be_moved() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
        for base in [Base::Source, Base::Bf16, Base::Int8, Base::Nf4] {
            let options = LoadOptions {
                base,
                ..LoadOptions::default()
            };
            let model = Model::load(&folder.join("tiny"), &options).unwrap();
            assert!(!model.is_movable(), "{base:?}");
        }
    }
}

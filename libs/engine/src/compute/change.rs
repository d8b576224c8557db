//! An adapter in the layout of the computation: factors of weights that share their input, stacked.

use domain::adapter::WeightName;

use super::Error;
use crate::adapter::{self, Adapter, Factors, Head};
use crate::model::{Model, Stack};
use crate::ops::lora_linear::{self, Change, Part};

/// The factors of every stack of every block; gradients and moments have the same layout.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Changes {
    pub(crate) scale: f32,
    pub(crate) blocks: Vec<[lora_linear::Factors; 4]>,
    /// A classification head, trained in full.
    pub(crate) head: Option<Head>,
}

impl Changes {
    /// Copies an adapter into the layout of the computation.
    pub(crate) fn new(model: &Model, adapter: &Adapter) -> Result<Self, Error> {
        let shapes = model.weights();
        for factors in adapter.factors() {
            if !shapes.contains(&factors.shape()) {
                return Err(Error::Adapter {
                    weight: factors.shape().name,
                });
            }
        }
        if let Some(head) = adapter.head() {
            model.config().takes_head(head.shape())?;
        }
        let layers = (0u16..).zip(model.blocks());
        let blocks = layers.map(|(layer, block)| {
            block
                .stacks
                .each_ref()
                .map(|stack| stacked(layer, stack, adapter))
        });
        Ok(Self {
            scale: adapter.scale(),
            blocks: blocks.collect(),
            head: adapter.head().cloned(),
        })
    }

    /// The same shapes, all zero.
    pub(crate) fn zeros_like(&self) -> Self {
        let zeros = |stacks: &[lora_linear::Factors; 4]| {
            stacks.each_ref().map(lora_linear::Factors::zeros_like)
        };
        Self {
            scale: self.scale,
            blocks: self.blocks.iter().map(zeros).collect(),
            head: self.head.as_ref().map(Head::zeros_like),
        }
    }

    /// The change of one stack; none where nothing of it is adapted.
    pub(crate) fn of(&self, block: usize, stack: usize) -> Option<Change<'_>> {
        let factors = self.blocks.get(block)?.get(stack)?;
        (!factors.parts.is_empty()).then_some(Change {
            factors,
            scale: self.scale,
        })
    }

    /// The factors of one stack.
    pub(crate) fn stack_mut(
        &mut self,
        block: usize,
        stack: usize,
    ) -> Option<&mut lora_linear::Factors> {
        self.blocks.get_mut(block)?.get_mut(stack)
    }

    /// The lowest block that is adapted: no gradient is needed below it.
    pub(crate) fn lowest(&self) -> Option<usize> {
        self.blocks
            .iter()
            .position(|stacks| stacks.iter().any(|factors| !factors.parts.is_empty()))
    }

    /// All values, in a fixed order.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[f32]> {
        let stacks = self.blocks.iter().flatten();
        let factors = stacks.flat_map(|f| {
            std::iter::once(f.a.as_slice()).chain(f.parts.iter().map(|part| part.b.as_slice()))
        });
        let head = self.head.iter();
        factors.chain(head.flat_map(Head::slices))
    }

    /// All values, in the same order.
    pub(crate) fn slices_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let stacks = self.blocks.iter_mut().flatten();
        let factors = stacks.flat_map(|f| {
            std::iter::once(f.a.as_mut_slice())
                .chain(f.parts.iter_mut().map(|part| part.b.as_mut_slice()))
        });
        let head = self.head.iter_mut();
        factors.chain(head.flat_map(Head::slices_mut))
    }

    /// The factors A, those of a stack in one.
    pub(crate) fn firsts_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let stacks = self.blocks.iter_mut().flatten();
        stacks.map(|factors| factors.a.as_mut_slice())
    }

    /// For each of [`Changes::slices`] whether it is an A.
    pub(crate) fn which_are_a(&self) -> Vec<bool> {
        let stacks = self.blocks.iter().flatten();
        let of = |f: &lora_linear::Factors| {
            std::iter::once(true).chain(std::iter::repeat_n(false, f.parts.len()))
        };
        let head = self.head.iter().flat_map(Head::slices).map(|_| false);
        stacks.flat_map(of).chain(head).collect()
    }

    /// Back to an adapter.
    pub(crate) fn to_adapter(&self, model: &Model) -> Result<Adapter, adapter::Error> {
        let mut factors = Vec::new();
        for shape in model.weights() {
            let block = usize::from(shape.name.layer());
            let Some((stacks, own)) = model.blocks().get(block).zip(self.blocks.get(block)) else {
                continue;
            };
            for (stack, own) in stacks.stacks.iter().zip(own) {
                let Some(place) = stack
                    .parts
                    .iter()
                    .find(|part| part.projection == shape.name.projection())
                else {
                    continue;
                };
                let Some(part) = own.parts.iter().find(|part| part.column == place.first) else {
                    continue;
                };
                let a = own
                    .a
                    .iter()
                    .skip(part.first * shape.inp)
                    .take(part.rank * shape.inp)
                    .copied()
                    .collect();
                factors.push(Factors::new(shape, part.rank as u16, a, part.b.clone())?);
            }
        }
        Ok(Adapter::new(self.scale, factors)?.with_head(self.head.clone()))
    }
}

fn stacked(layer: u16, stack: &Stack, adapter: &Adapter) -> lora_linear::Factors {
    let mut factors = lora_linear::Factors::default();
    let mut first = 0;
    for place in &stack.parts {
        let Some(own) = adapter.get(WeightName::new(layer, place.projection)) else {
            continue;
        };
        let rank = usize::from(own.rank());
        factors.a.extend_from_slice(own.a());
        factors.parts.push(Part {
            column: place.first,
            outputs: place.outputs,
            first,
            rank,
            b: own.b().to_vec(),
        });
        first += rank;
    }
    factors
}

//! The factors of one block moved along a direction.

use domain::adapter::WeightName;

use super::super::emphasis::Emphasis;
use super::super::replay::{Factor, tensor};
use crate::compute::Changes;
use crate::model::Model;
use crate::normal::Normals;
use crate::ops::lora_linear::Factors;

/// What the numbers of directions are multiplied by, block by block, tensor by tensor in the order of [`tensors`];
/// empty where by nothing.
pub(super) type Scales = Vec<Vec<Option<Vec<f32>>>>;

/// Those of an adapter: of its own size where every tensor has some.
pub(super) fn scales(model: &Model, changes: &mut Changes, emphasis: &Emphasis) -> Scales {
    if emphasis.is_none() {
        return Scales::new();
    }
    let blocks = changes.blocks.iter_mut().enumerate();
    let each = blocks.map(|(block, stacks)| {
        let tensors = tensors(model, block, stacks).into_iter();
        tensors
            .map(|(tensor, values)| emphasis.of(tensor, values.len()))
            .collect()
    });
    each.collect()
}

/// Copies `from` over `into`, whose buffers are used again.
pub(super) fn copy(into: &mut Factors, from: &Factors) {
    into.a.clone_from(&from.a);
    into.parts.truncate(from.parts.len());
    into.parts.resize_with(from.parts.len(), Default::default);
    for (into, from) in into.parts.iter_mut().zip(&from.parts) {
        (into.column, into.outputs) = (from.column, from.outputs);
        (into.first, into.rank) = (from.first, from.rank);
        into.b.clone_from(&from.b);
    }
}

/// Adds `factor·z` to the factors of one block.
pub(super) fn add(
    model: &Model,
    (block, scales): (usize, &Scales),
    stacks: &mut [Factors; 4],
    (direction, factor): (Normals, f32),
) {
    let mut scales = scales.get(block).into_iter().flatten();
    for (tensor, values) in tensors(model, block, stacks) {
        match scales.next().and_then(Option::as_ref) {
            Some(scale) => Normals::add_scaled(&[(direction, factor)], tensor, values, scale),
            None => direction.add(tensor, values, factor),
        }
    }
}

/// The tensors of one block by their numbers in every direction.
fn tensors<'a>(
    model: &Model,
    block: usize,
    stacks: &'a mut [Factors; 4],
) -> Vec<(u32, &'a mut [f32])> {
    let mut found = Vec::new();
    let Some(frozen) = model.blocks().get(block) else {
        return found;
    };
    for (stack, own) in frozen.stacks.iter().zip(stacks) {
        let Factors { a, parts } = own;
        let mut rest = a.as_mut_slice();
        let ranks: usize = parts.iter().map(|part| part.rank).sum();
        let inputs = rest.len() / ranks.max(1);
        for part in parts {
            let place = stack.parts.iter().find(|place| place.first == part.column);
            let Some(place) = place else { continue };
            // Invariant: a model has fewer than 2^16 blocks.
            let name = WeightName::new(block as u16, place.projection);
            let (rows, others) = rest.split_at_mut(part.rank * inputs);
            rest = others;
            found.push((tensor(name, Factor::A), rows));
            found.push((tensor(name, Factor::B), part.b.as_mut_slice()));
        }
    }
    found
}

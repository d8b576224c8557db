//! An adapter's factors moved along directions: those of one block beside it, or all of them where they are.

use domain::adapter::WeightName;

use super::super::emphasis::Emphasis;
use super::super::replay::{Factor, tensor};
use crate::compute::Changes;
use crate::control::{Cancelled, Control};
use crate::model::Model;
use crate::normal::{Moving, Normals};
use crate::ops::lora_linear::Factors;

/// What the numbers of directions are multiplied by, block by block, tensor by tensor in the order of [`tensors`];
/// empty where by nothing.
pub(super) type Scales = Vec<Vec<Option<Vec<f32>>>>;

/// Those of an adapter: of its own size where every tensor has some. The control is told before each tensor.
///
/// # Errors
/// It was cancelled.
pub(super) fn scales(
    model: &Model,
    changes: &mut Changes,
    emphasis: &Emphasis,
    control: &Control,
) -> Result<Scales, Cancelled> {
    let (mut made, none) = (Scales::new(), Scales::new());
    if emphasis.is_none() {
        return Ok(made);
    }
    for (block, stacks) in changes.blocks.iter_mut().enumerate() {
        let mut own = Vec::new();
        for one in tensors(model, (block, &none), stacks, None) {
            control.block()?;
            own.push(emphasis.of(one.tensor, one.values.len()));
        }
        made.push(own);
    }
    Ok(made)
}

/// Forms `from + factor·z` in `into`, both the factors of one block; the buffers of `into` are used again.
pub(super) fn form(
    model: &Model,
    (block, scales): (usize, &Scales),
    (into, from): (&mut [Factors; 4], &[Factors; 4]),
    by: (Normals, f32),
) {
    for (into, from) in into.iter_mut().zip(from) {
        shape(into, from);
    }
    Normals::move_all(&[by], tensors(model, (block, scales), into, Some(from)));
}

/// Moves all factors by one of these after the other.
pub(super) fn walk(
    model: &Model,
    scales: &Scales,
    changes: &mut Changes,
    moves: &[(Normals, f32)],
) {
    let blocks = changes.blocks.iter_mut().enumerate();
    let all = blocks.flat_map(|(block, stacks)| tensors(model, (block, scales), stacks, None));
    Normals::move_all(moves, all);
}

/// Gives `into` the shape of `from`; its values mean nothing then.
fn shape(into: &mut Factors, from: &Factors) {
    into.a.resize(from.a.len(), 0.0);
    into.parts.truncate(from.parts.len());
    into.parts.resize_with(from.parts.len(), Default::default);
    for (into, from) in into.parts.iter_mut().zip(&from.parts) {
        (into.column, into.outputs) = (from.column, from.outputs);
        (into.first, into.rank) = (from.first, from.rank);
        into.b.resize(from.b.len(), 0.0);
    }
}

/// The tensors of one block, to be moved from where `from` has them, which is of the same shape, or from where they are.
fn tensors<'a>(
    model: &Model,
    (block, scales): (usize, &'a Scales),
    stacks: &'a mut [Factors; 4],
    from: Option<&'a [Factors; 4]>,
) -> Vec<Moving<'a>> {
    let mut found = Vec::new();
    let Some(frozen) = model.blocks().get(block) else {
        return found;
    };
    let mut scales = scales.get(block).into_iter().flatten();
    let mut push = |name, factor, values, from| {
        found.push(Moving {
            tensor: tensor(name, factor),
            values,
            from,
            scale: scales.next().and_then(Option::as_deref),
        });
    };
    for (number, (stack, own)) in frozen.stacks.iter().zip(stacks).enumerate() {
        let beside = from.and_then(|from| from.get(number));
        let Factors { a, parts } = own;
        let ranks: usize = parts.iter().map(|part| part.rank).sum();
        let inputs = a.len() / ranks.max(1);
        let (mut rest, mut first) = (a.as_mut_slice(), 0);
        for (number, part) in parts.iter_mut().enumerate() {
            let count = part.rank * inputs;
            let (rows, others) = rest.split_at_mut(count);
            rest = others;
            let from_a = beside.and_then(|beside| beside.a.get(first..first + count));
            let from_b = beside.and_then(|beside| Some(beside.parts.get(number)?.b.as_slice()));
            first += count;
            let place = stack.parts.iter().find(|place| place.first == part.column);
            let Some(place) = place else { continue };
            // Invariant: a model has fewer than 2^16 blocks.
            let name = WeightName::new(block as u16, place.projection);
            push(name, Factor::A, rows, from_a);
            push(name, Factor::B, part.b.as_mut_slice(), from_b);
        }
    }
    found
}

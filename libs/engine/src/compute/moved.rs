//! A pass at `θ + factor·z` where θ is a whole model: each part is moved just before it is computed with.
//!
//! Promises: the model is not touched. What is held beside it is one block, the table of positions where the family
//! has one, and as many moved rows of the embedding and the output layer as are read at a time.

use std::ops::Range;

use super::forward::{Pass, decoder};
use super::{Error, Packed, Workspace, head};
use crate::control::Control;
use crate::model::parameters::{self, EMBEDDING, OUTPUT};
use crate::model::{Block, Matrix, Model, Norm};
use crate::normal::{Moving, Normals};
use crate::ops::Table;
use crate::ops::frozen::Frozen;
use crate::source::Name;

/// Along which direction, and how far.
pub(crate) type Move = (Normals, f32);

/// What holds the moved parts; used again.
pub(crate) struct Room {
    block: Block,
    positions: Vec<f32>,
    norm: Norm,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            block: Block::empty(),
            positions: Vec::new(),
            norm: Norm::default(),
        }
    }
}

impl Room {
    /// Bytes that it holds.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let vectors = [&self.positions, &self.norm.weight, &self.norm.bias];
        let vectors = vectors.into_iter().map(|vector| 4 * vector.capacity());
        self.block.bytes() + vectors.sum::<usize>()
    }
}

/// A table of the model, moved as it is read.
struct Moved<'a> {
    table: &'a Matrix,
    number: u32,
    by: Move,
}

impl Table for Moved<'_> {
    type Error = candle_core::Error;

    fn count(&self) -> usize {
        self.table.count()
    }

    fn width(&self) -> usize {
        self.table.width()
    }

    fn rows<'a>(
        &'a self,
        range: Range<usize>,
        scratch: &'a mut Vec<f32>,
    ) -> Result<&'a [f32], candle_core::Error> {
        let first = range.start * self.width();
        let mut decoded = Vec::new();
        let own = self.table.rows(range, &mut decoded)?;
        scratch.clear();
        scratch.extend_from_slice(own);
        let (direction, factor) = self.by;
        direction.add_part(self.number, first, scratch, factor);
        Ok(scratch)
    }
}

/// The logarithm of the probability of each target of `packed` at `θ + factor·z`.
///
/// Invariant: the model is one that can be moved.
pub(crate) fn scores_along(
    model: &Model,
    by: Move,
    packed: &Packed,
    room: &mut Room,
    control: &Control,
    workspace: &mut Workspace,
) -> Result<Vec<f32>, Error> {
    decoder(model, "train without gradients")?;
    let Room {
        block: moved,
        positions,
        norm,
    } = room;
    let table = |number, table| Moved { table, number, by };
    let embedding = table(EMBEDDING, model.embedding());
    positions.clear();
    positions.extend_from_slice(model.positions());
    add(by, Name::Positions, positions);
    let mut pass = Pass::new(model, None, packed, workspace);
    let mut hidden = pass.embed_from(&embedding, positions)?;
    for ((layer, index), block) in (0u16..).zip(0..).zip(model.blocks()) {
        control.block()?;
        moved.copy_from(block);
        let parameters = moved.parameters(model.config(), layer);
        Normals::move_all(&[by], parameters.into_iter().map(Moving::from));
        let (next, kept) = pass.block(index, moved, &hidden, None)?;
        kept.give(pass.workspace);
        pass.workspace.give(std::mem::replace(&mut hidden, next));
    }
    norm.clone_from(model.final_norm());
    add(by, Name::FinalNorm, &mut norm.weight);
    add(by, Name::FinalNormBias, &mut norm.bias);
    let output = match model.own_output() {
        Some(own) => table(OUTPUT, own),
        None => embedding,
    };
    let output = Frozen {
        weight: &output,
        kernel: model.kernel(),
    };
    let by = (&*norm, output, model.config());
    let scores = head::target_scores_by(by, &hidden, packed, workspace)?;
    workspace.give(hidden);
    Ok(scores)
}

fn add((direction, factor): Move, name: Name, values: &mut [f32]) {
    if let Some(number) = parameters::number(name) {
        direction.add(number, values, factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows that begin anywhere in a group of the generator's numbers, and some that pass its chunks.
    #[test]
    fn rows_of_a_moved_table_are_those_of_the_table_moved_whole() {
        for (count, width) in [(300, 7), (40, 576), (3, 4099)] {
            let data: Vec<f32> = (0..count * width).map(|i| (i as f32).sin()).collect();
            for direction in [Normals::direction(5, 6, 1), Normals::signs(5, 6, 1)] {
                let mut want = data.clone();
                direction.add(9, &mut want, 0.3);
                let table = Matrix::Dense {
                    data: data.clone(),
                    cols: width,
                };
                let moved = Moved {
                    table: &table,
                    number: 9,
                    by: (direction, 0.3),
                };
                assert_eq!((moved.count(), moved.width()), (count, width));
                for range in [0..count, 1..2, count - 1..count, 1..count, count / 2..count] {
                    let mut scratch = vec![7.0; 3];
                    let got = moved.rows(range.clone(), &mut scratch).unwrap();
                    assert_eq!(
                        got,
                        &want[range.start * width..range.end * width],
                        "{range:?}"
                    );
                }
            }
        }
    }
}

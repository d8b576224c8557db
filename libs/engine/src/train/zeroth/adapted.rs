//! An adapter beside a frozen model, moved block by block in a buffer of one block's size.

use super::Error;
use super::course::Point;
use super::moved::{Scales, form, walk};
use crate::compute::{self, Changes, Packed, Workspace};
use crate::control::Control;
use crate::model::Model;
use crate::normal::Normals;

/// The adapter, and what moves it.
#[derive(Debug)]
pub(super) struct Adapted<'m> {
    pub(super) model: &'m Model,
    pub(super) changes: Changes,
    /// One block's moved factors, of each pass that is computed at once.
    pub(super) moved: Changes,
    /// What the numbers of directions are multiplied by.
    pub(super) scales: Scales,
    pub(super) workspace: Workspace,
}

impl Point for Adapted<'_> {
    fn model(&self) -> &Model {
        self.model
    }

    fn losses(
        &mut self,
        packed: &Packed,
        moves: &[(Normals, f32)],
        control: &Control,
    ) -> Result<Vec<f64>, Error> {
        let Self {
            model,
            changes,
            moved,
            scales,
            workspace,
        } = self;
        moved.blocks.resize_with(moves.len(), Default::default);
        let mut prepare = |block: usize, moved: &mut Changes| {
            let Some(own) = changes.blocks.get(block) else {
                return;
            };
            for (moved, by) in moved.blocks.iter_mut().zip(moves) {
                form(model, (block, scales), (moved, own), *by);
            }
        };
        let all = packed.repeated(moves.len());
        let scores = model.threads().run(|| {
            let hidden =
                compute::forward_each(model, &all, moved, &mut prepare, control, workspace)?;
            let scores = compute::target_scores(model, &hidden, &all, workspace)?;
            workspace.give(hidden);
            Ok::<_, compute::Error>(scores)
        })?;
        let targets = packed.targets.len();
        let mean = |scores: &[f32]| {
            let total: f64 = scores.iter().map(|score| -f64::from(*score)).sum();
            total / targets as f64
        };
        // Invariant: a batch without targets was refused.
        Ok(scores.chunks(targets.max(1)).map(mean).collect())
    }

    fn walk(&mut self, moves: &[(Normals, f32)]) {
        let Self {
            model,
            changes,
            scales,
            ..
        } = self;
        model.threads().run(|| walk(model, scales, changes, moves));
    }
}

//! From the residual stream to what is read of the output layer, at chosen positions.

use super::{Error, Workspace};
use crate::model::Model;
use crate::ops::{cross_entropy, rms_norm};

/// The rows of `hidden` `[tokens, width]` at `positions`, `[positions, width]`.
pub(crate) fn gather(
    hidden: &[f32],
    width: usize,
    positions: &[usize],
    workspace: &mut Workspace,
) -> Vec<f32> {
    let mut rows = workspace.take(positions.len() * width);
    for (row, position) in rows.chunks_exact_mut(width).zip(positions) {
        if let Some(from) = hidden.get(position * width..(position + 1) * width) {
            row.copy_from_slice(from);
        }
    }
    rows
}

/// The logarithm of the probability of each wanted id after each position.
pub(crate) fn log_probabilities(
    model: &Model,
    hidden: &[f32],
    positions: &[usize],
    wanted: &[&[u32]],
    workspace: &mut Workspace,
) -> Result<Vec<Vec<f32>>, Error> {
    let config = model.config();
    let x = gather(hidden, config.hidden, positions, workspace);
    let mut normed = workspace.take(x.len());
    rms_norm::forward(&mut normed, &x, model.final_norm(), config.epsilon);
    let scores =
        cross_entropy::log_probabilities(&normed, model.output(), wanted, &mut workspace.ops)?;
    workspace.give(x);
    workspace.give(normed);
    Ok(scores)
}

/// The logits `[positions, vocabulary]`; for few positions only.
pub(crate) fn logits(
    model: &Model,
    hidden: &[f32],
    positions: &[usize],
    workspace: &mut Workspace,
) -> Result<Vec<f32>, Error> {
    let config = model.config();
    let x = gather(hidden, config.hidden, positions, workspace);
    let mut normed = workspace.take(x.len());
    rms_norm::forward(&mut normed, &x, model.final_norm(), config.epsilon);
    let logits = cross_entropy::logits(&normed, model.output(), &mut workspace.ops)?;
    workspace.give(x);
    workspace.give(normed);
    Ok(logits)
}

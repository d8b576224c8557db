//! From the residual stream to what is read of the output layer, at chosen positions.

use super::forward::add;
use super::{Error, Packed, Workspace, norm};
use crate::model::{Config, Model, Norm};
use crate::ops::frozen::Frozen;
use crate::ops::{Table, choice, cross_entropy};

/// The rows of `hidden` `[tokens, width]` at `positions`, `[positions, width]`.
fn gather(
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

/// The gradient `[tokens, hidden]` of which only the rows at `positions` are not zero.
fn scatter(
    tokens: usize,
    hidden: usize,
    positions: &[usize],
    rows: &[f32],
    workspace: &mut Workspace,
) -> Vec<f32> {
    let mut out = workspace.take(tokens * hidden);
    out.fill(0.0);
    for (position, row) in positions.iter().zip(rows.chunks_exact(hidden)) {
        if let Some(out) = out.get_mut(position * hidden..(position + 1) * hidden) {
            add(out, row);
        }
    }
    out
}

/// The mean loss of the batch's targets, and its gradient `[tokens, hidden]` with respect to the
/// residual stream after the last block.
pub(crate) fn loss_and_gradient(
    model: &Model,
    hidden: &[f32],
    packed: &Packed,
    workspace: &mut Workspace,
) -> Result<(f64, Vec<f32>), Error> {
    let config = model.config();
    let positions = packed.target_positions();
    let targets: Vec<u32> = packed.targets.iter().map(|target| target.token).collect();
    let x = gather(hidden, config.hidden, &positions, workspace);
    let mut normed = workspace.take(x.len());
    norm::forward(&mut normed, &x, model.final_norm(), config.epsilon);
    let mut d_normed = workspace.take(x.len());
    let count = targets.len() as f32;
    let (output, among, scale) = (model.output(), &packed.among, 1.0 / count);
    let losses = if among.is_empty() {
        let ops = &mut workspace.ops;
        cross_entropy::losses_and_gradient(&mut d_normed, &normed, output, &targets, scale, ops)?
    } else {
        let gradient = Some((d_normed.as_mut_slice(), scale));
        choice::losses(&normed, output.weight, among, &targets, gradient)?
    };
    let mut d_rows = normed;
    d_rows.fill(0.0);
    norm::backward(
        &mut d_rows,
        &d_normed,
        &x,
        model.final_norm(),
        config.epsilon,
    );
    let d_hidden = scatter(
        packed.tokens.len(),
        config.hidden,
        &positions,
        &d_rows,
        workspace,
    );
    for buffer in [x, d_normed, d_rows] {
        workspace.give(buffer);
    }
    let total: f64 = losses.iter().copied().map(f64::from).sum();
    Ok((total / f64::from(count), d_hidden))
}

/// The logarithm of the probability of each wanted id after each position.
pub(crate) fn log_probabilities(
    model: &Model,
    hidden: &[f32],
    positions: &[usize],
    wanted: &[&[u32]],
    workspace: &mut Workspace,
) -> Result<Vec<Vec<f32>>, Error> {
    let by = (model.final_norm(), model.config());
    let normed = normed(by, hidden, positions, workspace);
    let ops = &mut workspace.ops;
    let scores = cross_entropy::log_probabilities(&normed, model.output(), wanted, ops)?;
    workspace.give(normed);
    Ok(scores)
}

/// The logarithm of the probability of each target of `packed`, among all tokens or those that it is among.
pub(crate) fn target_scores(
    model: &Model,
    hidden: &[f32],
    packed: &Packed,
    workspace: &mut Workspace,
) -> Result<Vec<f32>, Error> {
    let by = (model.final_norm(), model.output(), model.config());
    target_scores_by(by, hidden, packed, workspace)
}

/// As [`target_scores`], by this normalization and this output layer.
pub(super) fn target_scores_by<T: Table<Error = candle_core::Error>>(
    (final_norm, output, config): (&Norm, Frozen<'_, T>, &Config),
    hidden: &[f32],
    packed: &Packed,
    workspace: &mut Workspace,
) -> Result<Vec<f32>, Error> {
    let by = (final_norm, config);
    let normed = normed(by, hidden, &packed.target_positions(), workspace);
    let targets: Vec<u32> = packed.targets.iter().map(|target| target.token).collect();
    let scores = if packed.among.is_empty() {
        let wanted: Vec<&[u32]> = targets.chunks(1).collect();
        let ops = &mut workspace.ops;
        let scores = cross_entropy::log_probabilities(&normed, output, &wanted, ops)?;
        scores.into_iter().flatten().collect()
    } else {
        let losses = choice::losses(&normed, output.weight, &packed.among, &targets, None)?;
        losses.into_iter().map(|loss| -loss).collect()
    };
    workspace.give(normed);
    Ok(scores)
}

/// The logarithm of the probability of each token that the targets of `packed` are among, target by target.
pub(crate) fn scores_among(
    model: &Model,
    hidden: &[f32],
    packed: &Packed,
    workspace: &mut Workspace,
) -> Result<Vec<Vec<f64>>, Error> {
    let by = (model.final_norm(), model.config());
    let normed = normed(by, hidden, &packed.target_positions(), workspace);
    let scores = choice::log_probabilities(&normed, model.output().weight, &packed.among)?;
    workspace.give(normed);
    Ok(scores)
}

/// The normalized rows of `hidden` at `positions`.
fn normed(
    (final_norm, config): (&Norm, &Config),
    hidden: &[f32],
    positions: &[usize],
    workspace: &mut Workspace,
) -> Vec<f32> {
    let x = gather(hidden, config.hidden, positions, workspace);
    let mut normed = workspace.take(x.len());
    norm::forward(&mut normed, &x, final_norm, config.epsilon);
    workspace.give(x);
    normed
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
    norm::forward(&mut normed, &x, model.final_norm(), config.epsilon);
    let logits = cross_entropy::logits(&normed, model.output(), &mut workspace.ops)?;
    workspace.give(x);
    workspace.give(normed);
    Ok(logits)
}

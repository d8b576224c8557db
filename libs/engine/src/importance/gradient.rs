//! Importance from the mean gradient of the loss by each frozen weight.
//!
//! No gradient of a weight's size is kept, nor an adapter or an optimizer: of every weight's gradient there
//! is a random sketch, and where the sketches of all blocks are more than is allowed the pass is
//! repeated for some blocks at a time.

use super::groups::{Group, groups};
use super::{Error, Importance, Settings, WeightImportance, pack, records_of};
use crate::compute::{self, Keep, Learn, Packed, Workspace};
use crate::control::Control;
use crate::data::Batch;
use crate::model::Model;

/// Measures the importance of the weights of `model` without an adapter: from the mean, over `batches`, of
/// the gradient of a batch's mean loss.
///
/// A pass is forward and backward with only the blocks' inputs kept, through each batch; one is made for
/// each group of blocks whose sketches fit together.
///
/// # Errors
/// There is nothing to measure or too little memory, a batch does not fit the model or has no labels,
/// the control was cancelled, or a loss or a gradient is not finite.
pub fn measure(
    model: &Model,
    settings: &Settings<'_>,
    batches: &[Batch],
    control: &Control,
) -> Result<Importance, Error> {
    if batches.is_empty() {
        return Err(Error::NothingToMeasure);
    }
    let packed = pack(model, batches)?;
    let mut workspace = Workspace::default();
    let weights = weigh(model, settings, batches, &packed, control, &mut workspace)?;
    Ok(Importance {
        weights,
        records: records_of(batches),
    })
}

/// What the weights are worth, group by group.
pub(super) fn weigh(
    model: &Model,
    settings: &Settings<'_>,
    batches: &[Batch],
    packed: &[Packed],
    control: &Control,
    workspace: &mut Workspace,
) -> Result<Vec<WeightImportance>, Error> {
    let mut weights = Vec::new();
    for blocks in groups(model.config(), settings)? {
        let keep = Keep::Inputs { from: blocks.start };
        let mut group = Group::new(model, settings, blocks);
        for (batch, packed) in packed.iter().enumerate() {
            let learn = (keep, Learn::Frozen(&mut group));
            let loss = compute::learn(model, None, packed, learn, control, workspace)?;
            if !loss.is_finite() {
                return Err(Error::loss(batch, batches));
            }
        }
        let rank = usize::from(settings.rank_max);
        weights.extend(group.importance(model, rank, batches.len())?);
    }
    Ok(weights)
}

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
    measure_while(model, settings, batches, &mut |_| true, control)
}

/// How far the first pass of a measurement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Batches that went through.
    pub batches: usize,
    /// How often they go through in all.
    pub passes: usize,
}

/// [`measure`] over the leading batches alone: the first, and each further one that `more` wants. It is asked in the
/// first pass; the other passes are made through the same batches. So whoever has a clock bounds how long it takes.
///
/// # Errors
/// As [`measure`].
pub fn measure_while(
    model: &Model,
    settings: &Settings<'_>,
    batches: &[Batch],
    more: &mut dyn FnMut(Taken) -> bool,
    control: &Control,
) -> Result<Importance, Error> {
    if batches.is_empty() {
        return Err(Error::NothingToMeasure);
    }
    let packed = pack(model, batches)?;
    let mut taken = 0;
    let mut counted = |so_far: Taken| {
        let wanted = so_far.batches == 0 || more(so_far);
        taken += usize::from(wanted);
        wanted
    };
    let drawn = (batches, packed.as_slice());
    let mut workspace = Workspace::default();
    let weights = weigh(
        model,
        settings,
        drawn,
        &mut counted,
        control,
        &mut workspace,
    )?;
    let measured = batches.get(..taken).unwrap_or(batches);
    Ok(Importance {
        weights,
        records: records_of(measured),
    })
}

/// What the weights are worth, group by group, by the batches that `more` wants of those that were drawn and packed.
pub(super) fn weigh(
    model: &Model,
    settings: &Settings<'_>,
    (batches, packed): (&[Batch], &[Packed]),
    more: &mut dyn FnMut(Taken) -> bool,
    control: &Control,
    workspace: &mut Workspace,
) -> Result<Vec<WeightImportance>, Error> {
    let groups = groups(model.config(), settings)?;
    let passes = groups.len();
    let mut taken = packed.len();
    let mut weights = Vec::new();
    for (pass, blocks) in groups.into_iter().enumerate() {
        let keep = Keep::Inputs { from: blocks.start };
        let mut group = Group::new(model, settings, blocks);
        for (batch, packed) in packed.iter().take(taken).enumerate() {
            let so_far = Taken {
                batches: batch,
                passes,
            };
            if pass == 0 && !more(so_far) {
                taken = batch;
                break;
            }
            let learn = (keep, Learn::Frozen(&mut group));
            let loss = compute::learn(model, None, packed, learn, control, workspace)?;
            if !loss.is_finite() {
                return Err(Error::loss(batch, batches));
            }
        }
        let rank = usize::from(settings.rank_max);
        weights.extend(group.importance(model, rank, taken)?);
    }
    Ok(weights)
}

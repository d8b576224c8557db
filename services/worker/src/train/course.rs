//! What a round of training holds in memory, from the merged adapter's file to the update's bytes.
//!
//! Rounds and probes both go this way, so that what a probe measures is what a round needs.

use std::path::Path;

use domain::adapter::RankTable;
use domain::cause::Trouble;
use domain::job::aggregation::Trains;
use engine::model::Model;
use engine::train::{Options, Trainer};

use crate::adapter_file;
use crate::failure::Failure;

/// A trainer that starts from the leading slices of the merged adapter in `global`.
///
/// # Errors
/// If the file is not the adapter that `ranks` asks for, or does not fit the model.
pub fn begin<'m>(
    model: &'m Model,
    global: &Path,
    ranks: &RankTable,
    scale: f64,
    options: Options,
) -> Result<Trainer<'m>, Failure> {
    let start = adapter_file::leading(global, &model.weights(), ranks, scale)?;
    Ok(Trainer::new(model, &start, options)?)
}

/// The factors that were trained as a safetensors file. The trainer's buffers go before the file is made.
///
/// # Errors
/// None that a trained adapter could cause.
pub fn finish(trainer: Trainer<'_>, trained: Trains) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::of(Trouble::Internal, &error);
    let update = trainer.adapter().map_err(failed)?;
    drop(trainer);
    update.trained_to_safetensors(trained).map_err(failed)
}

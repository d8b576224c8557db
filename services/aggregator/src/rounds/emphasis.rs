//! What the numbers of a round's directions are multiplied by, as every site has it: a mask by the merged adapter of one
//! round, and a scale by the scalars of the rounds before.
//!
//! Promises: it follows from the job and its committed rounds alone. Does not: keep anything; whoever asks again has the
//! same again.

use std::path::Path;
use std::sync::Arc;

use artifacts::tensors::TensorFile;
use domain::job::Job;
use domain::zeroth::{Committed, Masked};
use engine::train::{Emphasis, Mask};

use super::walk;
use crate::Error;
use crate::app::Aggregator;

/// What the directions of this round are multiplied by.
///
/// # Errors
/// If store, storage or disk do not answer, or a round is not there.
pub async fn of(aggregator: &Aggregator, job: &Job, round: u32) -> Result<Emphasis, Error> {
    let mezo = &job.spec.training.mezo;
    let past = match mezo.scaling {
        Some(scaling) => walk::before(aggregator, job, round, scaling.rounds).await?,
        None => Vec::new(),
    };
    let emphasis = scaled(job, &past);
    let masked = masked(aggregator, job, round).await?;
    let Some(masked) = masked else {
        return Ok(emphasis);
    };
    let path = aggregator.fetch(job, &masked.adapter).await?;
    let mask = tokio::task::spawn_blocking(move || mask(&path, masked.share)).await??;
    Ok(emphasis.masked(Arc::new(mask)))
}

/// Which numbers move in this round, as a task says it; `None` where all do.
///
/// # Errors
/// If the store does not answer.
pub async fn masked(
    aggregator: &Aggregator,
    job: &Job,
    round: u32,
) -> Result<Option<Masked>, Error> {
    let mask = job.spec.training.mezo.mask;
    let Some(mask) = mask.filter(|mask| round > mask.after) else {
        return Ok(None);
    };
    let of = walk::summary(aggregator, job, mask.after).await?;
    Ok(Some(Masked {
        share: mask.share,
        after: mask.after,
        adapter: of.global,
    }))
}

/// By how far the numbers moved in these rounds, if the job scales its directions.
#[must_use]
pub fn scaled(job: &Job, past: &[Committed]) -> Emphasis {
    let training = &job.spec.training;
    let Some(scaling) = training.mezo.scaling else {
        return Emphasis::default();
    };
    let steps = walk::shared(job);
    let past = past
        .iter()
        .map(|one| (&steps, one.first_step, &one.scalars));
    Emphasis::default().scaled(scaling.weight, past)
}

/// The mask by the adapter in this file.
///
/// # Errors
/// If it cannot be read.
pub fn mask(adapter: &Path, share: f64) -> Result<Mask, Error> {
    let mut mask = Mask::new(share);
    TensorFile::open(adapter)?.each(|name, values| mask.add(name, values))?;
    Ok(mask)
}

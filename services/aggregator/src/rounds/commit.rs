//! Committing a round: its summary and its score are written once, and the first that is written stands.
//!
//! A process that lost its lease in the middle of a merge may come to this point later than the one that
//! took over. The record of the job is fenced by its revision; these values are fenced by being created,
//! never replaced. Whoever comes second goes on with what stands there.

use contract::topology::{round_key, score_key};
use domain::id::{JobId, WorkerName};
use domain::round::{Evaluated, Summary};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::app::Aggregator;

/// Commits a round; returns the summary that stands, which may be that of another process.
///
/// # Errors
/// [`Error::Contradicted`] if the one that stands is of another decision; or if the store does not answer.
pub async fn summary(
    aggregator: &Aggregator,
    job: &JobId,
    summary: Summary,
) -> Result<Summary, Error> {
    let key = round_key(job, summary.round);
    let stands = first(&aggregator.rounds, &key, &summary, "round summary").await?;
    if decision(&stands) != decision(&summary) {
        let round = summary.round;
        return Err(Error::Contradicted { round });
    }
    if stands.global != summary.global {
        tracing::warn!(%job, round = summary.round, "this round was merged to other bytes by another process, whose stand");
    }
    Ok(stands)
}

/// Stores a score; returns the one that stands.
///
/// # Errors
/// If the store does not answer.
pub async fn score(
    aggregator: &Aggregator,
    job: &JobId,
    score: Evaluated,
) -> Result<Evaluated, Error> {
    let key = score_key(job, score.round);
    first(&aggregator.scores, &key, &score, "score").await
}

async fn first<T: Serialize + DeserializeOwned + Clone>(
    store: &bus::Store<T>,
    key: &str,
    value: &T,
    what: &'static str,
) -> Result<T, Error> {
    match store.create(key, value).await {
        Ok(_) => Ok(value.clone()),
        Err(bus::Error::Conflict { .. }) => {
            let stands = store.get(key).await?;
            let stands = stands.map(|(stands, _)| stands);
            stands.ok_or(Error::Missing { what })
        }
        Err(error) => Err(error.into()),
    }
}

/// What was merged, in which order.
fn decision(summary: &Summary) -> Vec<(&WorkerName, &str, Option<u32>)> {
    let workers = summary.workers.iter();
    let of = workers.map(|one| (&one.worker, one.update.sha256.as_str(), one.trained_in));
    of.collect()
}

//! Each zeroth-order site's own rate: `η_i = η·(1 + spread·Φ_i)`, `Φ_i = (s_i − s̄) / max_j |s_j − s̄|` of a statistic s of
//! the round before (FedMeZO, arXiv 2402.05926, whose α is `spread·η`).
//!
//! Promises: a rate follows from the job and its committed rounds alone, so whoever drives the job next gives, checks
//! and merges with the same; no site is told more than its own rate. Does not: give a statistic to a site that was not
//! in the round before, or had no loss in the rounds that count; it trains at η.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use domain::id::{JobId, WorkerName};
use domain::job::Job;
use domain::job::mezo::Rates;
use domain::job::spec::Training;
use domain::round::{Summary, WorkerRound};
use sha2::{Digest as _, Sha256};

use super::walk::summary;
use crate::Error;
use crate::app::Aggregator;

/// Statistics are equal if none lies further from their mean than this share of it: what is left is rounding, and
/// says nothing of the sites.
const EQUAL: f64 = 1e-9;

/// What a site's rate in a round is of the job's. `past` are the rounds before it, the latest last.
#[must_use]
pub fn factor(training: &Training, round: u32, worker: &WorkerName, past: &[Summary]) -> f64 {
    let mezo = &training.mezo;
    let phi = match mezo.rates {
        Rates::Fixed => return 1.0,
        Rates::Random => drawn(training.seed, round, worker),
        Rates::RoundLoss => standing(worker, &of_latest(past, |one| one.metrics.loss())),
        Rates::ModelDifference => standing(worker, &of_latest(past, |one| one.difference)),
        Rates::FiveRoundLoss => standing(worker, &mean_losses(past)),
    };
    1.0 + mezo.rate_spread * phi
}

type Statistics<'a> = BTreeMap<&'a WorkerName, f64>;

/// Of the sites that took part in the latest round, in time.
fn of_latest(past: &[Summary], statistic: impl Fn(&WorkerRound) -> Option<f64>) -> Statistics<'_> {
    let workers = past.last().into_iter().flat_map(|round| &round.workers);
    let in_time = workers.filter(|one| one.trained_in.is_none());
    in_time
        .filter_map(|one| Some((&one.worker, statistic(one)?)))
        .collect()
}

/// The mean of the losses of the last rounds, of the sites that took part in the latest.
fn mean_losses(past: &[Summary]) -> Statistics<'_> {
    let from = past
        .len()
        .saturating_sub(Rates::FiveRoundLoss.rounds() as usize);
    let last = past.get(from..).unwrap_or_default();
    let mean = |one: &WorkerRound| {
        let own = last
            .iter()
            .filter_map(|round| round.of_its_own(&one.worker));
        let losses: Vec<f64> = own.filter_map(|own| own.metrics.loss()).collect();
        (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
    };
    of_latest(past, mean)
}

/// Φ: from −1 to 1; 0 of a site without a statistic, and where all are equal.
fn standing(worker: &WorkerName, statistics: &Statistics<'_>) -> f64 {
    let Some(own) = statistics.get(worker) else {
        return 0.0;
    };
    let mean = statistics.values().sum::<f64>() / statistics.len() as f64;
    let away = statistics.values().map(|one| (one - mean).abs());
    let largest = away.fold(0.0, f64::max);
    if largest > EQUAL * mean.abs() {
        (own - mean) / largest
    } else {
        0.0
    }
}

/// Evenly from −1 to 1, for each site and round anew.
fn drawn(seed: u64, round: u32, worker: &WorkerName) -> f64 {
    let mut hash = Sha256::new();
    hash.update(b"fedpipe zeroth-order rate");
    hash.update(seed.to_le_bytes());
    hash.update(round.to_le_bytes());
    hash.update(worker.as_str());
    let digest: [u8; 32] = hash.finalize().into();
    let bits = digest
        .first_chunk()
        .map_or(0, |first| u32::from_le_bytes(*first));
    2.0 * f64::from(bits) / f64::from(u32::MAX) - 1.0
}

/// What a site's rate in a round is of the job's.
///
/// # Errors
/// If the store does not answer.
pub async fn of(
    aggregator: &Aggregator,
    job: &Job,
    worker: &WorkerName,
    round: u32,
) -> Result<f64, Error> {
    let training = &job.spec.training;
    let past = aggregator.recent.before(aggregator, job, round).await?;
    Ok(factor(training, round, worker, &past))
}

type Known = (u32, Arc<Vec<Summary>>);

/// The rounds that a job's next rates go by, so that they are read once per round. A memory that can be lost.
#[derive(Debug, Default)]
pub struct Recent(Mutex<HashMap<JobId, Known>>);

impl Recent {
    /// Forgets a job.
    pub fn forget(&self, job: &JobId) {
        self.known().remove(job);
    }

    /// The rounds before `round` that its rates go by, the latest last. Round 0 trained nobody.
    async fn before(
        &self,
        aggregator: &Aggregator,
        job: &Job,
        round: u32,
    ) -> Result<Arc<Vec<Summary>>, Error> {
        let back = job.spec.training.mezo.rates.rounds();
        if back == 0 {
            return Ok(Arc::default());
        }
        let known = self.known().get(&job.id).cloned();
        if let Some((of, past)) = known
            && of == round
        {
            return Ok(past);
        }
        let mut past = Vec::new();
        for number in round.saturating_sub(back).max(1)..round {
            past.push(summary(aggregator, job, number).await?);
        }
        let past = Arc::new(past);
        let known = (round, Arc::clone(&past));
        self.known().insert(job.id.clone(), known);
        Ok(past)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

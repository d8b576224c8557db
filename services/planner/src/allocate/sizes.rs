//! The ranks and batches that are looked at.

use domain::job::choice::Choice;
use domain::job::spec::{Optimizer, Spec};

/// Batches that `auto` chooses from: the powers of two and three between any two of them from 4 on, so that workers of different
/// speed can finish close to each other.
const BATCHES: [u16; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32];

/// Ends of [`BATCHES`].
pub(super) const SMALLEST_BATCH: f64 = 1.0;
pub(super) const LARGEST_BATCH: f64 = 32.0;

/// Ranks above 0 that a weight may have, ascending: the powers of two from `least` up to the job's
/// highest, and that one itself.
pub(super) fn ranks(least: u16, rank_max: u16) -> Vec<u16> {
    let powers = (0..16).map(|power| 1u16 << power);
    let mut ranks: Vec<u16> = powers
        .filter(|rank| *rank >= least && *rank < rank_max)
        .collect();
    ranks.push(rank_max);
    ranks
}

/// Records that a round must average for its loss to leave a site that did not consent to less, and a zeroth-order
/// step for its scalar (`docs/privacy.md`): what is left to the planner is chosen so that no site must refuse it.
const LEAST_RECORDS: u64 = 8;

/// The batches that are legal for the job at a site with so many records that trains so, ascending: the fixed one,
/// as many as fill the job's tokens with the mean record, or those of `BATCHES` that do not repeat a record within a
/// batch and average enough records.
pub(super) fn batches(
    spec: &Spec,
    optimizer: Optimizer,
    (records, mean_tokens): (u64, f64),
) -> Vec<u16> {
    if let Some(tokens) = spec.training.batch_tokens {
        // Saturates, and is at least 1.
        return vec![(f64::from(tokens) / mean_tokens.max(1.0)).max(1.0) as u16];
    }
    match spec.training.batch {
        Choice::Fixed(batch) => vec![batch],
        Choice::Auto => {
            let legal = |batch: &u16| *batch == 1 || u64::from(*batch) <= records;
            let steps = match optimizer {
                Optimizer::Mezo => 1,
                Optimizer::Adamw | Optimizer::Sgd | Optimizer::Auto => {
                    u64::from(spec.training.local_steps) * u64::from(spec.training.accumulate)
                }
            };
            let enough = |batch: &u16| u64::from(*batch) * steps >= LEAST_RECORDS;
            let legal: Vec<u16> = BATCHES.into_iter().filter(legal).collect();
            let told: Vec<u16> = legal.iter().copied().filter(enough).collect();
            if told.is_empty() { legal } else { told }
        }
    }
}

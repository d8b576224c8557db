//! The ranks, batches and steps that are looked at.

use domain::job::choice::Choice;
use domain::job::spec::{Optimizer, Spec};
use domain::job::training::AUTO_STEPS_LIMIT;

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

/// Steps that `auto` chooses from: few, and up to where more of them gain little (`worth`).
const STEPS: [u32; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, AUTO_STEPS_LIMIT];

/// The batches, and steps of a round, that are legal for the job at a site with so many records that trains so, each
/// ascending: what the job fixes, and of what it leaves open all that repeats no record within a batch, goes through the
/// site's records once at most if steps are open, and averages enough records.
pub(super) fn sizes(
    spec: &Spec,
    optimizer: Optimizer,
    (records, mean_tokens): (u64, f64),
) -> Vec<(u16, u32)> {
    let accumulate = u64::from(spec.training.accumulate);
    let batches = batches(spec, records, mean_tokens);
    let steps = steps(spec);
    let open = steps.len() > 1;
    let both = steps
        .iter()
        .flat_map(|steps| batches.iter().map(move |batch| (*batch, *steps)));
    let seen = |(batch, steps): &(u16, u32)| u64::from(*batch) * u64::from(*steps) * accumulate;
    let legal: Vec<(u16, u32)> = both
        .filter(|size| !open || size.1 == 1 || seen(size) <= records)
        .collect();
    let enough = |size: &(u16, u32)| match optimizer {
        Optimizer::Mezo => u64::from(size.0) >= LEAST_RECORDS,
        Optimizer::Adamw | Optimizer::Sgd | Optimizer::Auto => seen(size) >= LEAST_RECORDS,
    };
    let told: Vec<(u16, u32)> = legal.iter().copied().filter(enough).collect();
    if told.is_empty() { legal } else { told }
}

/// The fixed batch, as many records as fill the job's tokens with the mean one, or those of `BATCHES` that the site
/// can fill.
fn batches(spec: &Spec, records: u64, mean_tokens: f64) -> Vec<u16> {
    if let Some(tokens) = spec.training.batch_tokens {
        // Saturates, and is at least 1.
        return vec![(f64::from(tokens) / mean_tokens.max(1.0)).max(1.0) as u16];
    }
    match spec.training.batch {
        Choice::Fixed(batch) => vec![batch],
        Choice::Auto => {
            let legal = |batch: &u16| *batch == 1 || u64::from(*batch) <= records;
            BATCHES.into_iter().filter(legal).collect()
        }
    }
}

/// The fixed steps, or those of `STEPS`. Beside open batches, which fill the gaps between them, the powers of two are
/// enough: every one more is a program more to solve.
fn steps(spec: &Spec) -> Vec<u32> {
    let training = &spec.training;
    let by_batch = training.batch.fixed().is_none() && training.batch_tokens.is_none();
    match training.local_steps {
        Choice::Fixed(steps) => vec![steps],
        Choice::Auto => {
            let few = |steps: &u32| !by_batch || steps.is_power_of_two();
            STEPS.into_iter().filter(few).collect()
        }
    }
}

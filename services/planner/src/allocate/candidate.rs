//! The choices that are looked at for one worker.

use domain::job::choice::Choice;
use domain::job::spec::Spec;
use domain::plan::Prediction;

/// Batches that `auto` chooses from. Beside the powers of two their halves between, so that workers of
/// different speed can finish close to each other.
const BATCHES: [u16; 9] = [1, 2, 4, 6, 8, 12, 16, 24, 32];

/// Ends of [`BATCHES`].
pub(super) const SMALLEST_BATCH: f64 = 1.0;
pub(super) const LARGEST_BATCH: f64 = 32.0;

/// One choice for one worker.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    pub rank: u16,
    pub batch: u16,
    /// What a round with it is worth, by [`super::gain`].
    pub gain: f64,
    pub predicted: Prediction,
    /// Memory it needs for training and scoring, the margin included, in bytes.
    pub needed_bytes: f64,
}

/// The ranks that are legal for the job, ascending: the fixed one, or the powers of two up to `rank_max`
/// and `rank_max` itself.
pub(super) fn ranks(spec: &Spec) -> Vec<u16> {
    let most = spec.adapter.rank_max;
    match spec.adapter.rank {
        Choice::Fixed(rank) => vec![rank],
        Choice::Auto => {
            let powers = (0..16).map(|power| 1u16 << power);
            let mut ranks: Vec<u16> = powers.take_while(|rank| *rank < most).collect();
            ranks.push(most);
            ranks
        }
    }
}

/// Records that a round must average for its loss to leave a site that did not consent to less
/// (`docs/privacy.md`): what is left to the planner is chosen so that no site must refuse it.
const LEAST_RECORDS: u64 = 8;

/// The batches that are legal for the job at a site with so many records, ascending: the fixed one, or
/// those of `BATCHES` that do not repeat a record within a step and average enough records in a round.
pub(super) fn batches(spec: &Spec, records: u64) -> Vec<u16> {
    match spec.training.batch {
        Choice::Fixed(batch) => vec![batch],
        Choice::Auto => {
            let legal = |batch: &u16| *batch == 1 || u64::from(*batch) <= records;
            let steps = u64::from(spec.training.local_steps);
            let enough = |batch: &u16| u64::from(*batch) * steps >= LEAST_RECORDS;
            let legal: Vec<u16> = BATCHES.into_iter().filter(legal).collect();
            let told: Vec<u16> = legal.iter().copied().filter(enough).collect();
            if told.is_empty() { legal } else { told }
        }
    }
}

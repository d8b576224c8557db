//! What each update weighs in the merge.

use domain::job::spec::Weighting;
use domain::round::Contribution;

/// Each contribution's share, in their order; the shares add up to 1. Where the figure they go by
/// is zero for all, they are equal.
#[must_use]
pub fn weights(contributions: &[Contribution], weighting: Weighting) -> Vec<f64> {
    let figure = |contribution: &Contribution| match weighting {
        Weighting::Samples => contribution.update.metrics.records as f64,
        Weighting::Tokens => contribution.update.metrics.tokens as f64,
        Weighting::Equal => 1.0,
    };
    let figures: Vec<f64> = contributions.iter().map(figure).collect();
    let sum: f64 = figures.iter().sum();
    let equal = 1.0 / contributions.len().max(1) as f64;
    let share = |figure: f64| if sum > 0.0 { figure / sum } else { equal };
    figures.into_iter().map(share).collect()
}

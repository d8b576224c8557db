//! What each update weighs in the merge.

use domain::job::aggregation::Normalize;
use domain::job::spec::Optimizer;
use domain::job::{Aggregation, Weighting};
use domain::plan::WorkerPlan;
use domain::round::Contribution;

/// What one update weighs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Its share of the merge; all add up to 1.
    pub weight: f64,
    /// What its change is multiplied by before: 1, or with `fednova` τ/τ_i, where τ_i are its steps and
    /// τ the mean number of steps, by the same shares, of those that train as it does (arXiv 2007.07481, equation 9, for
    /// plain steps).
    pub stretch: f64,
    /// Whether its change is added to the mean of the others', and is no part of that: a zeroth-order site's beside
    /// first-order ones.
    pub added: bool,
}

/// What each contribution weighs in a job's merge, in their order: by the job's own weighting, with zeroth-order sites
/// beside first-order ones set apart. `plans` are what the contributors trained by, one for each.
#[must_use]
pub fn shares_of(
    contributions: &[Contribution],
    plans: &[&WorkerPlan],
    aggregation: &Aggregation,
) -> Vec<Share> {
    let is_zeroth_order = |plan: &&WorkerPlan| plan.optimizer == Optimizer::Mezo;
    let zeroth_order: Vec<bool> = plans.iter().map(is_zeroth_order).collect();
    let mut shares = shares(
        contributions,
        &zeroth_order,
        aggregation.weights,
        aggregation.normalize,
    );
    beside(&mut shares, &zeroth_order);
    shares
}

/// Each contribution's share, in their order; the figure that a late one goes by is discounted. Where the
/// figure they go by is zero for all, they are equal. Steps are compared with those of the same kind: a zeroth-order step is
/// another thing than one by gradients, and many of them would stretch what few of the others learned.
pub(super) fn shares(
    contributions: &[Contribution],
    zeroth_order: &[bool],
    weighting: Weighting,
    normalize: Normalize,
) -> Vec<Share> {
    let figure = |contribution: &Contribution| match weighting {
        Weighting::Samples => contribution.update.metrics.records as f64,
        Weighting::Tokens => contribution.update.metrics.tokens as f64,
        Weighting::Equal => 1.0,
    };
    let discounted = |one: &Contribution| figure(one) * one.discount();
    let figures: Vec<f64> = contributions.iter().map(discounted).collect();
    let sum: f64 = figures.iter().sum();
    let equal = 1.0 / contributions.len().max(1) as f64;
    let share = |figure: f64| if sum > 0.0 { figure / sum } else { equal };
    let weights: Vec<f64> = figures.into_iter().map(share).collect();
    // A site without a step has changed nothing, whatever that is multiplied by.
    let steps = |contribution: &Contribution| f64::from(contribution.update.metrics.steps.max(1));
    let mean = |kind: bool| {
        let all = contributions.iter().zip(&weights).zip(zeroth_order);
        let alike = all.filter(|(_, is)| **is == kind);
        let add = |(moved, weighed), ((one, weight), _): ((&Contribution, &f64), &bool)| {
            (moved + steps(one) * weight, weighed + weight)
        };
        let (moved, weighed) = alike.fold((0.0, 0.0), add);
        // Of one kind all weights add up to 1 and are no divisor, but for what rounding leaves.
        let only = zeroth_order.iter().all(|is| *is == kind);
        (weighed > 0.0).then(|| if only { moved } else { moved / weighed })
    };
    let (by_gradients, without) = (mean(false), mean(true));
    let stretch = |(one, is): (&Contribution, &bool)| match normalize {
        Normalize::None => 1.0,
        // Nothing is multiplied where none of a kind weighs anything.
        Normalize::Fednova => {
            let mean = if *is { without } else { by_gradients };
            mean.map_or(1.0, |mean| near_one(mean / steps(one)))
        }
    };
    let stretches = contributions.iter().zip(zeroth_order).map(stretch);
    let both = stretches.zip(&weights);
    both.map(|(stretch, weight)| Share {
        weight: *weight,
        stretch,
        added: false,
    })
    .collect()
}

/// Where zeroth-order sites stand beside others, lets these count among themselves as if they were alone, and adds
/// what the zeroth-order ones found by their share of the whole. A step along random directions moves an adapter far
/// less than one by gradients: by the plain mean it would do little more than shrink the others' change. `zeroth_order`
/// goes with the shares, one by one.
pub(super) fn beside(shares: &mut [Share], zeroth_order: &[bool]) {
    let own = |is: bool| {
        let both = shares.iter().zip(zeroth_order);
        let own = both.filter(move |(_, zeroth_order)| **zeroth_order == is);
        own.map(|(share, _)| share.weight).sum::<f64>()
    };
    let (others, both) = (own(false), own(true) > 0.0);
    if !both || others <= 0.0 {
        return;
    }
    for (share, zeroth_order) in shares.iter_mut().zip(zeroth_order) {
        share.added = *zeroth_order;
        if !zeroth_order {
            share.stretch /= others;
        }
    }
}

/// Equal steps are 1 exactly, so that nothing is left of what everybody trained.
fn near_one(stretch: f64) -> f64 {
    if (stretch - 1.0).abs() < 1e-12 {
        1.0
    } else {
        stretch
    }
}

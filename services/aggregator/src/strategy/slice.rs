//! The slice rule (RBLA, arXiv 2408.08699): each rank-1 slice of A and of B is averaged over the workers
//! that have it, with shares among these; a slice that nobody trained stays. Not exact: the product of two
//! means is not the mean of the products.

use super::Error;
use super::mean;
use super::merge::{Input, Merged};
use super::weight::Weight;

pub(super) fn merge(weight: &Weight<'_>) -> Result<Merged, Error> {
    let live = weight.loaded()?.live;
    mean::merge(weight, &live, shares(weight))
}

/// A worker's share of a slice among those that have it; of those whose changes are averaged among these, where others'
/// are added.
pub(super) fn shares(weight: &Weight<'_>) -> impl Fn(&Input<'_>, usize) -> f64 {
    let sum = |counts: &dyn Fn(&Input<'_>) -> bool| -> f64 {
        let inputs = weight.merge.inputs.iter();
        let counted = inputs.filter(|input| counts(input));
        counted.map(|input| input.weight).sum()
    };
    // Theirs are divided by what they weigh of all, which in a slice is another part than among all sites.
    let averaged = if weight.merge.inputs.iter().any(|input| input.added) {
        sum(&|input| !input.added)
    } else {
        1.0
    };
    let holders = |slice: usize| {
        let holds = |input: &Input<'_>| weight.rank(input) > slice;
        [
            sum(&holds),
            sum(&|input| holds(input) && !input.added) / averaged,
        ]
    };
    let held: Vec<[f64; 2]> = (0..weight.keep).map(holders).collect();
    move |input, slice| {
        let of = held.get(slice).map(|[all, averaged]| match input.added {
            true => *all,
            false => *averaged,
        });
        match of {
            Some(held) if held > 0.0 => input.weight * input.stretch / held,
            _ => 0.0,
        }
    }
}

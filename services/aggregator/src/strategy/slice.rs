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

/// A worker's share of a slice among those that have it.
pub(super) fn shares(weight: &Weight<'_>) -> impl Fn(&Input<'_>, usize) -> f64 {
    let holders = |slice: usize| -> f64 {
        let inputs = weight.merge.inputs.iter();
        inputs
            .filter(|input| weight.rank(input) > slice)
            .map(|input| input.weight)
            .sum()
    };
    let held: Vec<f64> = (0..weight.keep).map(holders).collect();
    move |input, slice| match held.get(slice) {
        Some(held) if *held > 0.0 => input.weight * input.stretch / held,
        _ => 0.0,
    }
}

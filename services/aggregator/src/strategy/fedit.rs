//! The naive rule (`FedIT`, arXiv 2305.05644): the mean of A and the mean of B, at one rank. The product of
//! two means is not the mean of the products; it is here as the baseline that the others are measured by.

use super::Error;
use super::mean;
use super::merge::Merged;
use super::weight::Weight;

pub(super) fn merge(weight: &Weight<'_>) -> Result<Merged, Error> {
    let live = weight.loaded()?.live;
    mean::merge(weight, &live, |input, _| input.weight * input.stretch)
}

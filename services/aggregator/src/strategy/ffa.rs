//! FFA-LoRA (arXiv 2403.12313): A is drawn once, frozen and the same for all, so that the mean of the B is
//! the mean of the products. Updates hold B alone.

use super::Error;
use super::mean;
use super::merge::Merged;
use super::weight::Weight;

pub(super) fn merge(weight: &Weight<'_>) -> Result<Merged, Error> {
    let live = weight.loaded()?.live;
    mean::merge(weight, &live, |input, _| input.weight * input.stretch)
}

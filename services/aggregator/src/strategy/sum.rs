//! The mean of the parameters at one common rank: for jobs whose sites all train zeroth-order. Their
//! updates are sums of steps along directions that everybody can draw again, and the mean of such sums is
//! their sum with averaged steps; no decomposition turns the coordinates, so whoever replays the steps has
//! the same parameters. The arithmetic is that of `fedit`; what differs is what it means.

use super::Error;
use super::mean;
use super::merge::Merged;
use super::weight::Weight;

pub(super) fn merge(weight: &Weight<'_>) -> Result<Merged, Error> {
    let live = weight.loaded()?.live;
    mean::merge(weight, &live, |input, _| input.weight * input.stretch)
}

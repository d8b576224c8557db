//! The residual rule (FedEx-LoRA, arXiv 2410.09432): A and B are averaged, and what the product of the
//! means leaves out of the mean of the products goes into the side term, so that nothing is lost.
//!
//! \[own\]: the paper adds the residual to the base, which here may be quantized and differ between sites;
//! and its ranks are equal, where here each slice is averaged over those that have it. The residual is taken
//! against the averaged factors as they are stored, in 32 bits.

use super::Error;
use super::change::{Change, Space};
use super::mean;
use super::merge::Merged;
use super::side::behind;
use super::slice::shares;
use super::weight::{Loaded, Weight};

pub(super) fn merge(weight: &Weight<'_>, space: &mut Space) -> Result<Merged, Error> {
    let Loaded { live, side } = weight.loaded()?;
    let averaged = mean::merge(weight, &live, shares(weight))?;
    let scale = weight.merge.scale;
    let slices = side.rank + 2 * weight.keep + weight.updated();
    let mut change = Change::new(weight.shape.out, weight.shape.inp, slices, space);
    change.add(&side, &vec![scale; side.rank]);
    drop(side);
    weight.gather(&live, &mut change)?;
    change.add(&averaged.whole, &vec![-scale; weight.keep]);
    let (whole, side) = behind(weight, averaged.whole, &mut change)?;
    Ok(Merged {
        whole,
        side,
        ..averaged
    })
}

//! The stacking rule (`FLoRA`, arXiv 2409.05976): the updates' factors one beside the other are their sum,
//! exactly. They join the side term, which every worker applies and none trains, and the adapter that is
//! trained starts anew: a seeded A, B = 0.
//!
//! \[own\]: the paper folds the stack into the base; here the base stays as it is (it may be quantized, and
//! sites hold it in different precisions), and the side term is compressed to its numerical rank, so that it
//! never holds more slices than the weight is wide. The released code kept client 0 alone; a test with
//! one-hot updates is against that.

use super::Error;
use super::change::{Change, Factors, Space};
use super::merge::Merged;
use super::side::behind;
use super::stream::Purpose;
use super::weight::{Loaded, Weight};

pub(super) fn merge(weight: &Weight<'_>, space: &mut Space) -> Result<Merged, Error> {
    let Loaded { live, side } = weight.loaded()?;
    let slices = side.rank + weight.keep + weight.updated();
    let mut change = Change::new(weight.shape.out, weight.shape.inp, slices, space);
    change.add(&side, &vec![weight.merge.scale; side.rank]);
    drop(side);
    weight.gather(&live, &mut change)?;
    drop(live);
    let purpose = Purpose::Fresh {
        round: weight.merge.round,
    };
    let mut stream = weight.stream(purpose);
    let rows = (0..weight.keep).flat_map(|_| stream.row(weight.shape.inp));
    let live = Factors {
        rank: weight.keep,
        a: rows.map(|value| value as f32).collect(),
        b: vec![0.0; weight.shape.out * weight.keep],
    };
    let (whole, side) = behind(weight, live, &mut change)?;
    Ok(Merged {
        whole,
        side,
        ..Merged::default()
    })
}

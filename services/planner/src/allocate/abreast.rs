//! How many passes of a zeroth-order step are computed as one: as many as the job allows and the site's memory has
//! room for. The buffers of n passes are those of a batch n times as large.

use domain::adapter::RankTable;
use domain::job::spec::Optimizer;

use super::lane::Lane;
use super::predict::{Size, memory_margin, needed_bytes};
use super::site::Site;

/// Passes at once at this site, for what its program chose. Two at a time are the least: the two along a direction.
pub(super) fn passes(site: &Site<'_>, lane: &Lane<'_>, ranks: &RankTable) -> u16 {
    let source = &site.source;
    if lane.mode.mode.optimizer != Optimizer::Mezo {
        return 1;
    }
    let (conditions, margin) = (&source.conditions, memory_margin(lane.mode));
    let fits = |passes: &u16| {
        let size = Size {
            batch: lane.batch,
            steps: lane.steps,
            abreast: *passes,
        };
        let predicted = conditions.predict(lane.mode, ranks, size);
        let tokens = f64::from(lane.batch) * f64::from(*passes);
        source.reaches(
            lane.mode,
            tokens * f64::from(source.spec.training.sequence_length),
        ) && needed_bytes(&predicted, margin) <= site.memory()
    };
    let asked = source.spec.training.mezo.abreast;
    let mut even = (2..=asked).rev().filter(|passes| passes % 2 == 0);
    even.find(fits).unwrap_or(1)
}

//! The side term of a weight: slices that every worker applies and none trains, at their numerical rank.

use super::change::{Change, Factors};
use super::refactor::sign_of_largest;
use super::weight::Weight;
use super::{Error, FRESH_ROW_NORM};

/// Share of what was added up under which a direction is the rounding of 32-bit factors.
const ROUNDING: f64 = 1e-7;

/// Puts what was gathered behind the live slices, in as few slices as hold it: at most as many as the weight's smaller
/// width. Returns how many, too. They are written as they are found, so that nothing of their size is held twice.
pub(super) fn behind(
    weight: &Weight<'_>,
    live: Factors,
    change: &mut Change<'_>,
) -> Result<(Factors, usize), Error> {
    let floor = ROUNDING * change.gross();
    let directions = change
        .directions(floor)
        .ok_or_else(|| weight.undecomposed())?;
    let side = directions.count();
    if side == 0 {
        return Ok((live, 0));
    }
    let rank = live.rank + side;
    let mut a = live.a;
    a.reserve_exact(side * weight.shape.inp);
    let mut b = vec![0.0; weight.shape.out * rank];
    let rows = live.b.chunks_exact(live.rank.max(1));
    for (row, own) in b.chunks_exact_mut(rank).zip(rows) {
        row.iter_mut().zip(own).for_each(|(to, from)| *to = *from);
    }
    let factor = 1.0 / (weight.merge.scale * FRESH_ROW_NORM);
    directions.each(|j, left, v| {
        let sign = sign_of_largest(left.iter().copied());
        a.extend(v.iter().map(|value| (FRESH_ROW_NORM * sign * value) as f32));
        let column = b.iter_mut().skip(live.rank + j).step_by(rank);
        for (to, value) in column.zip(left) {
            *to = (factor * sign * value) as f32;
        }
    });
    Ok((Factors { rank, a, b }, side))
}

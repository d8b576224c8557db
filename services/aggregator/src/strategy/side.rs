//! The side term of a weight: slices that every worker applies and none trains, at their numerical rank.

use super::Error;
use super::change::{Change, Factors};
use super::refactor::{DEAD, refactor};
use super::stream::Purpose;
use super::weight::Weight;

/// Share of what was added up under which a direction is the rounding of 32-bit factors.
const ROUNDING: f64 = 1e-7;

/// What was gathered, in as few slices as hold it: at most as many as the weight's smaller width.
pub(super) fn compress(weight: &Weight<'_>, change: &mut Change<'_>) -> Result<Factors, Error> {
    let floor = ROUNDING * change.gross();
    let spectrum = change
        .spectrum(usize::MAX)
        .ok_or_else(|| weight.undecomposed())?;
    let largest = spectrum.sigma.first().copied().unwrap_or(0.0);
    // What `refactor` would restart must not become a slice that carries nothing.
    let rank = spectrum
        .sigma
        .iter()
        .take_while(|sigma| **sigma > floor && **sigma >= DEAD * largest && **sigma > 0.0)
        .count();
    if rank == 0 {
        return Ok(Factors::default());
    }
    let mut unused = weight.stream(Purpose::Restart);
    let kept = refactor(&spectrum, rank, weight.merge.scale, None, &mut unused);
    Ok(Factors {
        rank,
        a: kept.a,
        b: kept.b,
    })
}

//! In which time the fleet finishes a round together.
//!
//! \[own\] The fleet's gain of a round within time T is `G(T) = Σ_i |D_i|/|D| · g_i(T)`, with `g_i(T)` the
//! best of worker i's choices that finish within T. T is chosen among the choices' own times to minimise
//! *rounds times seconds*: `1/G` rounds for a given progress, of T seconds each, so `1/G · T/G = T/G²`.
//! Progress per second alone (`G/T`) would always take the smallest batch, since gains are concave, and
//! pay for it in rounds, each of which moves adapters and merges; progress per round alone would take
//! the largest. Their product is the balance of McCandlish et al. (arXiv 1812.06162): steps need
//! `1 + B/b`, examples need `b + B`, and the product is least at `b = B`, the gradient's noise scale.
//!
//! Every site that can take part does: T is never less than the slowest site's fastest choice, and the
//! others use that time for a larger rank and batch.

use super::noise::BatchNoise;
use super::site::Site;

/// Times that are tried at most, so that a large fleet is planned in time linear in its size.
const TIMES: usize = 512;

/// What a round with this choice is worth, between 0 and 1: `φ(rank) · ψ(batch)`, each concave.
///
/// `ψ` is the measured one of [`BatchNoise::worth`]. \[own\] `φ(r) = log(1+r)/log(1+rank_max)`: what the
/// first r directions of an update hold if the energy of the j-th falls like 1/j. That is an assumption,
/// and stays one here: the spectrum is that of the gradient of the frozen weight, which no probe has
/// (the engine never computes it, and an adapter's own gradient sees it only through random rows, which
/// weigh all directions alike). Importance sketched per weight takes its place when probes bring it.
#[must_use]
pub fn gain(rank: u16, rank_max: u16, batch: u16, noise: BatchNoise) -> f64 {
    let (rank, most) = (f64::from(rank), f64::from(rank_max));
    rank.ln_1p() / most.max(1.0).ln_1p() * noise.worth(batch)
}

/// The fleet's time, in seconds: the one with the least `T/G²`, the shorter of equals.
pub(super) fn together<'a>(sites: &'a [Site<'a>]) -> f64 {
    let fastest = |site: &Site<'_>| site.times().next().unwrap_or(0.0);
    let slowest = sites.iter().map(fastest).fold(0.0, f64::max);
    let mut best = (slowest, f64::INFINITY);
    for within in times(sites, slowest) {
        let chosen = || {
            let of = |site: &'a Site<'a>| Some((site.share, site.best_within(within)?));
            sites.iter().filter_map(of)
        };
        let gain: f64 = chosen().map(|(share, choice)| share * choice.gain).sum();
        let times = chosen().map(|(_, choice)| choice.predicted.round_seconds);
        let seconds = times.fold(0.0, f64::max);
        let cost = seconds / (gain * gain);
        if cost < best.1 {
            best = (seconds, cost);
        }
    }
    best.0
}

/// Times of single choices, ascending, from `slowest` on, thinned out evenly.
fn times(sites: &[Site<'_>], slowest: f64) -> Vec<f64> {
    let mut times: Vec<f64> = sites.iter().flat_map(Site::times).collect();
    times.retain(|time| *time >= slowest);
    times.sort_by(f64::total_cmp);
    times.dedup();
    let stride = times.len().div_ceil(TIMES).max(1);
    let mut kept: Vec<f64> = times.iter().copied().step_by(stride).collect();
    kept.extend(times.last());
    kept
}

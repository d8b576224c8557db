//! In which time the fleet finishes a round together.
//!
//! \[own\] The fleet's gain of a round within time T is `G(T) = Σ_i |D_i|/|D| · g_i(T)`, with `g_i(T)` the
//! best of worker i's choices that finish within T. T is chosen to minimise *rounds times seconds*: `1/G`
//! rounds for a given progress, of T seconds each, so `1/G · T/G = T/G²`.
//! Progress per second alone (`G/T`) would always take the smallest batch, since gains are concave, and
//! pay for it in rounds, each of which moves adapters and merges; progress per round alone would take
//! the largest. Their product is the balance of McCandlish et al. (arXiv 1812.06162): steps need
//! `1 + B/b`, examples need `b + B`, and the product is least at `b = B`, the gradient's noise scale.
//!
//! Every site that can take part does: T is never less than the slowest site's fastest choice, and the
//! others use that time for higher ranks, a larger batch, a better mode.
//!
//! What sites are predicted to need is known to some per cent only, and a site that is done early learns nothing
//! meanwhile: the share of the round by which the fastest is done before the slowest is added to the cost, by half.
//!
//! The search goes by what whole steps of the frontier reach, which costs one look-up per choice; T/G² has
//! a minimum for each set of choices, so times are first laid out evenly in ratio, and the interval
//! around the best of them is halved from there on. How many are laid out depends on the fleet's size alone.

use super::site::Site;

/// Times that are looked at first: as many as look at so many choices in all, within these limits.
const LOOKS: usize = 500_000;
const LEAST_TIMES: usize = 48;
const MOST_TIMES: usize = 512;

/// Halvings of the interval around the best of them.
const HALVINGS: u32 = 12;

/// Above the time of a choice by rounding alone.
const ROUNDING: f64 = 1e-9;

/// What it adds to a time's cost if the fastest site does nothing in all of it.
const WAITING: f64 = 0.5;

#[derive(Clone, Copy)]
struct Tried {
    within: f64,
    /// The slowest site's.
    seconds: f64,
    cost: f64,
}

/// The fleet's time, in seconds.
pub(super) fn together(sites: &[Site<'_>]) -> f64 {
    let (shortest, longest) = bounds(sites);
    let ratio = (longest / shortest).max(1.0);
    let choices: usize = sites.iter().map(|site| site.open.choices.len()).sum();
    let times = (LOOKS / choices.max(1)).clamp(LEAST_TIMES, MOST_TIMES);
    // Not below the first, whatever the power's rounding.
    let time = |step: usize| {
        let part = step as f64 / times as f64;
        (shortest * ratio.powf(part)).max(shortest)
    };
    let tried: Vec<Tried> = (0..=times).map(|step| attempt(sites, time(step))).collect();
    let first = tried.iter().enumerate().min_by(|(_, left), (_, right)| {
        let order = left.cost.total_cmp(&right.cost);
        order.then(left.seconds.total_cmp(&right.seconds))
    });
    let Some((index, best)) = first else {
        return shortest;
    };
    let mut best = *best;
    let (mut low, mut high) = (time(index.saturating_sub(1)), time(index + 1));
    for _ in 0..HALVINGS {
        let sides = [(low + best.within) / 2.0, (best.within + high) / 2.0];
        let [shorter, longer] = sides.map(|within| attempt(sites, within));
        if shorter.cost < best.cost {
            (high, best) = (best.within, shorter);
        } else if longer.cost < best.cost {
            (low, best) = (best.within, longer);
        } else {
            (low, high) = (shorter.within, longer.within);
        }
    }
    best.seconds * (1.0 + ROUNDING)
}

/// The slowest site's fastest choice, and the time beyond which no site gains.
fn bounds(sites: &[Site<'_>]) -> (f64, f64) {
    let (mut shortest, mut longest) = (0.0f64, 0.0f64);
    for site in sites {
        let frontier = &site.source.space.frontier;
        let (mut fastest, mut slowest) = (f64::INFINITY, 0.0f64);
        for choice in &site.open.choices {
            let Some(room) = choice.room(site.memory(), f64::INFINITY) else {
                continue;
            };
            if room >= frontier.least() {
                fastest = fastest.min(choice.seconds.of(frontier.least()));
                slowest = slowest.max(choice.seconds.of(room.min(frontier.most())));
            }
        }
        if fastest.is_finite() {
            shortest = shortest.max(fastest);
        }
        longest = longest.max(slowest);
    }
    (shortest, longest.max(shortest))
}

/// What the fleet reaches within a time.
fn attempt(sites: &[Site<'_>], within: f64) -> Tried {
    let within = within * (1.0 + ROUNDING);
    let round = Round::of(sites.iter().filter_map(|site| {
        let (value, seconds) = reach(site, within)?;
        Some((site.share, value, seconds))
    }));
    Tried {
        within,
        seconds: round.seconds,
        cost: round.cost(),
    }
}

/// What a round takes of the fleet, and what it gains.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    /// The slowest site's.
    seconds: f64,
    /// The fastest site's.
    earliest: f64,
    gain: f64,
}

impl Round {
    /// Of each site's share of the records, what its round is worth, and its seconds.
    pub(super) fn of(sites: impl Iterator<Item = (f64, f64, f64)>) -> Self {
        let none = Self {
            seconds: 0.0,
            earliest: f64::INFINITY,
            gain: 0.0,
        };
        sites.fold(none, |round, (share, value, seconds)| Self {
            seconds: round.seconds.max(seconds),
            earliest: round.earliest.min(seconds),
            // A site whose rounding costs more than it learns holds nobody up.
            gain: round.gain + share * value.max(0.0),
        })
    }

    /// What the planner makes as small as it can.
    pub(super) fn cost(self) -> f64 {
        cost(self.seconds, self.earliest, self.gain)
    }
}

/// What a round of so many seconds costs, of which the fastest site needs `earliest`, and in which the fleet gains so much.
fn cost(seconds: f64, earliest: f64, gain: f64) -> f64 {
    if gain <= 0.0 || seconds <= 0.0 {
        return f64::INFINITY;
    }
    let waiting = 1.0 - earliest / seconds;
    seconds / (gain * gain) * (1.0 + WAITING * waiting)
}

/// The best value of a site within a time, by whole steps, and how long it takes.
pub(super) fn reach(site: &Site<'_>, within: f64) -> Option<(f64, f64)> {
    let frontier = &site.source.space.frontier;
    let mut best: Option<(f64, f64)> = None;
    // Larger batches, and more steps, come last and are worth more: what cannot be better than one of them is not looked
    // at.
    for choice in site.open.choices.iter().rev() {
        let most = choice.value(frontier.most_gain());
        if best.is_some_and(|(known, _)| most < known) {
            continue;
        }
        let reached = choice
            .room(site.memory(), within)
            .and_then(|room| frontier.reached(room));
        let Some((parameters, gain)) = reached else {
            continue;
        };
        let (value, seconds) = (choice.value(gain), choice.seconds.of(parameters));
        let better =
            |(known, time): (f64, f64)| value > known || (value >= known && seconds < time);
        if best.is_none_or(better) {
            best = Some((value, seconds));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_that_finish_closer_are_worth_some_seconds_and_no_more() {
        let (apart, closer, little) = (
            cost(10.0, 8.6, 1.0),
            cost(10.5, 10.4, 1.0),
            cost(10.5, 9.1, 1.0),
        );
        assert!(closer < apart && apart < little);
        assert!(apart < cost(11.0, 11.0, 1.0));
        assert!(
            cost(10.0, 9.999, 1.0) < cost(10.0, 10.0, 0.999),
            "what is hardly closer pays nothing"
        );
        assert_eq!(cost(10.0, 10.0, 0.0), f64::INFINITY);
    }
}

//! The fast search: every choice of batch and mode, from the most promising on, and in each the room
//! spent by marginal gain per parameter.
//!
//! The steps of all concave hulls in the order of their worth solve the program without integrality. What
//! that cannot tell is the end, where a step does not fit: the greedy pass leaps over it. Where the
//! result is further than a thousandth from the bound, or there are few weights, so that each step is large,
//! [`dynamic`] decides. Nothing depends on time: the same instance gives the same solution.

use super::dynamic;
use super::frontier::{Frontier, Selection};
use super::instance::{Instance, Solution};

/// Weights from which on the greedy end may be good enough.
const MANY: usize = 16;

/// The share of the bound that a greedy end may miss.
const GAP: f64 = 1e-3;

/// Solves an instance; `None` if no choice has room for the smallest adapter.
#[must_use]
pub fn solve(instance: &Instance<'_>) -> Option<Solution> {
    instance.best(|room| spend(instance.frontier, room))
}

/// The ranks that gain most in `room`.
#[must_use]
pub fn spend(frontier: &Frontier, room: u64) -> Option<Selection> {
    let greedy = frontier.greedy(room)?;
    let bound = frontier.bound(room)?;
    let near = greedy.gain >= bound * (1.0 - GAP);
    if near && (frontier.items().len() >= MANY || greedy.gain >= bound) {
        return Some(greedy);
    }
    Some(dynamic::improve(frontier, room, greedy))
}

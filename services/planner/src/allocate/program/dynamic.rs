//! The end of the room, by dynamic programming over what each weight adds.
//!
//! \[own\] A list of states (parameters, gain) grows weight by weight. A state is dropped if another costs
//! no more and gains no less, or if it cannot pass the best selection known: its gain, plus what the
//! remaining weights could add at the price λ of a parameter, plus λ for each parameter that is left
//! (the Lagrangian bound, with λ the worth of the step at which the room ends). Weights for which any
//! other level than the best at λ is dear come first, so that the list stays short.

use super::frontier::{Frontier, Selection};
use super::instance::Item;

/// States that are kept after each weight at most: the most promising. Below it the result is optimal.
const STATES: usize = 2048;

#[derive(Debug, Clone, Copy)]
struct State {
    parameters: u64,
    gain: f64,
    /// Index of the state before, and the level that led here.
    parent: usize,
    level: usize,
}

/// The best selection in `room`, at least as good as `known`.
pub(super) fn improve(frontier: &Frontier, room: u64, known: Selection) -> Selection {
    let price = frontier.price(room);
    let order = order(frontier.items(), price);
    // What the items from each place in the order on can add at this price.
    let mut rest: Vec<f64> = order
        .iter()
        .rev()
        .scan(0.0, |sum, (_, item)| {
            *sum += best_at(item, price);
            Some(*sum)
        })
        .collect();
    rest.reverse();
    rest.push(0.0);
    let mut stages: Vec<Vec<State>> = Vec::with_capacity(order.len());
    let mut states = vec![State {
        parameters: 0,
        gain: 0.0,
        parent: 0,
        level: 0,
    }];
    for ((_, item), rest) in order.iter().zip(rest.iter().skip(1)) {
        let hope = |state: &State| {
            state.gain + rest + price * room.saturating_sub(state.parameters) as f64
        };
        let mut next = Vec::new();
        for (parent, state) in states.iter().enumerate() {
            for (level, of) in item.levels().iter().enumerate() {
                let state = State {
                    parameters: state.parameters + item.parameters(*of),
                    gain: state.gain + of.gain,
                    parent,
                    level,
                };
                if state.parameters <= room && hope(&state) > known.gain {
                    next.push(state);
                }
            }
        }
        keep_undominated(&mut next);
        if next.len() > STATES {
            next.sort_by(|left, right| hope(right).total_cmp(&hope(left)));
            next.truncate(STATES);
            keep_undominated(&mut next);
        }
        stages.push(std::mem::replace(&mut states, next));
    }
    // The dearest of the undominated states gains most.
    match states.last() {
        Some(best) if best.gain > known.gain => trace(&order, &stages, *best),
        _ => known,
    }
}

/// Items with their index, those first for which leaving the best level at this price costs most.
fn order(items: &[Item], price: f64) -> Vec<(usize, &Item)> {
    let regret = |item: &Item| {
        let best = best_at(item, price);
        let others = net(item, price).filter(|net| *net < best);
        best - others.fold(f64::NEG_INFINITY, f64::max)
    };
    let mut order: Vec<(usize, &Item)> = items.iter().enumerate().collect();
    order.sort_by(|(_, left), (_, right)| regret(right).total_cmp(&regret(left)));
    order
}

/// What each level is worth if a parameter costs `price`.
fn net(item: &Item, price: f64) -> impl Iterator<Item = f64> {
    let levels = item.levels().iter();
    levels.map(move |level| level.gain - price * item.parameters(*level) as f64)
}

fn best_at(item: &Item, price: f64) -> f64 {
    net(item, price).fold(f64::NEG_INFINITY, f64::max)
}

/// Ascending in parameters and in gain.
fn keep_undominated(states: &mut Vec<State>) {
    states.sort_by(|left, right| {
        let order = left.parameters.cmp(&right.parameters);
        order.then(right.gain.total_cmp(&left.gain))
    });
    let mut most = f64::NEG_INFINITY;
    states.retain(|state| {
        let better = state.gain > most;
        most = most.max(state.gain);
        better
    });
}

/// The levels that led to a state.
fn trace(order: &[(usize, &Item)], stages: &[Vec<State>], end: State) -> Selection {
    let mut levels = vec![0; order.len()];
    let mut state = end;
    for ((index, _), before) in order.iter().zip(stages).rev() {
        if let Some(level) = levels.get_mut(*index) {
            *level = state.level;
        }
        // Invariant: a state's parent is in the stage before it.
        if let Some(parent) = before.get(state.parent) {
            state = *parent;
        }
    }
    Selection {
        levels,
        parameters: end.parameters,
        gain: end.gain,
    }
}

//! Whether what the weights are worth is another order than when the plan was made.
//!
//! The first round of a plan is what later ones are held against, each by the energies that its sites saw
//! ([`crate::energy`]): the same estimate of the same weights, only later. The order has moved when each of the last
//! two rounds agrees with that first one by less than [`AGREEMENT`], the correlation below which a probe's own order is
//! not believed, and with one another by more than with it: two rounds that agree with nothing are noise.

use crate::adapter::WeightName;
use crate::energy::EnergyTable;
use crate::plan::Plan;
use crate::round::Summary;

/// Rank correlation below which the order is another one.
pub const AGREEMENT: f64 = 0.5;

/// An order of weights that moved.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    /// The round that the last ones were held against.
    pub since: u32,
    /// The last round.
    pub last: u32,
    /// Rank correlation of the two.
    pub agreement: f64,
    /// For each weight that both know: the factor by which its share of the whole energy has grown.
    pub grown: Vec<(WeightName, f64)>,
}

/// Whether the order of weights moved under a plan. `rounds` are committed ones in their order, the first of the plan
/// among them; those up to `judged` do not count.
#[must_use]
pub fn moved(plan: &Plan, rounds: &[Summary], judged: u32) -> Option<Moved> {
    let first = plan.from_round.max(judged + 1);
    let counted = |round: &&Summary| round.round >= first && !round.energies.is_empty();
    let seen: Vec<&Summary> = rounds.iter().filter(counted).collect();
    let [base, .., before, last] = seen.as_slice() else {
        return None;
    };
    let (then, now) = (&base.energies, &last.energies);
    let agreement = now.agreement(then);
    let others = before.energies.agreement(then);
    let steady = now.agreement(&before.energies) > agreement.max(others);
    (agreement < AGREEMENT && others < AGREEMENT && steady).then(|| Moved {
        since: base.round,
        last: last.round,
        agreement,
        grown: grown(then, now),
    })
}

fn grown(then: &EnergyTable, now: &EnergyTable) -> Vec<(WeightName, f64)> {
    let both = now.both(then);
    let sum = |of: &dyn Fn(&(WeightName, f64, f64)) -> f64| both.iter().map(of).sum::<f64>();
    let (whole_now, whole_then) = (sum(&|(_, now, _)| *now), sum(&|(_, _, then)| *then));
    let factor = |(name, now, then): &(WeightName, f64, f64)| {
        (*name, (now / whole_now) / (then / whole_then))
    };
    both.iter().map(factor).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{metrics, plan, rounds};
    use super::*;
    use crate::adapter::Projection;

    fn observed(energies: &[[f32; 4]]) -> Vec<Summary> {
        let mut observed = rounds(&vec![metrics(10.0, 2000, 900); energies.len()]);
        for (round, energies) in observed.iter_mut().zip(energies) {
            let named = (0..).zip(energies);
            let named =
                named.map(|(layer, energy)| (WeightName::new(layer, Projection::Q), *energy));
            round.energies = named.collect();
        }
        observed
    }

    #[track_caller]
    fn check(energies: &[[f32; 4]], judged: u32, expected: Option<(u32, u32)>) {
        let found = moved(&plan(1), &observed(energies), judged);
        assert_eq!(found.map(|moved| (moved.since, moved.last)), expected);
    }

    const ONE: [f32; 4] = [1.0, 2.0, 3.0, 4.0];
    const OTHER: [f32; 4] = [8.0, 6.0, 4.0, 2.0];

    #[test]
    fn another_order_that_stays_for_two_rounds_has_moved() {
        check(&[ONE, OTHER, OTHER], 0, Some((1, 3)));
        check(&[ONE, ONE, OTHER, OTHER], 0, Some((1, 4)));
        check(&[ONE, ONE, OTHER], 0, None);
        check(&[ONE, OTHER, ONE], 0, None);
        check(&[ONE, ONE, ONE], 0, None);
        check(&[ONE, OTHER], 0, None);
    }

    #[test]
    fn rounds_that_agree_with_nothing_are_noise() {
        // By ranks: each is at most 0 with the first, and as far from the other.
        check(&[ONE, [4.0, 3.0, 2.0, 1.0], [2.0, 4.0, 1.0, 3.0]], 0, None);
    }

    #[test]
    fn what_was_judged_before_and_rounds_without_a_gradient_do_not_count() {
        check(&[ONE, OTHER, OTHER, OTHER], 1, None);
        check(&[ONE, [0.0; 4], OTHER, [0.0; 4], OTHER], 0, Some((1, 5)));
        check(&[ONE, [0.0; 4], [0.0; 4]], 0, None);
    }

    #[test]
    fn a_weight_s_share_grows_by_what_it_is_now_to_what_it_was() {
        let found = moved(&plan(1), &observed(&[ONE, OTHER, OTHER]), 0).expect("moved");
        let grown: Vec<f64> = found.grown.iter().map(|(_, factor)| *factor).collect();
        let expected = [0.4 / 0.1, 0.3 / 0.2, 0.2 / 0.3, 0.1 / 0.4];
        let off = grown.iter().zip(expected).map(|(f, e)| (f - e).abs());
        assert!(off.fold(0.0, f64::max) < 1e-12, "{grown:?}");
        assert_eq!(found.agreement, -1.0);
    }
}

//! What every rule must hold to: one suite, run on all of them.

use std::error::Error as _;

use domain::job::legality;

use super::*;

/// Ranks of three workers that the rule may merge: uneven where it can.
fn ranks_of(rule: Strategy) -> [u16; 3] {
    if rule.takes_uneven_ranks() {
        [4, 8, 16]
    } else {
        [8, 8, 8]
    }
}

/// An adapter as a job has it after some rounds: 16 live slices, and a side term where the rule has one.
fn global(rule: Strategy, seed: u64) -> Memory {
    let side = if rule.has_side_term() { 5 } else { 0 };
    random(&uniform(16 + side), seed)
}

fn updates(rule: Strategy, seed: u64) -> Vec<(f64, RankTable, Memory)> {
    let shares = [0.5, 0.2, 0.3].into_iter().zip(ranks_of(rule)).zip(seed..);
    shares
        .map(|((share, rank), seed)| {
            let ranks = uniform(rank);
            let update = sent(rule, &random(&ranks, seed));
            (share, ranks, update)
        })
        .collect()
}

/// What each worker would send had it changed nothing.
fn unchanged(rule: Strategy, global: &Memory) -> Vec<(f64, RankTable, Memory)> {
    let shares = [0.5, 0.2, 0.3].into_iter().zip(ranks_of(rule));
    shares
        .map(|(share, rank)| {
            let ranks = uniform(rank);
            let update = sent(rule, &leading(global, &ranks));
            (share, ranks, update)
        })
        .collect()
}

/// The dense formula, with A taken from the global where a rule's workers send B alone, and with live
/// slices alone as what was loaded.
fn expected(
    rule: Strategy,
    global: &Memory,
    updates: &[(f64, RankTable, Memory)],
    weight: WeightShape,
) -> Mat<f64> {
    let whole: Vec<_> = updates
        .iter()
        .map(|(share, ranks, update)| {
            let mut update = update.clone();
            if rule.trains() == Trains::B {
                let a = leading(global, ranks).get(&weight.name.peft_a()).cloned();
                let (shape, a) = a.expect("A");
                update.put(&weight.name.peft_a(), shape, a).expect("put");
            }
            (*share, ranks.clone(), update)
        })
        .collect();
    reference(global, &whole, weight)
}

#[test]
fn the_exact_rules_are_exact_and_the_others_are_told_by_how_much_they_are_not() {
    println!("{}", legality::markdown());
    for rule in Strategy::ALL {
        let (global, updates, ranks) = (global(rule, 40), updates(rule, 50), uniform(16));
        let case = Case::new(rule, &global, &ranks, &updates);
        let (merged, folded, _) = case.merge().expect("merges");
        let (mut off, mut all) = (0.0, 0.0);
        for weight in weights() {
            let whole = expected(rule, &global, &updates, weight);
            off += (dense(&merged, weight, usize::MAX) - &whole).squared_norm_l2();
            all += whole.squared_norm_l2();
        }
        let error = (off / all).sqrt();
        println!("{:<9} ‖ΔW_agg − ΔW*‖/‖ΔW*‖ = {error:.3e}", rule.name());
        match rule {
            Strategy::Product => {
                let dropped = folded.dropped_energy.sqrt();
                assert!((error - dropped).abs() < 1e-5, "{error} {dropped}");
            }
            _ if rule.is_exact() => assert!(error < 1e-6, "{}: {error}", rule.name()),
            _ => assert!(error > 0.05, "{}: {error} is nothing to tell", rule.name()),
        }
        // Every key of the global and no other, with the shapes of live and side slices.
        assert_eq!(merged.keys(), global.keys());
        for weight in weights() {
            let side = usize::from(folded.side.rank(weight.name));
            let a = merged.get(&weight.name.peft_a()).expect("A").0;
            let b = merged.get(&weight.name.peft_b()).expect("B").0;
            assert_eq!((a, b), ([16 + side, weight.inp], [weight.out, 16 + side]));
            assert_eq!(side > 0, rule.has_side_term());
            assert!(side <= weight.out.min(weight.inp));
        }
    }
}

#[test]
fn one_hot_updates_are_each_counted_once_with_their_share() {
    // Worker i moves entry (i, i) of the change alone, to the inverse of its share. A is the same for
    // all, so that the mean of factors is the mean of products and every rule can be exact.
    for rule in Strategy::ALL {
        let ranks = uniform(16);
        let mut start = Memory::default();
        for weight in weights() {
            let mut a = vec![0.0; 16 * weight.inp];
            (0..16).for_each(|j| a[j * weight.inp + j] = 1.0);
            put(&mut start, weight, 16, a, vec![0.0; weight.out * 16]);
        }
        let shares = [0.5, 0.2, 0.3];
        let made: Vec<_> = (0..3)
            .map(|index| {
                // Equal ranks: `slice` takes shares among those that have a slice.
                let own = uniform(8);
                let mut update = leading(&start, &own);
                for weight in weights() {
                    let mut b = vec![0.0; weight.out * 8];
                    b[index * 8 + index] = (1.0 / (SCALE * shares[index])) as f32;
                    update
                        .put(&weight.name.peft_b(), [weight.out, 8], b)
                        .expect("put");
                }
                (shares[index], own, sent(rule, &update))
            })
            .collect();
        let case = Case::new(rule, &start, &ranks, &made);
        let (merged, ..) = case.merge().expect("merges");
        for weight in weights() {
            let found = dense(&merged, weight, usize::MAX);
            for i in 0..weight.out {
                for k in 0..weight.inp {
                    let hot = if i == k && i < 3 { 1.0 } else { 0.0 };
                    let value = found[(i, k)];
                    let right = (value - hot).abs() < 1e-6;
                    assert!(right, "{}: {} ({i},{k}): {value}", rule.name(), weight.name);
                }
            }
        }
    }
}

#[test]
fn what_nobody_changed_stays_for_ten_rounds() {
    for rule in Strategy::ALL {
        let (start, ranks) = (global(rule, 60), uniform(16));
        let mut now = start.clone();
        for round in 1..=10 {
            let made = unchanged(rule, &now);
            let case = Case {
                round,
                ..Case::new(rule, &now, &ranks, &made)
            };
            now = case.merge().expect("merges").0;
        }
        for weight in weights() {
            let (found, expected) = (
                dense(&now, weight, usize::MAX),
                dense(&start, weight, usize::MAX),
            );
            let off = difference(&found, &expected);
            assert!(off < 1e-6, "{}: {}: {off}", rule.name(), weight.name);
        }
    }
}

#[test]
fn same_inputs_give_the_same_bytes_and_another_order_of_the_shares_other_ones() {
    for rule in Strategy::ALL {
        let (global, mut updates, ranks) = (global(rule, 70), updates(rule, 71), uniform(16));
        let merge = |updates: &[_]| Case::new(rule, &global, &ranks, updates).merge();
        let first = merge(&updates).expect("merges");
        assert_eq!(first, merge(&updates).expect("merges"), "{}", rule.name());
        (updates[0].0, updates[1].0) = (0.2, 0.5);
        assert_ne!(
            first.0,
            merge(&updates).expect("merges").0,
            "{}",
            rule.name()
        );
    }
}

#[test]
fn a_site_s_slices_are_what_it_loads_and_its_next_change_starts_from_them() {
    // Round 2 with updates that are round 1's slices, one of them moved: only that one counts.
    for rule in Strategy::ALL {
        let (start, ranks) = (global(rule, 80), uniform(16));
        let first = updates(rule, 81);
        let case = Case::new(rule, &start, &ranks, &first);
        let (merged, ..) = case.merge().expect("merges");
        let mut second = unchanged(rule, &merged);
        let own = second[1].1.clone();
        let moved = random(&own, 90);
        second[1].2 = sent(rule, &moved);
        let case = Case {
            round: 2,
            ..Case::new(rule, &merged, &ranks, &second)
        };
        let (after, ..) = case.merge().expect("merges");
        for weight in weights() {
            let whole = expected(rule, &merged, &second, weight);
            let before = dense(&merged, weight, usize::MAX);
            assert!(difference(&whole, &before) > 1e-2, "nothing moved");
            if rule.is_exact() && rule != Strategy::Product {
                let off = difference(&dense(&after, weight, usize::MAX), &whole);
                assert!(off < 1e-5, "{}: {}: {off}", rule.name(), weight.name);
            }
        }
    }
}

#[test]
fn keys_numbers_shares_and_ranks_that_are_not_the_plan_s_are_refused() {
    for rule in Strategy::ALL {
        let (global, good, ranks) = (global(rule, 100), updates(rule, 101), uniform(16));
        let refused = |updates: &[_], expected: &str| {
            let case = Case::new(rule, &global, &ranks, updates);
            let error = case.merge().expect_err(expected);
            let text = format!("{error}: {:?}", error.source().map(ToString::to_string));
            assert!(text.contains(expected), "{}: {text}", rule.name());
        };
        let key = WeightName::new(1, Projection::V).peft_b();

        let mut bad = good.clone();
        bad[1].2.remove(&key);
        refused(&bad, &key);

        let mut bad = good.clone();
        let ([rows, columns], mut values) = bad[2].2.get(&key).expect("there").clone();
        values[3] = f32::NAN;
        bad[2].2.put(&key, [rows, columns], values).expect("put");
        refused(&bad, "update of w2 is refused");

        let mut bad = good.clone();
        bad[0].0 = 0.6;
        refused(&bad, "add up to");

        let mut bad = good.clone();
        bad[0].1 = uniform(17);
        refused(&bad, "at rank 17");

        if !rule.takes_uneven_ranks() {
            let mut bad = good.clone();
            bad[0].1 = uniform(4);
            refused(&bad, "cannot merge sites of different ranks");
        }
        let mut poor = global.clone();
        poor.remove(&key);
        let case = Case::new(rule, &poor, &ranks, &good);
        let error = case.merge().expect_err("the global lacks a key");
        assert!(matches!(error, Error::Global { .. }), "{error}");
    }
}

#[test]
fn uneven_steps_are_normalized_under_every_rule() {
    // Two workers that moved the same B, one with twice the steps: normalized, each step counts once.
    for rule in Strategy::ALL {
        let (start, ranks) = (global(rule, 110), uniform(16));
        let shares = [0.5, 0.5];
        let stretches = [0.75, 1.5];
        let moved = |index: usize| {
            let mut update = leading(&start, &ranks);
            for weight in weights() {
                let (shape, mut b) = update.remove(&weight.name.peft_b()).expect("B");
                b.iter_mut()
                    .for_each(|value| *value += 0.1 * (index as f32 + 1.0));
                update.put(&weight.name.peft_b(), shape, b).expect("put");
            }
            sent(rule, &update)
        };
        let made: Vec<_> = (0..2)
            .map(|index| (shares[index], ranks.clone(), moved(index)))
            .collect();
        let case = Case {
            stretches: &stretches,
            ..Case::new(rule, &start, &ranks, &made)
        };
        let (merged, ..) = case.merge().expect("merges");
        for weight in weights() {
            // 0.5·0.75·0.1 + 0.5·1.5·0.2, on every entry of B.
            let mut whole = Memory::default();
            let (_, a) = start.get(&weight.name.peft_a()).expect("A").clone();
            let ([_, all], mut b) = start.get(&weight.name.peft_b()).expect("B").clone();
            for row in b.chunks_mut(all) {
                row[..16].iter_mut().for_each(|value| *value += 0.1875);
            }
            put(&mut whole, weight, all, a, b);
            let wanted = dense(&whole, weight, usize::MAX);
            let off = difference(&dense(&merged, weight, usize::MAX), &wanted);
            assert!(off < 1e-5, "{}: {}: {off}", rule.name(), weight.name);
        }
    }
}

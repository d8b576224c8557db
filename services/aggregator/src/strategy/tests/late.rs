//! Updates of an earlier round: their change is the difference from what they had loaded.

use domain::job::Strategy;

use super::*;

/// Share, ranks and update of each worker.
type Updates = Vec<(f64, RankTable, Memory)>;

/// `ΔW + Σ p·(s·B·A − S_i)`, with `S_i` of what each worker had loaded, written out plainly.
fn expected(
    global: &Memory,
    updates: &Updates,
    starts: &[Option<&Memory>],
    weight: WeightShape,
) -> Mat<f64> {
    let mut result = dense(global, weight, usize::MAX);
    for ((share, ranks, update), start) in updates.iter().zip(starts) {
        let rank = usize::from(ranks.rank(weight.name));
        let loaded = dense(start.unwrap_or(global), weight, rank);
        result += faer::Scale(*share) * (dense(update, weight, rank) - loaded);
    }
    result
}

fn merged(
    rule: Strategy,
    global: &Memory,
    updates: &Updates,
    starts: &[Option<&Memory>],
) -> Memory {
    let ranks = uniform(48);
    let case = Case {
        starts,
        ..Case::new(rule, global, &ranks, updates)
    };
    case.merge().expect("merges").0
}

/// An adapter of rank 48 whose slices beyond the first eight are zero, so that nothing has to be dropped.
fn global(seed: u64) -> Memory {
    let mut memory = random(&uniform(48), seed);
    for weight in weights() {
        let key = weight.name.peft_b();
        let (shape, mut b) = memory.remove(&key).expect("B");
        for row in b.chunks_mut(48) {
            row[8..].fill(0.0);
        }
        memory.put(&key, shape, b).expect("memory takes all");
    }
    memory
}

#[test]
fn a_late_update_adds_what_it_made_of_the_global_that_it_had_loaded() {
    let (old, new) = (global(1), global(2));
    let updates: Updates = vec![
        (0.5, uniform(8), random(&uniform(8), 3)),
        (0.3, uniform(4), random(&uniform(4), 4)),
        (0.2, uniform(8), random(&uniform(8), 5)),
    ];
    let starts = [None, None, Some(&old)];
    let found = merged(Strategy::Product, &new, &updates, &starts);
    for weight in weights() {
        let found = dense(&found, weight, usize::MAX);
        let off = difference(&found, &expected(&new, &updates, &starts, weight));
        assert!(off < 1e-5, "{}: {off}", weight.name);
        let as_if_in_time = expected(&new, &updates, &[None; 3], weight);
        let off = difference(&found, &as_if_in_time);
        assert!(
            off > 0.1,
            "{}: the same without what it had loaded",
            weight.name
        );
    }
}

#[test]
fn a_late_update_that_learned_nothing_changes_nothing_whatever_happened_meanwhile() {
    let (old, new) = (global(1), global(2));
    for rule in [Strategy::Product, Strategy::Slice] {
        let updates: Updates = vec![
            (0.6, uniform(8), leading(&new, &uniform(8))),
            (0.4, uniform(4), leading(&old, &uniform(4))),
        ];
        let found = merged(rule, &new, &updates, &[None, Some(&old)]);
        for weight in weights() {
            let before = dense(&new, weight, usize::MAX);
            let off = difference(&dense(&found, weight, usize::MAX), &before);
            assert!(off < 1e-6, "{rule:?} {}: {off}", weight.name);
        }
    }
}

#[test]
fn rules_that_average_factors_move_them_by_a_late_updates_own_difference() {
    let (old, new) = (random(&uniform(4), 1), random(&uniform(4), 2));
    let (own, late) = (random(&uniform(4), 3), random(&uniform(4), 4));
    for rule in [
        Strategy::Fedit,
        Strategy::Slice,
        Strategy::Sum,
        Strategy::Ffa,
    ] {
        let updates: Updates = vec![
            (0.75, uniform(4), sent(rule, &own)),
            (0.25, uniform(4), sent(rule, &late)),
        ];
        let ranks = uniform(4);
        let starts = [None, Some(&old)];
        let case = Case {
            starts: &starts,
            ..Case::new(rule, &new, &ranks, &updates)
        };
        let (found, ..) = case.merge().expect("merges");
        for weight in weights() {
            let key = weight.name.peft_b();
            let values = |memory: &Memory| memory.get(&key).expect("B").1.clone();
            let (found, new, own) = (values(&found), values(&new), values(&own));
            let (late, old) = (values(&late), values(&old));
            for at in 0..found.len() {
                let expected = new[at] + 0.75 * (own[at] - new[at]) + 0.25 * (late[at] - old[at]);
                assert!((found[at] - expected).abs() < 1e-5, "{rule:?} {key} {at}");
            }
        }
    }
}

#[test]
fn rules_with_a_side_term_are_exact_for_late_updates_too() {
    let (old, new) = (random(&uniform(4), 1), random(&uniform(4), 2));
    let updates: Updates = vec![
        (0.75, uniform(4), random(&uniform(4), 3)),
        (0.25, uniform(4), random(&uniform(4), 4)),
    ];
    let starts = [None, Some(&old)];
    for rule in [Strategy::Stack, Strategy::Residual] {
        let ranks = uniform(4);
        let case = Case {
            starts: &starts,
            ..Case::new(rule, &new, &ranks, &updates)
        };
        let (found, ..) = case.merge().expect("merges");
        for weight in weights() {
            let found = dense(&found, weight, usize::MAX);
            let off = difference(&found, &expected(&new, &updates, &starts, weight));
            assert!(off < 1e-5, "{rule:?} {}: {off}", weight.name);
        }
    }
}

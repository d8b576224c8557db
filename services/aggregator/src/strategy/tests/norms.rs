//! How far an update moved.

use super::super::norm::Moved;
use super::*;

fn moved<'a>(update: &'a Memory, global: &'a Memory, trains: Trains, all: &'a Fixed) -> Moved<'a> {
    Moved {
        update,
        global,
        ranks: &all.ranks,
        weights: &all.weights,
        scale: SCALE,
        trained: trains,
    }
}

struct Fixed {
    ranks: RankTable,
    weights: Vec<WeightShape>,
}

#[test]
fn the_norm_of_a_change_is_that_of_the_dense_difference() {
    let all = Fixed {
        ranks: uniform(4),
        weights: weights(),
    };
    // Live slices and a side term, of which nothing was trained.
    let global = random(&uniform(12), 300);
    let update = random(&all.ranks, 301);
    let mut expected = 0.0;
    for weight in weights() {
        let change = dense(&update, weight, 4) - dense(&global, weight, 4);
        expected += change.squared_norm_l2();
    }
    let expected = f64::sqrt(expected);
    let found = moved(&update, &global, Trains::Both, &all)
        .norm()
        .expect("reads");
    assert!(
        (found - expected).abs() < 1e-9 * expected,
        "{found} {expected}"
    );

    let mut b_alone = leading(&global, &all.ranks);
    for weight in weights() {
        let (shape, b) = update.get(&weight.name.peft_b()).expect("B").clone();
        b_alone.put(&weight.name.peft_b(), shape, b).expect("put");
    }
    let whole = moved(&b_alone, &global, Trains::Both, &all)
        .norm()
        .expect("reads");
    let b_alone = sent(Strategy::Ffa, &b_alone);
    let found = moved(&b_alone, &global, Trains::B, &all)
        .norm()
        .expect("reads");
    assert!((found - whole).abs() < 1e-9 * whole, "{found} {whole}");
}

#[test]
fn what_moved_further_than_the_bound_is_refused_and_what_did_not_move_is_zero() {
    let all = Fixed {
        ranks: uniform(4),
        weights: weights(),
    };
    let global = random(&uniform(8), 310);
    let same = leading(&global, &all.ranks);
    let norm = moved(&same, &global, Trains::Both, &all)
        .norm()
        .expect("reads");
    assert!(norm < 1e-4, "{norm}");

    let update = random(&all.ranks, 311);
    let far = moved(&update, &global, Trains::Both, &all);
    let norm = far.norm().expect("reads");
    far.within(norm * 1.001).expect("within");
    let error = far.within(norm * 0.999).expect_err("too far");
    let text = error.to_string();
    assert!(text.contains("aggregation.norm_bound"), "{text}");
}

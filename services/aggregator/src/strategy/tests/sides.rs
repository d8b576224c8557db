//! The side terms of `stack` and `residual`.

use super::*;

#[test]
fn a_stack_restarts_the_adapter_and_keeps_everything_in_its_side_term() {
    let ranks = uniform(8);
    let mut now = Memory::default();
    super::super::fresh(&ranks, &weights(), SEED, &mut now).expect("writes");
    let first_a = now.clone();
    let mut whole: Vec<Mat<f64>> = weights()
        .iter()
        .map(|weight| Mat::zeros(weight.out, weight.inp))
        .collect();
    for round in 1..=3 {
        let updates: Vec<_> = [(0.4, 4), (0.6, 8)]
            .into_iter()
            .zip(10 * u64::from(round)..)
            .map(|((share, rank), seed)| (share, uniform(rank), random(&uniform(rank), seed)))
            .collect();
        for (weight, whole) in weights().into_iter().zip(&mut whole) {
            for (share, ranks, update) in &updates {
                let rank = usize::from(ranks.rank(weight.name));
                *whole += faer::Scale(*share) * dense(update, weight, rank);
            }
        }
        let case = Case {
            round,
            ..Case::new(Strategy::Stack, &now, &ranks, &updates)
        };
        let (merged, folded, _) = case.merge().expect("merges");
        for (weight, whole) in weights().into_iter().zip(&whole) {
            let off = difference(&dense(&merged, weight, usize::MAX), whole);
            assert!(off < 1e-6, "round {round}, {}: {off}", weight.name);
            assert_eq!(dense(&merged, weight, 8).norm_l2(), 0.0, "B is not zero");
            // 12 slices a round, as long as the weight is wider than that.
            let expected = 12 * usize::try_from(round).expect("small");
            let side = usize::from(folded.side.rank(weight.name));
            assert_eq!(side, expected.min(weight.out).min(weight.inp));
            assert_ne!(
                merged.get(&weight.name.peft_a()).expect("A").1[..8 * weight.inp],
                first_a.get(&weight.name.peft_a()).expect("A").1[..],
                "every round draws another A"
            );
        }
        now = merged;
    }
}

#[test]
fn a_side_term_never_holds_more_slices_than_the_weight_is_wide_or_than_there_is_to_hold() {
    let ranks = uniform(16);
    for rule in [Strategy::Stack, Strategy::Residual] {
        let mut now = random(&ranks, 200);
        for round in 1..=4 {
            let updates: Vec<_> = (0u64..4)
                .map(|index| {
                    (
                        0.25,
                        ranks.clone(),
                        random(&ranks, 210 + index + 10 * u64::from(round)),
                    )
                })
                .collect();
            let case = Case {
                round,
                ..Case::new(rule, &now, &ranks, &updates)
            };
            let (merged, folded, _) = case.merge().expect("merges");
            for weight in weights() {
                let side = usize::from(folded.side.rank(weight.name));
                let most = rule.side_slices(
                    (weight.out, weight.inp),
                    usize::try_from(round).expect("small"),
                    4 * 16,
                    16,
                );
                assert!(side <= most, "{}: {side} of {most}", rule.name());
            }
            now = merged;
        }
        // All sites send what they had: nothing is to be held that was not there before.
        let before: Vec<usize> = weights()
            .iter()
            .map(|weight| now.get(&weight.name.peft_a()).expect("A").0[0] - 16)
            .collect();
        let same = leading(&now, &ranks);
        let updates: Vec<_> = (0..4)
            .map(|_| (0.25, ranks.clone(), same.clone()))
            .collect();
        let case = Case {
            round: 5,
            ..Case::new(rule, &now, &ranks, &updates)
        };
        let (_, folded, _) = case.merge().expect("merges");
        for (weight, before) in weights().into_iter().zip(before) {
            assert!(usize::from(folded.side.rank(weight.name)) <= before);
        }
    }
}

#[test]
fn a_side_term_as_wide_as_the_weight_is_exact_whatever_the_threads() {
    let ranks = uniform(32);
    let global = random(&ranks, 230);
    let updates: Vec<_> = (231..235)
        .map(|seed| (0.25, ranks.clone(), random(&ranks, seed)))
        .collect();
    for rule in [Strategy::Stack, Strategy::Residual] {
        let merge = |threads| {
            let case = Case {
                threads: NonZeroUsize::new(threads).expect("some"),
                ..Case::new(rule, &global, &ranks, &updates)
            };
            case.merge().expect("merges")
        };
        let (merged, folded, _) = merge(1);
        for weight in weights() {
            let side = usize::from(folded.side.rank(weight.name));
            assert_eq!(side, weight.out.min(weight.inp), "{}", weight.name);
            let expected = reference(&global, &updates, weight);
            let off = difference(&dense(&merged, weight, usize::MAX), &expected);
            assert!(off < 1e-6, "{}, {}: {off}", rule.name(), weight.name);
        }
        let (same, also, _) = merge(3);
        assert!(merged == same && folded == also, "{}", rule.name());
    }
}

#[test]
fn a_residual_of_sites_that_agree_is_nothing() {
    let (ranks, global) = (uniform(8), random(&uniform(8), 220));
    let update = random(&ranks, 221);
    let updates: Vec<_> = [0.25, 0.75]
        .map(|share| (share, ranks.clone(), update.clone()))
        .into();
    let case = Case::new(Strategy::Residual, &global, &ranks, &updates);
    let (merged, folded, _) = case.merge().expect("merges");
    assert!(folded.side.is_empty(), "{:?}", folded.side);
    for weight in weights() {
        let (found, sent) = (dense(&merged, weight, 8), dense(&update, weight, 8));
        assert!(difference(&found, &sent) < 1e-6);
    }
}

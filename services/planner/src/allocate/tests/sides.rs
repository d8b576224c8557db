use domain::job::Strategy;

use super::*;

/// A job of one choice: rank 8 on q and v, one record a step, two rounds.
fn fixed(strategy: Strategy) -> Spec {
    let mut spec = spec();
    spec.adapter.rank = Choice::Fixed(8);
    spec.adapter.rank_max = 8;
    spec.adapter.targets = Choice::Fixed(vec![Projection::Q, Projection::V]);
    spec.training.batch = Choice::Fixed(1);
    spec.rounds.count = 2;
    spec.aggregation.strategy = strategy;
    spec
}

#[test]
fn the_side_term_counts_as_large_as_it_may_become() {
    let sites = [site("a", 1.0, 8 * GIB), site("b", 1.0, 8 * GIB)];
    let peak = |spec: &Spec| {
        let plan = plan(spec, &sites, 2).expect("possible");
        of(&plan, "a").predicted.peak_memory_bytes
    };
    let alone = peak(&fixed(Strategy::Product));
    // Six weights of 576 × 576: two sites of rank 8 add 16 slices a round, in two rounds 32.
    let stacked = 6 * 32 * 2 * 576 * 4;
    assert_eq!(peak(&fixed(Strategy::Stack)), alone + stacked);
    // The mean of the factors takes 8 slices away from 16, twice over: 32 a round.
    assert_eq!(peak(&fixed(Strategy::Residual)), alone + 2 * stacked);
    // Never more than the weights themselves are wide.
    let mut long = fixed(Strategy::Stack);
    long.rounds.count = 1000;
    assert_eq!(peak(&long), alone + 6 * 576 * 2 * 576 * 4);
    let mut pulled = fixed(Strategy::Product);
    pulled.training.proximal = 0.1;
    assert_eq!(peak(&pulled), alone + 6 * 8 * 2 * 576 * 4);
}

#[test]
fn a_site_without_room_for_the_side_term_is_told_so() {
    let mut spec = fixed(Strategy::Stack);
    spec.rounds.count = 1000;
    let room = plan(&fixed(Strategy::Product), &[site("a", 1.0, 8 * GIB)], 1).expect("possible");
    let least = of(&room, "a").predicted.peak_memory_bytes;
    // Room for the job without a side term and the margin of 5 %, and a little more.
    let small = site("a", 1.0, least + least / 20 + 4_000_000);
    assert!(plan(&fixed(Strategy::Product), std::slice::from_ref(&small), 1).is_ok());
    let cause = plan(&spec, &[small], 1).expect_err("impossible");
    assert_eq!(cause.sites[0].trouble, Trouble::OutOfMemory);
    assert!(
        cause
            .message
            .contains("side term that strategy stack may grow to"),
        "{}",
        cause.message
    );
}

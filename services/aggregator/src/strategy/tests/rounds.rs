use super::super::fresh;
use super::*;

#[test]
fn ranks_4_and_16_at_learning_rate_0_leave_the_global_unchanged_over_10_rounds() {
    let ranks = uniform(16);
    let start = random(&ranks, 20);
    let mut global = start.clone();
    for _ in 0..10 {
        let updates: Vec<_> = [(0.7, 4), (0.3, 16)]
            .into_iter()
            .map(|(share, rank)| (share, uniform(rank), leading(&global, &uniform(rank))))
            .collect();
        let (merged, folded) = fold(&global, &ranks, &updates).expect("merges");
        assert!(folded.dropped_energy < 1e-12, "{folded:?}");
        global = merged;
    }
    for weight in weights() {
        let (found, expected) = (dense(&global, weight, 16), dense(&start, weight, 16));
        let off = difference(&found, &expected);
        assert!(off < 1e-6, "{}: {off}", weight.name);
    }
}

#[test]
fn an_untrained_adapter_that_comes_back_as_it_was_keeps_its_a() {
    let ranks = uniform(16);
    let mut global = Memory::default();
    fresh(&ranks, &weights(), SEED, &mut global).expect("writes");
    let updates: Vec<_> = [(0.5, 4), (0.5, 16)]
        .into_iter()
        .map(|(share, rank)| (share, uniform(rank), leading(&global, &uniform(rank))))
        .collect();
    let (merged, folded) = fold(&global, &ranks, &updates).expect("merges");
    assert_eq!(merged, global);
    assert_eq!(folded.dropped_energy, 0.0);
}

#[test]
fn round_0_changes_nothing_and_is_the_same_every_time_but_not_for_every_seed() {
    let write = |seed| {
        let mut memory = Memory::default();
        fresh(&uniform(8), &weights(), seed, &mut memory).expect("writes");
        memory
    };
    let global = write(1);
    assert_eq!(global, write(1));
    assert_ne!(global, write(2));
    for weight in weights() {
        assert_eq!(dense(&global, weight, 8).norm_l2(), 0.0);
        let (shape, a) = global.get(&weight.name.peft_a()).expect("A");
        assert_eq!(*shape, [8, weight.inp]);
        let bound = 1.0 / (weight.inp as f32).sqrt();
        let largest = a.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert!(
            largest <= bound && largest > 0.9 * bound,
            "{largest} {bound}"
        );
        let mean = a.iter().sum::<f32>() / a.len() as f32;
        assert!(mean.abs() < 0.1 * bound, "{mean}");
    }
    let q = |layer| WeightName::new(layer, Projection::Q).peft_a();
    assert_ne!(global.get(&q(0)), global.get(&q(1)));
}

#[test]
fn slices_that_died_restart_with_rows_orthogonal_to_the_living() {
    let ranks = uniform(8);
    let mut global = Memory::default();
    fresh(&ranks, &weights(), SEED, &mut global).expect("writes");
    let update = random(&uniform(3), 30);
    let updates = vec![(1.0, uniform(3), update)];
    let (merged, folded) = fold(&global, &ranks, &updates).expect("merges");
    assert!(folded.dropped_energy < 1e-12);
    for weight in weights() {
        let (_, b) = merged.get(&weight.name.peft_b()).expect("B");
        for row in b.chunks(8) {
            assert_eq!(row[3..], [0.0; 5]);
        }
        let (_, a) = merged.get(&weight.name.peft_a()).expect("A");
        let rows: Vec<&[f32]> = a.chunks(weight.inp).collect();
        for (i, left) in rows.iter().enumerate() {
            for (j, right) in rows.iter().enumerate() {
                let dot: f32 = left.iter().zip(*right).map(|(x, y)| x * y).sum();
                let expected = if i == j { 1.0 / 3.0 } else { 0.0 };
                assert!(
                    (dot - expected).abs() < 1e-6,
                    "{} {i} {j}: {dot}",
                    weight.name
                );
            }
        }
    }
}

#[test]
fn a_rank_above_the_weights_width_is_filled_with_rows_that_change_nothing() {
    let tiny = WeightShape {
        name: WeightName::new(0, Projection::Q),
        out: 6,
        inp: 5,
    };
    let ranks = RankTable::uniform(&[Projection::Q], 1, 16);
    let mut global = Memory::default();
    fresh(&ranks, &[tiny], SEED, &mut global).expect("writes");
    let mut stream = Stream::new(5, Purpose::Adapter, tiny.name);
    let mut draw = |count| (0..count).map(|_| stream.uniform(1.0) as f32).collect();
    let (a, b) = (draw(16 * 5), draw(6 * 16));
    let mut update = Memory::default();
    put(&mut update, tiny, 16, a, b);
    let updates = vec![(1.0, ranks.clone(), update.clone())];
    let (merged, _) = fold(&global, &ranks, &updates).expect("merges");
    assert!(difference(&dense(&merged, tiny, 16), &dense(&update, tiny, 16)) < 1e-6);
    let (shape, a) = merged.get(&tiny.name.peft_a()).expect("A");
    assert_eq!(*shape, [16, 5]);
    assert!(a.iter().all(|value| value.is_finite()));
}

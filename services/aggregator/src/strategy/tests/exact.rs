use super::super::change::{Change, Factors, Space};
use super::*;
use domain::job::Strategy;
use proptest::prelude::*;

/// Shares of four workers with the ranks 4, 8, 16 and 0 in the first layer's Q.
fn uneven(seed: u64) -> Vec<(f64, RankTable, Memory)> {
    [(0.5, 4), (0.2, 8), (0.3, 16)]
        .into_iter()
        .enumerate()
        .map(|(index, (share, rank))| {
            let ranks = uniform(rank);
            let update = random(&ranks, seed + index as u64);
            (share, ranks, update)
        })
        .collect()
}

fn best(matrix: &Mat<f64>, rank: usize) -> (Mat<f64>, f64) {
    let svd = matrix.thin_svd().expect("converges");
    let mut result = Mat::zeros(matrix.nrows(), matrix.ncols());
    let sigma = svd.S().column_vector();
    let (mut kept, mut all) = (0.0, 0.0);
    for j in 0..sigma.nrows() {
        all += sigma[j] * sigma[j];
        if j < rank {
            kept += sigma[j] * sigma[j];
            result += faer::Scale(sigma[j]) * (svd.U().col(j) * svd.V().col(j).transpose());
        }
    }
    (result, (all - kept) / all)
}

#[test]
fn ranks_4_8_16_equal_the_dense_formula_where_the_kept_rank_suffices() {
    let (ranks, updates) = (uniform(44), uneven(1));
    let mut global = Memory::default();
    // Only the first 16 slices hold something, so that 4 + 8 + 16 + 16 slices are all there is.
    let start = random(&uniform(16), 99);
    for weight in weights() {
        let (_, a) = start.get(&weight.name.peft_a()).expect("A");
        let (_, b) = start.get(&weight.name.peft_b()).expect("B");
        let mut padded_a = a.clone();
        padded_a.resize(44 * weight.inp, 0.5);
        let rows = b
            .chunks(16)
            .flat_map(|row| row.iter().copied().chain([0.0; 28]));
        put(&mut global, weight, 44, padded_a, rows.collect());
    }
    let (merged, folded) = fold(&global, &ranks, &updates).expect("merges");
    for weight in weights() {
        let expected = reference(&global, &updates, weight);
        let found = dense(&merged, weight, usize::MAX);
        let off = difference(&found, &expected);
        assert!(off < 1e-5, "{}: {off}", weight.name);
        if weight.out == weight.inp {
            let transposed = difference(&found.transpose().to_owned(), &expected);
            assert!(transposed > 0.5, "the transpose would have passed");
        }
    }
    assert!(folded.dropped_energy < 1e-9, "{folded:?}");
}

#[test]
fn a_rank_that_does_not_suffice_keeps_the_best_approximation_and_reports_the_rest() {
    let (ranks, updates) = (uniform(16), uneven(2));
    let global = random(&ranks, 50);
    let (merged, folded) = fold(&global, &ranks, &updates).expect("merges");
    let (mut dropped, mut energy) = (0.0, 0.0);
    for weight in weights() {
        let whole = reference(&global, &updates, weight);
        let (expected, share) = best(&whole, 16);
        let off = difference(&dense(&merged, weight, usize::MAX), &expected);
        assert!(off < 1e-5, "{}: {off}", weight.name);
        energy += whole.squared_norm_l2();
        dropped += share * whole.squared_norm_l2();
    }
    assert!((folded.dropped_energy - dropped / energy).abs() < 1e-9);
    assert!(
        folded.dropped_energy > 0.01,
        "nothing was dropped, so nothing was tested"
    );
}

#[test]
fn every_one_hot_update_is_counted_once() {
    // Worker i sets entry (i, i) of ΔW to its share's inverse: a 2 is double counting, a 0 a loss.
    let global = {
        let mut memory = random(&uniform(8), 3);
        for weight in weights() {
            let (_, a) = memory.remove(&weight.name.peft_a()).expect("A");
            memory.remove(&weight.name.peft_b());
            put(&mut memory, weight, 8, a, vec![0.0; weight.out * 8]);
        }
        memory
    };
    let shares = [0.1, 0.2, 0.3, 0.4];
    let ranks_of = |index: usize| uniform([1, 2, 4, 8][index]);
    let updates: Vec<_> = (0..4)
        .map(|index| {
            let ranks = ranks_of(index);
            let rank = usize::from(ranks.max());
            let mut update = Memory::default();
            for weight in weights() {
                let (mut a, mut b) = (vec![0.0; rank * weight.inp], vec![0.0; weight.out * rank]);
                let slice = rank - 1;
                a[slice * weight.inp + index] = 1.0;
                b[index * rank + slice] = (1.0 / (SCALE * shares[index])) as f32;
                put(&mut update, weight, rank, a, b);
            }
            (shares[index], ranks, update)
        })
        .collect();
    let (merged, _) = fold(&global, &uniform(8), &updates).expect("merges");
    for weight in weights() {
        let found = dense(&merged, weight, usize::MAX);
        for i in 0..weight.out {
            for k in 0..weight.inp {
                let expected = if i == k && i < 4 { 1.0 } else { 0.0 };
                let value = found[(i, k)];
                assert!(
                    (value - expected).abs() < 1e-6,
                    "{} ({i},{k}): {value}",
                    weight.name
                );
            }
        }
    }
}

#[test]
fn averaging_the_factors_would_have_been_something_else() {
    let ranks = uniform(8);
    let global = random(&ranks, 4);
    let updates: Vec<_> = (0..2)
        .map(|index| (0.5, ranks.clone(), random(&ranks, 60 + index)))
        .collect();
    let (merged, _) = fold(&global, &ranks, &updates).expect("merges");
    for weight in weights() {
        let mut naive = Memory::default();
        let mean = |key: String| -> Vec<f32> {
            let of = |index: usize| &updates[index].2.get(&key).expect("there").1;
            of(0)
                .iter()
                .zip(of(1))
                .map(|(x, y)| (x + y) / 2.0)
                .collect()
        };
        let (a, b) = (mean(weight.name.peft_a()), mean(weight.name.peft_b()));
        put(&mut naive, weight, 8, a, b);
        let expected = best(&reference(&global, &updates, weight), 8).0;
        let off = difference(&dense(&naive, weight, usize::MAX), &expected);
        assert!(off > 0.1, "{off}");
        assert!(difference(&dense(&merged, weight, usize::MAX), &expected) < 1e-5);
    }
}

#[test]
fn a_weight_that_nobody_trained_stays_and_one_that_some_trained_moves_by_their_share() {
    let (ranks, only_v) = (uniform(8), RankTable::uniform(&[Projection::V], 2, 8));
    let global = random(&ranks, 5);
    let updates = vec![
        (0.25, only_v.clone(), random(&only_v, 70)),
        (
            0.75,
            RankTable::uniform(&[Projection::Q, Projection::V], 2, 4),
            {
                let ranks = RankTable::uniform(&[Projection::Q, Projection::V], 2, 4);
                random(&ranks, 71)
            },
        ),
    ];
    let (merged, _) = fold(&global, &ranks, &updates).expect("merges");
    for weight in weights() {
        let whole = reference(&global, &updates, weight);
        let expected = best(&whole, 8).0;
        let off = difference(&dense(&merged, weight, usize::MAX), &expected);
        assert!(off < 1e-5, "{}: {off}", weight.name);
        if matches!(weight.name.projection(), Projection::Up | Projection::Down) {
            let start = dense(&global, weight, usize::MAX);
            assert!(difference(&whole, &start) < 1e-12);
        }
    }
}

#[test]
fn a_single_worker_is_merged_into_what_it_sent() {
    let ranks = uniform(8);
    let (global, update) = (random(&ranks, 6), random(&ranks, 80));
    let updates = vec![(1.0, ranks.clone(), update.clone())];
    let (merged, folded) = fold(&global, &ranks, &updates).expect("merges");
    for weight in weights() {
        let (found, sent) = (dense(&merged, weight, 8), dense(&update, weight, 8));
        assert!(difference(&found, &sent) < 1e-6);
    }
    assert!(folded.dropped_energy < 1e-12);
}

#[test]
fn forty_workers_are_merged_densely_and_equal_the_formula() {
    let ranks = uniform(16);
    let global = random(&ranks, 7);
    let updates: Vec<_> = (0u16..40)
        .map(|index| {
            let ranks = uniform([1, 4, 16, 8][usize::from(index % 4)]);
            let update = random(&ranks, 100 + u64::from(index));
            (1.0 / 40.0, ranks, update)
        })
        .collect();
    let (merged, _) = fold(&global, &ranks, &updates).expect("merges");
    for weight in weights().into_iter().take(4) {
        let expected = best(&reference(&global, &updates, weight), 16).0;
        let off = difference(&dense(&merged, weight, usize::MAX), &expected);
        assert!(off < 1e-5, "{}: {off}", weight.name);
    }
}

#[test]
fn same_inputs_give_the_same_bytes() {
    let (ranks, updates) = (uniform(32), uneven(3));
    let global = random(&ranks, 8);
    let (first, folded) = fold(&global, &ranks, &updates).expect("merges");
    let (second, again) = fold(&global, &ranks, &updates).expect("merges");
    assert_eq!(first, second);
    assert_eq!(folded, again);
    assert_eq!(faer::get_global_parallelism(), faer::Par::Seq);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_stacked_and_the_dense_way_agree(
        out in 6usize..40, inp in 6usize..40, rank in 1usize..6, terms in 1usize..4, seed: u64,
    ) {
        let name = WeightName::new(0, Projection::Q);
        let mut stream = Stream::new(seed, Purpose::Adapter, name);
        let (mut stacked, mut summed) = (Space::default(), Space::default());
        let mut stack = Change::stacked(out, inp, rank * terms, &mut stacked);
        let mut dense = Change::summed(out, inp, &mut summed);
        // One that was promised fewer slices than come.
        let mut spilled = Space::default();
        let mut spill = Change::stacked(out, inp, rank, &mut spilled);
        for _ in 0..terms {
            let mut draw = |count| (0..count).map(|_| stream.uniform(1.0) as f32).collect();
            let (a, b) = (draw(rank * inp), draw(out * rank));
            let factors = Factors { rank, a, b };
            for change in [&mut stack, &mut dense, &mut spill] {
                change.add(&factors, &vec![0.3; rank]);
            }
        }
        let whole = |change: &mut Change<'_>| {
            let spectrum = change.spectrum(usize::MAX).expect("converges");
            let energy: f64 = spectrum.sigma.iter().map(|sigma| sigma * sigma).sum();
            assert!((energy - spectrum.energy).abs() < 1e-9 * energy.max(1e-300));
            spectrum.left * spectrum.v.transpose()
        };
        let expected = whole(&mut dense);
        prop_assert!(difference(&whole(&mut stack), &expected) < 1e-9);
        prop_assert!(difference(&whole(&mut spill), &expected) < 1e-9);
        // What is given one by one adds up to the same, largest first.
        for change in [&mut stack, &mut dense] {
            let directions = change.directions(0.0).expect("converges");
            let (mut sum, mut before) = (Mat::<f64>::zeros(out, inp), f64::INFINITY);
            let mut numbers = Vec::new();
            directions.each(|j, left, v| {
                let sigma = left.iter().map(|value| value * value).sum::<f64>().sqrt();
                assert!(sigma <= before * (1.0 + 1e-9), "{j}: {sigma} after {before}");
                before = sigma;
                numbers.push(j);
                sum += Mat::from_fn(out, inp, |row, column| left[row] * v[column]);
            });
            prop_assert!(numbers.iter().copied().eq(0..directions.count()));
            prop_assert!(directions.count() <= (rank * terms).min(out).min(inp));
            prop_assert!(difference(&sum, &expected) < 1e-5);
        }
    }

    #[test]
    fn any_ranks_and_shares_equal_the_best_approximation_of_the_formula(
        members in prop::collection::vec((0u16..13, 1u32..100), 1..5), seed in 0u64..1000,
    ) {
        let total: u32 = members.iter().map(|(_, share)| share).sum();
        let ranks = RankTable::uniform(&[Projection::V], 1, 12);
        let global = random(&ranks, seed);
        let updates: Vec<_> = members.iter().enumerate().map(|(index, (rank, share))| {
            let own = RankTable::uniform(&[Projection::V], 1, *rank);
            let update = random(&own, seed + 1 + index as u64);
            (f64::from(*share) / f64::from(total), own, update)
        }).collect();
        let (merged, _) = fold(&global, &ranks, &updates).expect("merges");
        let weight = weights()[1];
        let expected = best(&reference(&global, &updates, weight), 12).0;
        prop_assert!(difference(&dense(&merged, weight, 12), &expected) < 1e-5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Before truncation: a merged adapter that has room for everything is the dense formula; after it,
    /// the best approximation. Any shapes, ranks 1 to 64, shares, and steps that were normalized.
    #[test]
    fn any_shapes_and_ranks_up_to_64_equal_the_formula_and_its_best_approximation(
        (out, inp) in (3usize..96, 3usize..96), kept in 1u16..=64,
        members in prop::collection::vec((1u16..=64, 1u32..100, 50u32..200), 1..5),
        seed in 0u64..1000,
    ) {
        let shape = WeightShape { name: WeightName::new(0, Projection::Q), out, inp };
        let adapter = |rank: u16, seed: u64| {
            let rank = usize::from(rank);
            let mut stream = Stream::new(seed, Purpose::Adapter, shape.name);
            let mut draw = |count| (0..count).map(|_| stream.uniform(1.0) as f32).collect();
            let (a, b) = (draw(rank * inp), draw(out * rank));
            let mut memory = Memory::default();
            put(&mut memory, shape, rank, a, b);
            memory
        };
        let total: u32 = members.iter().map(|(_, share, _)| share).sum();
        let stretches: Vec<f64> = members.iter().map(|(_, _, s)| f64::from(*s) / 100.0).collect();
        for room in [kept, u16::try_from(out.min(inp)).expect("small")] {
            let ranks = RankTable::only(shape.name, room);
            let global = adapter(room, seed);
            let updates: Vec<_> = members.iter().zip(1u64..).map(|((rank, share, _), index)| {
                let rank = (*rank).min(room);
                let share = f64::from(*share) / f64::from(total);
                (share, RankTable::only(shape.name, rank), adapter(rank, seed + index))
            }).collect();
            let case = Case { stretches: &stretches, ..Case::new(Strategy::Product, &global, &ranks, &updates) };
            let (merged, folded, _) = case.merge().expect("merges");
            let mut whole = dense(&global, shape, usize::MAX);
            for ((share, ranks, update), stretch) in updates.iter().zip(&stretches) {
                let rank = usize::from(ranks.max());
                let change = dense(update, shape, rank) - dense(&global, shape, rank);
                whole += faer::Scale(*share * *stretch) * change;
            }
            let (expected, dropped) = best(&whole, usize::from(room));
            let found = dense(&merged, shape, usize::MAX);
            prop_assert!(difference(&found, &expected) < 1e-5);
            prop_assert!((folded.dropped_energy - dropped).abs() < 1e-9);
            if usize::from(room) >= out.min(inp) {
                prop_assert!(difference(&found, &whole) < 1e-5);
            }
            if out == inp && out > 8 {
                prop_assert!(difference(&found.transpose().to_owned(), &expected) > 1e-2);
            }
        }
    }
}

#[test]
fn a_stack_of_more_than_half_the_smaller_width_is_accumulated_densely() {
    let summed = |out, inp, slices| {
        let mut space = Space::default();
        Change::new(out, inp, slices, &mut space).is_summed()
    };
    assert!(!summed(64, 80, 32));
    assert!(summed(64, 80, 33));
    assert!(summed(80, 64, 33));
}

//! The basis that sites go on from: near to what they had, and each site's slices the best of their rank.

use super::*;
use domain::job::Strategy;

/// Two layers whose sites have the ranks 4, 8 and 16, as after a round of training: each moved a little from what it had.
fn trained(seed: u64) -> (Memory, Vec<(f64, RankTable, Memory)>) {
    let global = random(&uniform(16), seed);
    let shares = [(0.5, 4), (0.2, 8), (0.3, 16)].into_iter().zip(1u64..);
    let updates = shares.map(|((share, rank), own)| {
        let ranks = uniform(rank);
        let (start, noise) = (leading(&global, &ranks), random(&ranks, seed + own));
        let mut update = Memory::default();
        for weight in weights() {
            for key in [weight.name.peft_a(), weight.name.peft_b()] {
                let ((shape, start), (_, noise)) = (
                    start.get(&key).expect("there"),
                    noise.get(&key).expect("there"),
                );
                let moved = start
                    .iter()
                    .zip(noise)
                    .map(|(value, noise)| value + 0.05 * noise);
                update
                    .put(&key, *shape, moved.collect())
                    .expect("memory takes all");
            }
        }
        (share, ranks, update)
    });
    let updates = updates.collect();
    (global, updates)
}

fn a(adapter: &Memory, weight: WeightShape) -> Mat<f64> {
    let ([rank, inp], values) = adapter.get(&weight.name.peft_a()).expect("A");
    Mat::from_fn(*rank, *inp, |j, k| f64::from(values[j * inp + k]))
}

#[test]
fn every_site_s_leading_slices_are_the_best_approximation_of_its_rank() {
    let (global, updates) = trained(300);
    let (merged, folded) = fold(&global, &uniform(16), &updates).expect("merges");
    for weight in weights() {
        let whole = reference(&global, &updates, weight);
        let svd = whole.thin_svd().expect("converges");
        for rank in [4, 8, 16] {
            let mut best = Mat::zeros(weight.out, weight.inp);
            for j in 0..rank {
                best += faer::Scale(svd.S().column_vector()[j])
                    * (svd.U().col(j) * svd.V().col(j).transpose());
            }
            let off = difference(&dense(&merged, weight, rank), &best);
            assert!(off < 1e-5, "{} at rank {rank}: {off}", weight.name);
        }
    }
    // What a site does not get is what its own ranks leave out of the whole.
    let (mut kept, mut without) = (0.0, [0.0; 3]);
    for weight in weights() {
        kept += dense(&merged, weight, 16).squared_norm_l2();
        for (without, rank) in without.iter_mut().zip([4, 8, 16]) {
            *without += dense(&merged, weight, 16).squared_norm_l2()
                - dense(&merged, weight, rank).squared_norm_l2();
        }
    }
    for (found, without) in folded.withheld_energy.iter().zip(without) {
        assert!(
            (found - without / kept).abs() < 1e-6,
            "{found} {without} of {kept}"
        );
    }
}

#[test]
fn rows_of_a_keep_the_fresh_norm_and_stay_near_what_the_sites_had() {
    let ranks = uniform(8);
    let mut global = Memory::default();
    super::super::fresh(&ranks, &weights(), SEED, &mut global).expect("writes");
    let updates: Vec<_> = (0..2u64)
        .map(|own| {
            let noise = random(&ranks, 320 + own);
            let mut update = global.clone();
            for weight in weights() {
                // A first round: B leaves zero, A moves by a tenth of its size.
                let key = weight.name.peft_b();
                let (shape, b) = noise.get(&key).expect("B");
                update.put(&key, *shape, b.clone()).expect("put");
                let key = weight.name.peft_a();
                let ((shape, a), (_, by)) =
                    (global.get(&key).expect("A"), noise.get(&key).expect("A"));
                let bound = 0.1 / (weight.inp as f32).sqrt();
                let a = a.iter().zip(by).map(|(value, by)| value + bound * by);
                update.put(&key, *shape, a.collect()).expect("put");
            }
            (0.5, ranks.clone(), update)
        })
        .collect();
    let (merged, _) = fold(&global, &ranks, &updates).expect("merges");
    for weight in weights() {
        let (before, after) = (a(&global, weight), a(&merged, weight));
        for row in after.row_iter() {
            let square = row.squared_norm_l2();
            assert!((square - 1.0 / 3.0).abs() < 1e-5, "{square}");
        }
        // Of the rows' length, the singular directions' own order would leave nothing of it.
        let along: f64 = before
            .row_iter()
            .zip(after.row_iter())
            .map(|(was, is)| was * is.transpose())
            .sum();
        let cosine = along / (before.norm_l2() * after.norm_l2());
        assert!(cosine > 0.8, "{}: {cosine}", weight.name);
    }
}

#[test]
fn the_turn_does_not_depend_on_how_singular_directions_happen_to_point() {
    // The same change from other factors of it: each site's first two slices change places, and signs.
    let (global, updates) = trained(340);
    let mirrored: Vec<_> = updates
        .iter()
        .map(|(share, ranks, update)| {
            let mut other = Memory::default();
            for weight in weights() {
                let ([rank, inp], a) = update.get(&weight.name.peft_a()).expect("A").clone();
                let ([out, _], b) = update.get(&weight.name.peft_b()).expect("B").clone();
                let from = |j: usize| if j < 2 { 1 - j } else { j };
                let flipped = |values: Vec<f32>,
                               at: &dyn Fn(usize, usize) -> usize,
                               (rows, columns): (usize, usize)| {
                    (0..rows * columns)
                        .map(|i| -values[at(i / columns, i % columns)])
                        .collect()
                };
                let a = flipped(a, &|j, k| from(j) * inp + k, (rank, inp));
                let b = flipped(b, &|row, j| row * rank + from(j), (out, rank));
                put(&mut other, weight, rank, a, b);
            }
            (*share, ranks.clone(), other)
        })
        .collect();
    let (one, _) = fold(&global, &uniform(16), &updates).expect("merges");
    let (two, _) = fold(&global, &uniform(16), &mirrored).expect("merges");
    for weight in weights() {
        let (one, two) = (a(&one, weight), a(&two, weight));
        assert!(difference(&one, &two) < 1e-4, "{}", weight.name);
    }
}

#[test]
fn a_side_term_is_left_as_it_is_taken_apart() {
    // Nobody trains on it: the columns of B point where their largest entry is positive.
    let (global, updates) = trained(360);
    let ranks = uniform(16);
    let (merged, folded, _) = Case::new(Strategy::Stack, &global, &ranks, &updates)
        .merge()
        .expect("merges");
    for weight in weights() {
        let side = usize::from(folded.side.rank(weight.name));
        let ([_, all], b) = merged.get(&weight.name.peft_b()).expect("B");
        assert!(side > 0 && *all == 16 + side);
        for j in 16..*all {
            let column = b.chunks(*all).map(|row| row[j]);
            let largest = column.fold(0.0f32, |most, value| {
                if value.abs() > most.abs() {
                    value
                } else {
                    most
                }
            });
            assert!(largest > 0.0, "{} column {j}", weight.name);
        }
    }
}

//! The basis that sites go on from: near to what they had, and each site's slices the best of their rank.

use super::super::refactor::Basis;
use super::super::turn::turn;
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
    let (global, _) = trained(340);
    let weight = weights()[1];
    let ([keep, inp], previous) = global.get(&weight.name.peft_a()).expect("A").clone();
    let drawn = random(&uniform(16), 341);
    let svd = dense(&drawn, weight, keep).thin_svd().expect("converges");
    let (left, v) = (svd.U().get(.., ..keep), svd.V().get(.., ..keep));
    let sigma = svd.S().column_vector();
    let left = Mat::from_fn(weight.out, keep, |row, j| left[(row, j)] * sigma[j]);
    let v = Mat::from_fn(inp, keep, |row, j| v[(row, j)]);
    // Two directions in the other order, a third the other way round: the same change.
    let other = |matrix: &Mat<f64>| {
        let from = |j: usize| if j < 2 { 1 - j } else { j };
        let sign = |j: usize| if j == 2 { -1.0 } else { 1.0 };
        Mat::from_fn(matrix.nrows(), keep, |row, j| {
            sign(j) * matrix[(row, from(j))]
        })
    };
    let turned = |mut left: Mat<f64>, mut v: Mat<f64>| {
        let basis = Basis {
            previous: previous.clone(),
            cuts: &[4],
        };
        turn(&mut left, &mut v, &basis);
        (left, v)
    };
    assert!(difference(&other(&v), &v) > 0.1, "they do not differ");
    let (one, two) = (
        turned(left.clone(), v.clone()),
        turned(other(&left), other(&v)),
    );
    assert!(difference(&two.0, &one.0) < 1e-9 && difference(&two.1, &one.1) < 1e-9);
    // And it is a turn: the change is the same, up to the cut as well.
    for rank in [4, keep] {
        let product =
            |left: &Mat<f64>, v: &Mat<f64>| left.get(.., ..rank) * v.get(.., ..rank).transpose();
        let off = difference(&product(&one.0, &one.1), &product(&left, &v));
        assert!(off < 1e-12 && difference(&one.1, &v) > 0.1, "{off}");
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

//! Zeroth-order sites beside first-order ones: what the default weighting does to a fleet.

use std::path::{Path, PathBuf};

use domain::job::Seeds;
use engine::adapter::Adapter;
use engine::control::Control;
use engine::data::{Batch, Row};
use engine::evaluate::Evaluator;
use engine::train::{Options, Trainer};

use super::super::share::beside;
use super::super::walk::{Leading, Stretch};
use super::super::{Member, Round, Share};
use super::walk::{Bench, STEPS, steps};
use super::*;

fn shares(weights: &[f64]) -> Vec<Share> {
    let share = |weight: &f64| Share {
        weight: *weight,
        stretch: 1.0,
    };
    weights.iter().map(share).collect()
}

#[test]
fn first_order_sites_count_as_if_they_were_alone_and_zeroth_order_ones_on_top() {
    let mut mixed = shares(&[0.2, 0.3, 0.5]);
    beside(&mut mixed, &[false, true, false]);
    let found: Vec<f64> = mixed.iter().map(|one| one.weight * one.stretch).collect();
    for (found, expected) in found.iter().zip([0.2 / 0.7, 0.3, 0.5 / 0.7]) {
        assert!((found - expected).abs() < 1e-12, "{mixed:?}");
    }
    for alike in [[true; 3], [false; 3]] {
        let mut one_kind = shares(&[0.2, 0.3, 0.5]);
        beside(&mut one_kind, &alike);
        assert_eq!(one_kind, shares(&[0.2, 0.3, 0.5]));
    }
}

#[test]
fn the_merged_change_is_that_of_the_first_order_sites_alone_and_the_others_added() {
    let ranks = uniform(8);
    let global = random(&ranks, 70);
    let updates = [
        (0.2, uniform(8), random(&uniform(8), 71)),
        (0.3, uniform(4), random(&uniform(4), 72)),
        (0.5, uniform(6), random(&uniform(6), 73)),
    ];
    let mut mixed = shares(&[0.2, 0.3, 0.5]);
    beside(&mut mixed, &[false, true, false]);
    let stretches: Vec<f64> = mixed.iter().map(|share| share.stretch).collect();
    let [a, z, b] = updates.clone();
    let alone = [(0.2 / 0.7, a.1, a.2), (0.5 / 0.7, b.1, b.2)];
    for rule in [Strategy::Stack, Strategy::Residual] {
        if !rule.takes_uneven_ranks() {
            continue;
        }
        let case = Case {
            stretches: &stretches,
            ..Case::new(rule, &global, &ranks, &updates)
        };
        let (merged, ..) = case.merge().expect("merges");
        for weight in weights() {
            let found = dense(&merged, weight, usize::MAX);
            let own = dense(&z.2, weight, 4) - dense(&global, weight, 4);
            let expected = reference(&global, &alone, weight) + faer::Scale(0.3) * own;
            let off = difference(&found, &expected);
            assert!(off < 1e-5, "{rule:?} {}: {off}", weight.name);
        }
    }
}

/// Three sites that learn the same language of a few tokens, each another part of it.
fn row(site: u32, number: u32) -> Row {
    let token = |i: u32| 10 + (i * (3 + site) + number * 5) % 40;
    Row {
        tokens: (0..16).map(token).collect(),
        labelled: vec![true; 16],
        class: None,
        record: number as usize,
    }
}

fn batch(site: u32, step: u32) -> Batch {
    let rows = (0..4).map(|at| row(site, 4 * step + at)).collect();
    Batch { rows }
}

struct Fleet<'a> {
    bench: &'a Bench,
    /// Sites that train by gradients; site 2 is zeroth-order.
    sites: &'a [u32],
    by_default: bool,
}

impl Fleet<'_> {
    /// Trains some rounds and returns the loss of all three sites' other records.
    fn loss(&self, name: &str) -> f64 {
        let mut start = self.bench.start();
        for round in 1..=4u32 {
            let mut members = Vec::new();
            for site in self.sites {
                let update = if *site == 2 {
                    self.walked(&start, round)
                } else {
                    self.trained(&start, *site, round)
                };
                members.push((*site, self.bench.stored(&format!("{name}-{site}"), &update)));
            }
            start = self.merged(round, &start, members, &format!("{name}-round-{round}"));
        }
        let bytes = std::fs::read(&start).expect("reads");
        let adapter = self.adapter(&bytes);
        let mut evaluator = Evaluator::new(&self.bench.model, Some(&adapter)).expect("fits");
        let losses = (0..3).map(|site| {
            let found = evaluator.loss(&batch(site, 1000), &Control::new());
            found.expect("a loss").mean().expect("labels")
        });
        losses.sum::<f64>() / 3.0
    }

    fn adapter(&self, bytes: &[u8]) -> Adapter {
        let weights = self.bench.model.weights();
        let ranks = &self.bench.ranks;
        Adapter::from_safetensors(bytes, &weights, ranks, SCALE as f32).expect("an adapter")
    }

    fn trained(&self, start: &Path, site: u32, round: u32) -> Vec<u8> {
        let start = self.adapter(&std::fs::read(start).expect("reads"));
        let model = &self.bench.model;
        let mut trainer = Trainer::new(model, &start, Options::default()).expect("fits");
        for step in 0..6 {
            let batch = batch(site, 6 * round + step);
            let done = trainer.step(&batch, 1e-2, &Control::new());
            done.expect("a step");
        }
        let file = trainer.adapter().expect("an adapter").to_safetensors();
        file.expect("a file")
    }

    /// By its scalars, as the server makes it again.
    fn walked(&self, start: &Path, round: u32) -> Vec<u8> {
        let steps = steps(Seeds::PerWorker, 2);
        let (scalars, file) = self.bench.train(start, steps, round.into(), 2);
        let stretch = Stretch {
            round,
            steps,
            first_step: STEPS * u64::from(round - 1),
            emphasis: Default::default(),
        };
        let weights = self.bench.model.weights();
        let own = Leading {
            start,
            ranks: &self.bench.ranks,
            weights: &weights,
        };
        let out = self.bench.path("again");
        stretch.retrace(&own, &scalars, &out).expect("retraces");
        assert_eq!(std::fs::read(&out).expect("reads"), file);
        file
    }

    fn merged(&self, round: u32, start: &Path, members: Vec<(u32, PathBuf)>, out: &str) -> PathBuf {
        let count = members.len() as f64;
        let mut all = shares(&vec![1.0 / count; members.len()]);
        let zeroth_order: Vec<bool> = members.iter().map(|(site, _)| *site == 2).collect();
        if self.by_default {
            beside(&mut all, &zeroth_order);
        }
        let members = members.into_iter().zip(all);
        let members = members.map(|((site, update), share)| Member {
            worker: format!("w{site}").parse().expect("legal"),
            ranks: self.bench.ranks.clone(),
            share,
            update,
            started: None,
        });
        let mut merge = self.bench.round(round, start, Default::default(), out);
        merge.aggregation.strategy = Strategy::Product;
        merge.members = members.collect();
        let merge: Round = merge;
        merge.merge().expect("merges");
        merge.out
    }
}

#[test]
fn a_mixed_fleet_is_not_worse_than_its_first_order_sites_alone() {
    let bench = Bench::new();
    let fleet = |sites, by_default| Fleet {
        bench: &bench,
        sites,
        by_default,
    };
    let alone = fleet(&[0, 1], true).loss("alone");
    let mixed = fleet(&[0, 1, 2], true).loss("mixed");
    let plain = fleet(&[0, 1, 2], false).loss("plain");
    println!("alone {alone}, mixed {mixed}, by the plain mean {plain}");
    assert!(mixed <= 1.005 * alone, "{mixed}, {alone} without");
    // The plain mean takes away a third of what the others learned: the weighting is what makes the difference.
    assert!(
        plain > mixed,
        "{plain} by the plain mean, {mixed} by default"
    );
}

#[test]
fn a_site_of_lower_rank_is_retraced_from_the_leading_slices() {
    let bench = Bench::new();
    let start = bench.start();
    let moved = bench.path("moved");
    artifacts::tensors::rewrite(&start, &moved, |_, values| {
        let numbers = (0..).zip(values.iter_mut());
        numbers.for_each(|(at, value)| *value += (f64::from(at) * 0.7).sin() as f32);
    })
    .expect("copies");
    let weights = bench.model.weights();
    let low = RankTable::uniform(&[Projection::Q, Projection::Down], 2, 2);
    let steps = steps(Seeds::PerWorker, 5);
    let whole = std::fs::read(&moved).expect("reads");
    let own = Adapter::from_safetensors(&whole, &weights, &bench.ranks, SCALE as f32);
    let own = own.expect("an adapter").leading(&low).expect("has as many");
    let first = bench.stored("low", &own.to_safetensors().expect("a file"));
    let low_bench = Bench {
        ranks: low.clone(),
        ..bench
    };
    let (scalars, file) = low_bench.train(&first, steps, 1, 5);
    let stretch = Stretch {
        round: 1,
        steps,
        first_step: 0,
        emphasis: Default::default(),
    };
    let leading = Leading {
        start: &moved,
        ranks: &low,
        weights: &weights,
    };
    let out = low_bench.path("out");
    stretch.retrace(&leading, &scalars, &out).expect("retraces");
    assert_eq!(std::fs::read(&out).expect("reads"), file);
}

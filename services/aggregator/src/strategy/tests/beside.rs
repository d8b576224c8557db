//! Zeroth-order sites beside first-order ones: what the default weighting does to a fleet.

use std::path::{Path, PathBuf};

use domain::job::aggregation::Normalize;
use domain::job::spec::{Base, Optimizer, Training};
use domain::job::{Aggregation, Seeds};
use domain::plan::{Binding, Explanation, Prediction, WorkerPlan};
use domain::zeroth::Steps;
use engine::adapter::Adapter;
use engine::control::Control;
use engine::data::{Batch, Row};
use engine::evaluate::Evaluator;
use engine::train::{Options, Trainer, ZerothTrainer};

use super::super::share::shares;
use super::super::walk::{Leading, Stretch};
use super::super::{Member, Share, shares_of};
use super::walk::{Bench, steps};
use super::*;

/// What a site trains by; of it only the optimizer has a say in what the site weighs.
fn plan(optimizer: Optimizer) -> WorkerPlan {
    WorkerPlan {
        ranks: RankTable::default(),
        base: Base::Source,
        kernel: String::new(),
        threads: 1,
        batch: 4,
        accumulate: 1,
        local_steps: 8,
        sequence_length: 16,
        checkpoint: false,
        abreast: 1,
        optimizer,
        predicted: Prediction {
            step_seconds: 1.0,
            round_seconds: 1.0,
            peak_memory_bytes: 1,
            upload_bytes: 1,
        },
        why: Explanation {
            text: String::new(),
            binding: Binding::Job,
            rejected: Vec::new(),
            ranks: Vec::new(),
        },
    }
}

/// The shares of three sites that trained on 20, 30 and 50 records, by these optimizers.
fn of_three(optimizers: [Optimizer; 3]) -> Vec<Share> {
    let figures = [("a", 20), ("b", 30), ("c", 50)];
    let contributions = figures.map(|(name, count)| contribution(name, count, count));
    let plans = optimizers.map(plan);
    let plans: Vec<&WorkerPlan> = plans.iter().collect();
    shares_of(&contributions, &plans, &Aggregation::default())
}

const MIXED: [Optimizer; 3] = [Optimizer::Adamw, Optimizer::Mezo, Optimizer::Adamw];

#[test]
fn first_order_sites_count_as_if_they_were_alone_and_zeroth_order_ones_on_top() {
    let mixed = of_three(MIXED);
    let found: Vec<f64> = mixed.iter().map(|one| one.weight * one.stretch).collect();
    for (found, expected) in found.iter().zip([0.2 / 0.7, 0.3, 0.5 / 0.7]) {
        assert!((found - expected).abs() < 1e-12, "{mixed:?}");
    }
    for alike in [[Optimizer::Mezo; 3], [Optimizer::Adamw; 3]] {
        let one_kind = of_three(alike);
        assert!(one_kind.iter().all(|one| one.stretch == 1.0));
        let weights: Vec<f64> = one_kind.iter().map(|one| one.weight).collect();
        assert_eq!(weights, [0.2, 0.3, 0.5]);
    }
}

/// However many steps either kind makes, and though a site of many steps has many records.
#[test]
fn normalized_steps_are_compared_with_those_of_the_same_kind() {
    let of = |steps: [u32; 4], optimizers: [Optimizer; 4]| {
        let contributions = [("a", 10), ("b", 30), ("c", 100), ("d", 60)]
            .into_iter()
            .zip(steps)
            .map(|((name, records), steps)| {
                let mut one = contribution(name, records, records);
                one.update.metrics.steps = steps;
                one
            })
            .collect::<Vec<_>>();
        let plans = optimizers.map(plan);
        let plans: Vec<&WorkerPlan> = plans.iter().collect();
        let aggregation = Aggregation {
            normalize: Normalize::Fednova,
            ..Aggregation::default()
        };
        let shares = shares_of(&contributions, &plans, &aggregation);
        let counts: Vec<f64> = shares.iter().map(|one| one.weight * one.stretch).collect();
        counts
    };
    let (first, zeroth) = (Optimizer::Adamw, Optimizer::Mezo);
    let near = |found: &[f64], expected: &[f64]| {
        let pairs = found.iter().zip(expected);
        let all = pairs.map(|(found, expected)| (found - expected).abs());
        assert!(all.fold(0.0, f64::max) < 1e-12, "{found:?} {expected:?}");
    };
    let alike = of([8, 8, 64, 64], [first, first, zeroth, zeroth]);
    near(&alike, &[0.25, 0.75, 0.5, 0.3]);
    // As the first-order sites alone would count: seven steps in the mean.
    let uneven = of([4, 8, 64, 32], [first, first, zeroth, zeroth]);
    let mean = (100.0 * 64.0 + 60.0 * 32.0) / 160.0;
    near(
        &uneven,
        &[
            0.25 * 7.0 / 4.0,
            0.75 * 7.0 / 8.0,
            0.5 * mean / 64.0,
            0.3 * mean / 32.0,
        ],
    );
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
    let mixed = of_three(MIXED);
    let stretches: Vec<f64> = mixed.iter().map(|share| share.stretch).collect();
    let added: Vec<bool> = mixed.iter().map(|share| share.added).collect();
    let [a, z, b] = updates.clone();
    let alone = [(0.2 / 0.7, a.1, a.2), (0.5 / 0.7, b.1, b.2)];
    for rule in [Strategy::Stack, Strategy::Residual] {
        if !rule.takes_uneven_ranks() {
            continue;
        }
        let case = Case {
            stretches: &stretches,
            added: &added,
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

/// Where not all have a slice, who has it is another part of the sites by gradients than of all.
#[test]
fn a_slice_is_averaged_among_the_first_order_sites_that_have_it_and_the_others_change_added() {
    let ranks = uniform(8);
    let global = random(&ranks, 74);
    let updates = [
        (0.2, uniform(8), random(&uniform(8), 75)),
        (0.3, uniform(4), random(&uniform(4), 76)),
        (0.5, uniform(6), random(&uniform(6), 77)),
    ];
    let mixed = of_three(MIXED);
    let stretches: Vec<f64> = mixed.iter().map(|share| share.stretch).collect();
    let added: Vec<bool> = mixed.iter().map(|share| share.added).collect();
    let case = Case {
        stretches: &stretches,
        added: &added,
        ..Case::new(Strategy::Slice, &global, &ranks, &updates)
    };
    let (merged, ..) = case.merge().expect("merges");
    let [a, z, b] = updates.clone();
    let two = [(0.2 / 0.7, a.1, a.2), (0.5 / 0.7, b.1, b.2)];
    let alone = Case::new(Strategy::Slice, &global, &ranks, &two);
    let (alone, ..) = alone.merge().expect("merges");
    for weight in weights() {
        let key = weight.name.peft_a();
        let row = |of: &Memory, slice: usize| {
            of.get(&key).expect("A").1[slice * weight.inp..][..weight.inp].to_vec()
        };
        for slice in 0..8 {
            let (found, before) = (row(&merged, slice), row(&global, slice));
            let mut expected = row(&alone, slice);
            if slice < 4 {
                let moved = row(&z.2, slice);
                let both = moved.iter().zip(&before);
                for (value, (own, before)) in expected.iter_mut().zip(both) {
                    *value += 0.3 * (own - before);
                }
            }
            let off = found
                .iter()
                .zip(&expected)
                .map(|(one, other)| (one - other).abs());
            let off = off.fold(0.0, f32::max);
            assert!(off < 1e-6, "{} {slice}: {off}", weight.name);
        }
    }
}

/// Rounds of a fleet.
const ROUNDS: u32 = 4;

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
    /// Says nothing but its seed, so that either kind of site has the steps and the rate that it has in a job that says
    /// nothing of them.
    training: &'a Training,
    sites: &'a [u32],
    /// Those of them that train without gradients.
    zeroth: &'a [u32],
    by_default: bool,
}

impl Fleet<'_> {
    /// By how much some rounds lower the loss of all three sites' records.
    fn gain(&self, name: &str) -> f64 {
        let mut start = self.bench.start_of(self.training.seed);
        let before = self.loss(&start);
        for round in 1..=ROUNDS {
            let mut members = Vec::new();
            for site in self.sites {
                let update = if self.zeroth.contains(site) {
                    self.walked(&start, *site, round)
                } else {
                    self.trained(&start, *site, round)
                };
                members.push((*site, self.bench.stored(&format!("{name}-{site}"), &update)));
            }
            start = self.merged(round, &start, members, &format!("{name}-round-{round}"));
        }
        before - self.loss(&start)
    }

    fn loss(&self, path: &Path) -> f64 {
        let adapter = self.adapter(path);
        let mut evaluator = Evaluator::new(&self.bench.model, Some(&adapter)).expect("fits");
        let losses = (0..3).map(|site| {
            let found = evaluator.loss(&batch(site, 1000), &Control::new());
            found.expect("a loss").mean().expect("labels")
        });
        losses.sum::<f64>() / 3.0
    }

    fn adapter(&self, path: &Path) -> Adapter {
        let bytes = std::fs::read(path).expect("reads");
        let weights = self.bench.model.weights();
        let ranks = &self.bench.ranks;
        Adapter::from_safetensors(&bytes, &weights, ranks, SCALE as f32).expect("an adapter")
    }

    /// The steps of a round, counted through all.
    fn steps(&self, round: u32) -> std::ops::Range<u32> {
        let count = self.training.most_steps();
        count * (round - 1)..count * round
    }

    fn trained(&self, start: &Path, site: u32, round: u32) -> Vec<u8> {
        let start = self.adapter(start);
        let options = Options {
            clip_norm: self.training.clip_norm as f32,
            ..Options::default()
        };
        let mut trainer = Trainer::new(&self.bench.model, &start, options).expect("fits");
        for step in self.steps(round) {
            let rate = self.training.learning_rate() as f32;
            let done = trainer.step(&batch(site, step), rate, &Control::new());
            done.expect("a step");
        }
        let file = trainer.adapter().expect("an adapter").to_safetensors();
        file.expect("a file")
    }

    /// By its scalars, as the server makes it again.
    fn walked(&self, start: &Path, site: u32, round: u32) -> Vec<u8> {
        let seed = 100 * u64::from(site) + self.training.seed;
        let steps = Steps::of(self.training, seed);
        let first_step = u64::from(self.steps(round).start);
        let own = self.adapter(start);
        let trainer = ZerothTrainer::new(&self.bench.model, &own, steps, first_step);
        let mut trainer = trainer.expect("fits");
        for step in self.steps(round) {
            let done = trainer.step(&batch(site, step), &Control::new());
            done.expect("a step");
        }
        let file = trainer.adapter().expect("an adapter").to_safetensors();
        let file = file.expect("a file");
        let stretch = Stretch {
            round,
            steps,
            first_step,
            emphasis: Default::default(),
        };
        let weights = self.bench.model.weights();
        let leading = Leading {
            start,
            ranks: &self.bench.ranks,
            weights: &weights,
        };
        let (scalars, out) = (trainer.scalars(), self.bench.path("again"));
        stretch.retrace(&leading, &scalars, &out).expect("retraces");
        assert_eq!(std::fs::read(&out).expect("reads"), file);
        file
    }

    fn merged(&self, round: u32, start: &Path, members: Vec<(u32, PathBuf)>, out: &str) -> PathBuf {
        let aggregation = Aggregation::default();
        let of_scalars = |(site, _): &(u32, PathBuf)| self.zeroth.contains(site);
        let zeroth_order: Vec<bool> = members.iter().map(of_scalars).collect();
        let kind = |zeroth_order: &bool| match zeroth_order {
            true => Optimizer::Mezo,
            false => Optimizer::Adamw,
        };
        let plans: Vec<WorkerPlan> = zeroth_order.iter().map(|is| plan(kind(is))).collect();
        let plans: Vec<&WorkerPlan> = plans.iter().collect();
        let equal = |(site, _): &(u32, PathBuf)| contribution(&format!("w{site}"), 32, 512);
        let contributions: Vec<Contribution> = members.iter().map(equal).collect();
        let all = if self.by_default {
            shares_of(&contributions, &plans, &aggregation)
        } else {
            let Aggregation {
                weights, normalize, ..
            } = aggregation;
            shares(&contributions, &zeroth_order, weights, normalize)
        };
        let members = members.into_iter().zip(all);
        let members = members.map(|((site, update), share)| Member {
            worker: format!("w{site}").parse().expect("legal"),
            ranks: self.bench.ranks.clone(),
            share,
            update,
            started: None,
        });
        let mut merge = self.bench.round(round, start, Default::default(), out);
        (merge.aggregation, merge.seed) = (aggregation, self.training.seed);
        merge.members = members.collect();
        merge.merge().expect("merges");
        merge.out
    }
}

/// What a fleet learns is compared, not the loss itself: at the default rate few steps lower that by little. One seed's
/// directions may lead a hair's breadth the wrong way; what is held to the promise is their mean (0.3 % above, and other
/// instructions change a sum by less than a millionth).
#[test]
fn a_mixed_fleet_is_not_worse_than_its_first_order_sites_alone() {
    let bench = Bench::new();
    for (first, zeroth) in [(&[0, 1][..], &[2][..]), (&[0], &[1, 2])] {
        let (mut all_alone, mut all_mixed) = (0.0, 0.0);
        for seed in 0..3 {
            let training = Training {
                seed,
                ..Training::default()
            };
            let fleet = |sites, by_default| Fleet {
                bench: &bench,
                training: &training,
                sites,
                zeroth,
                by_default,
            };
            let alone = fleet(first, true).gain("alone");
            let mixed = fleet(&[0, 1, 2], true).gain("mixed");
            let plain = fleet(&[0, 1, 2], false).gain("plain");
            println!(
                "{zeroth:?}, seed {seed}: {alone} alone, {mixed} mixed, {plain} by the plain mean"
            );
            assert!(alone > 0.0, "{alone}: the first-order sites learn nothing");
            assert!(mixed > 0.98 * alone, "{mixed} mixed, {alone} alone");
            // The plain mean takes away a third of what the others learned: the weighting is what makes the difference.
            assert!(
                plain < 0.9 * alone,
                "{plain} by the plain mean, {alone} alone"
            );
            (all_alone, all_mixed) = (all_alone + alone, all_mixed + mixed);
        }
        assert!(
            all_mixed >= all_alone,
            "{all_mixed} mixed, {all_alone} alone"
        );
    }
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

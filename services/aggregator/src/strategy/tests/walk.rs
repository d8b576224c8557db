//! Rounds of zeroth-order sites on a real model: what their scalars lead to, and what their tensors do.

use std::path::{Path, PathBuf};

use domain::artifact::Digest;
use domain::job::mezo::Mezo;
use domain::job::spec::Training;
use domain::job::{Aggregation, Seeds};
use domain::zeroth::{Scalars, Steps};
use engine::adapter::Adapter;
use engine::control::Control;
use engine::data::{Batch, Row};
use engine::model::{LoadOptions, Model};
use engine::train::{Emphasis, ZerothTrainer};
use tempfile::TempDir;

use super::super::apart;
use super::super::walk::{Stretch, mean};
use super::super::{Member, Round, Share, files, fresh};
use super::*;

/// Steps of a round.
pub(super) const STEPS: u64 = 3;
/// What the sites weigh: unequal, and none of them exact in binary.
const WEIGHTS: [f64; 3] = [0.1, 0.3, 0.6];

/// A tiny model and a folder.
pub(super) struct Bench {
    pub(super) folder: TempDir,
    pub model: Model,
    pub ranks: RankTable,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model");
        testkit::model::tiny(&path, 1).expect("a model");
        let model = Model::load(&path, &LoadOptions::default()).expect("loads");
        let ranks = RankTable::uniform(&[Projection::Q, Projection::Down], 2, 4);
        Self {
            folder,
            model,
            ranks,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The untrained adapter, as the service writes it.
    pub fn start(&self) -> PathBuf {
        self.start_of(SEED)
    }

    /// That of a job with this seed.
    pub fn start_of(&self, seed: u64) -> PathBuf {
        let path = self.path("round-0");
        let weights = self.model.weights();
        let mut out = files::create(&path, &self.ranks, &weights).expect("creates");
        fresh(&self.ranks, &weights, seed, &mut out).expect("writes");
        out.finish().expect("finishes");
        path
    }

    /// One round of one site, by the trainer itself: its scalars, and its adapter's file.
    pub fn train(&self, start: &Path, steps: Steps, round: u64, site: u32) -> (Scalars, Vec<u8>) {
        self.train_by(&Emphasis::default(), start, steps, (round, site))
    }

    /// As [`Bench::train`], the numbers of directions multiplied by these.
    pub fn train_by(
        &self,
        emphasis: &Emphasis,
        start: &Path,
        steps: Steps,
        (round, site): (u64, u32),
    ) -> (Scalars, Vec<u8>) {
        let bytes = std::fs::read(start).expect("reads");
        let weights = self.model.weights();
        let start = Adapter::from_safetensors(&bytes, &weights, &self.ranks, SCALE as f32);
        let first = STEPS * (round - 1);
        let start = start.expect("an adapter");
        let trainer = ZerothTrainer::new(&self.model, &start, steps, first).expect("fits");
        let control = Control::new();
        let trainer = trainer.with_emphasis(emphasis, &control);
        let mut trainer = trainer.expect("not cancelled");
        for step in first..first + STEPS {
            let token = |i: u32| (i * 7 + site * 31 + step as u32 * 3) % 250;
            let row = Row {
                tokens: (0..12).map(token).collect(),
                labelled: vec![true; 12],
                class: None,
                record: 0,
            };
            let batch = Batch { rows: vec![row] };
            trainer.step(&batch, &control).expect("a step");
        }
        let file = trainer.adapter().expect("an adapter");
        (trainer.scalars(), file.to_safetensors().expect("a file"))
    }

    pub fn round(&self, number: u32, start: &Path, updates: [PathBuf; 3], out: &str) -> Round {
        let members = updates.into_iter().zip(WEIGHTS).zip(["a", "b", "c"]);
        let members = members.map(|((update, weight), name)| Member {
            worker: name.parse().expect("legal"),
            ranks: self.ranks.clone(),
            share: Share {
                weight,
                stretch: 1.0,
                added: false,
            },
            update,
            started: None,
        });
        Round {
            aggregation: Aggregation {
                strategy: Strategy::Sum,
                ..Aggregation::default()
            },
            round: number,
            start: start.to_owned(),
            state: None,
            members: members.collect(),
            weights: self.model.weights(),
            ranks: self.ranks.clone(),
            tables: Vec::new(),
            scale: SCALE,
            seed: SEED,
            out: self.path(out),
            state_out: self.path("no-state"),
            threads: NonZeroUsize::MIN,
        }
    }

    pub fn stored(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("writes");
        path
    }
}

pub(super) fn steps(seeds: Seeds, site: u64) -> Steps {
    let training = Training {
        learning_rate: Some(3e-3),
        mezo: Mezo {
            perturbations: 2,
            seeds,
            ..Mezo::default()
        },
        ..Training::default()
    };
    let seed = match seeds {
        Seeds::Shared => 7,
        Seeds::PerWorker => 100 + site,
    };
    Steps::of(&training, seed)
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("reads")
}

#[test]
fn twenty_rounds_of_scalars_are_twenty_rounds_of_tensors_byte_for_byte() {
    let bench = Bench::new();
    let mut start = bench.start();
    for round in 1..=20u32 {
        let mut tensors = Vec::new();
        let mut made = Vec::new();
        for site in 0..3u32 {
            let steps = steps(Seeds::PerWorker, site.into());
            let (scalars, file) = bench.train(&start, steps, round.into(), site);
            let stretch = Stretch {
                round,
                steps,
                first_step: STEPS * u64::from(round - 1),
                emphasis: Default::default(),
            };
            // As they travel.
            let scalars = Scalars::from_bytes(&scalars.to_bytes()).expect("legal");
            let again = bench.path(&format!("again-{site}"));
            let reached = stretch.replay(&start, &scalars, &again).expect("replays");
            let sent = bench.stored(&format!("sent-{site}"), &file);
            assert_eq!(bytes(&again), file, "round {round}, site {site}");
            assert_eq!(reached, digest(&again));
            tensors.push(sent);
            made.push(again);
        }
        let merged = |updates: Vec<PathBuf>, out: &str| {
            let updates = updates.try_into().expect("three");
            let round = bench.round(round, &start, updates, out);
            round.merge().expect("merges");
            round.out
        };
        let by_tensors = merged(tensors, &format!("tensors-{round}"));
        let by_scalars = merged(made, &format!("round-{round}"));
        assert_eq!(bytes(&by_tensors), bytes(&by_scalars), "round {round}");
        assert_ne!(bytes(&by_scalars), bytes(&start));
        start = by_scalars;
    }
}

fn digest(path: &Path) -> Digest {
    artifacts::tensors::rewrite(path, &path.with_extension("copy"), |_, _| {}).expect("copies")
}

#[test]
fn whoever_comes_late_replays_all_rounds_at_once_and_has_the_same_bytes() {
    let bench = Bench::new();
    let first = bench.start();
    let steps = steps(Seeds::Shared, 0);
    let mut start = first.clone();
    let mut log = Vec::new();
    for round in 1..=6u32 {
        let mut found = Vec::new();
        let mut adapters = Vec::new();
        for site in 0..3u32 {
            let (scalars, file) = bench.train(&start, steps, round.into(), site);
            found.push(bench.stored(&format!("scalars-{site}"), &scalars.to_bytes()));
            adapters.push(bench.stored(&format!("adapter-{site}"), &file));
        }
        let stretch = Stretch {
            round,
            steps,
            first_step: STEPS * u64::from(round - 1),
            emphasis: Default::default(),
        };
        let out = format!("round-{round}");
        let merge = bench.round(round, &start, found.try_into().expect("three"), &out);
        let mean = stretch.fold(&merge, 0.0).expect("folds").mean;
        // The mean of the scalars is that of the adapters, up to what 32 bits round.
        let dense = bench.round(round, &start, adapters.try_into().expect("three"), "dense");
        dense.merge().expect("merges");
        let off = far(&merge.out, &dense.out);
        assert!(off < 2e-6, "round {round}: {off}");
        assert!(far(&merge.out, &start) > 1e-4, "it moved");
        log.push((stretch, mean));
        start = merge.out;
    }
    let replay = log
        .iter()
        .fold(engine::train::Replay::new(), |all, (one, mean)| {
            all.then(&one.steps, one.first_step, mean)
        });
    let late = bench.path("late");
    let reached = artifacts::tensors::rewrite(&first, &late, |key, values| {
        assert!(replay.apply(key, values));
    });
    assert_eq!(bytes(&late), bytes(&start));
    assert_eq!(reached.expect("writes"), digest(&start));
}

/// By files it is the formula itself; by scalars it is that up to what random directions are not orthogonal, and a
/// factor that is the same for all.
#[test]
fn how_far_sites_lie_apart_is_the_same_by_their_scalars_and_by_their_files() {
    let bench = Bench::new();
    let start = bench.start();
    let steps = steps(Seeds::Shared, 0);
    let (mut members, mut adapters) = (Vec::new(), Vec::new());
    for (site, weight) in (0..3u32).zip(WEIGHTS) {
        let (scalars, file) = bench.train(&start, steps, 1, site);
        let share = Share {
            weight,
            stretch: 1.0,
            added: false,
        };
        members.push((share, scalars));
        adapters.push(bench.stored(&format!("adapter-{site}"), &file));
    }
    let round = bench.round(1, &start, adapters.try_into().expect("three"), "out");
    let by_files: Vec<f64> = apart::files(&round)
        .expect("reads")
        .into_iter()
        .map(|one| one.expect("in time"))
        .collect();
    let by_scalars = apart::scalars(&members);
    let ratios: Vec<f64> = by_files
        .iter()
        .zip(&by_scalars)
        .map(|(file, scalars)| file / scalars)
        .collect();
    let (least, most) = (
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
    );
    assert!(least > 0.0 && most < 1.1 * least, "{ratios:?}");
    let spread = by_scalars.iter().copied().fold(0.0, f64::max)
        / by_scalars.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(spread > 1.2, "{by_scalars:?} say nothing");
}

#[test]
fn a_change_apart_from_the_others_is_as_large_as_it_is_and_a_late_one_does_not_count() {
    let bench = Bench::new();
    let start = bench.start();
    let moved = bench.path("moved");
    let mut size = 0;
    let mut first = true;
    artifacts::tensors::rewrite(&start, &moved, |_, values| {
        if std::mem::take(&mut first) {
            size = values.len();
            values.iter_mut().for_each(|value| *value += 1.0);
        }
    })
    .expect("copies");
    let three = [start.clone(), start.clone(), moved.clone()];
    let mut round = bench.round(1, &start, three, "out");
    let root = (size as f64).sqrt();
    let check = |round: &Round, expected: [Option<f64>; 3]| {
        let found = apart::files(round).expect("reads");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.is_some(), expected.is_some());
            let off = found.unwrap_or(0.0) - root * expected.unwrap_or(0.0);
            assert!(
                off.abs() < 1e-4 * root,
                "{found:?}, not {expected:?}·{root}"
            );
        }
    };
    check(&round, [Some(0.6), Some(0.6), Some(0.4)]);
    // What is left weighs 0.1 and 0.6.
    round.members[1].started = Some(start);
    check(&round, [Some(6.0 / 7.0), None, Some(1.0 / 7.0)]);
}

/// The largest difference of two adapters' values.
fn far(one: &Path, other: &Path) -> f32 {
    let [one, other] = [one, other].map(artifacts::tensors::TensorFile::open);
    let (one, other) = (one.expect("opens"), other.expect("opens"));
    let of = |key: &str| {
        let values = one.read_f32(key).expect("reads").into_iter();
        let pairs = values.zip(other.read_f32(key).expect("reads"));
        pairs
            .map(|(one, other)| (one - other).abs())
            .fold(0.0, f32::max)
    };
    one.names().map(of).fold(0.0, f32::max)
}

#[test]
fn a_site_of_another_rank_and_a_walk_beyond_32_bits_are_refused() {
    let bench = Bench::new();
    let start = bench.start();
    let stretch = Stretch {
        round: 4,
        steps: steps(Seeds::Shared, 0),
        first_step: 9,
        emphasis: Default::default(),
    };
    let scalars = Scalars::new(vec![1.0; 6]);
    let file = bench.stored("scalars", &scalars.to_bytes());
    let mut merge = bench.round(4, &start, [file.clone(), file.clone(), file], "out");
    stretch.fold(&merge, 0.0).expect("folds");
    merge.members[1].ranks = RankTable::uniform(&[Projection::Q], 2, 4);
    let refused = |error: crate::Error| match error {
        crate::Error::Merge { round: 4, source } => source.to_string(),
        other => panic!("{other}"),
    };
    let uneven = refused(stretch.fold(&merge, 0.0).expect_err("uneven"));
    assert!(uneven.contains("different ranks"), "{uneven}");
    let far = Scalars::new(vec![f32::MAX; 6]);
    let mut large = stretch;
    large.steps.rate = 1e3;
    let beyond = large.replay(&start, &far, &bench.path("far"));
    let beyond = refused(beyond.expect_err("beyond"));
    assert!(beyond.contains("not finite"), "{beyond}");
}

fn check(values: [f32; 5], trim: f64, expected: f32) {
    let members = values.map(|value| {
        let share = Share {
            weight: 0.2,
            stretch: 1.0,
            added: false,
        };
        (share, Scalars::new(vec![value]))
    });
    let found = mean(&members, trim);
    assert!(
        (found.values()[0] - expected).abs() < 1e-6,
        "{values:?} trimmed by {trim}: {found:?}"
    );
}

#[test]
fn a_mean_counts_a_skipped_step_as_none_and_leaves_extremes_out_if_asked() {
    let skipped = Scalars::SKIPPED;
    check([1.0, 2.0, 3.0, 4.0, 5.0], 0.0, 3.0);
    check([1.0, 2.0, 3.0, 4.0, 500.0], 0.2, 3.0);
    check([-1e9, 2.0, 3.0, 4.0, 500.0], 0.25, 3.0);
    check([-1e9, 2.0, 3.0, 40.0, 500.0], 0.4, 3.0);
    check([1.0, 2.0, 3.0, 4.0, skipped], 0.0, 2.0);
    check([skipped; 5], 0.0, 0.0);
    let weigh = |weight| Share {
        weight,
        stretch: 1.0,
        added: false,
    };
    let two = [
        (weigh(0.25), Scalars::new(vec![4.0, -8.0])),
        (weigh(0.75), Scalars::new(vec![0.0, 8.0])),
    ];
    assert_eq!(mean(&two, 0.0).values(), [1.0, 4.0]);
}

//! Importance against the whole gradients, and what it takes and refuses.

mod sensitivity;
mod sketch;

use std::num::NonZeroUsize;
use std::path::Path;

use domain::adapter::WeightShape;
use faer::Mat;

use super::gradient::weigh;
use super::groups::Group;
use super::*;
use crate::adapter::{Adapter, Factors};
use crate::compute::Workspace;
use crate::control::Control;
use crate::kernel::{Compute, Kernel};
use crate::memory::{self, Demand, Optimizer};
use crate::model::{Base, LoadOptions};
use crate::train::{Options, Trainer};

fn tiny(threads: usize) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/tiny");
    let options = LoadOptions {
        base: Base::F32,
        threads: NonZeroUsize::new(threads).unwrap(),
        ..LoadOptions::default()
    };
    Model::load(&path, &options).unwrap()
}

/// Batches of different lengths, a third of their tokens labelled.
fn batches() -> Vec<Batch> {
    let row = |seed: u32, len: usize| Row {
        tokens: (0..len as u32).map(|i| (i * 7 + seed) % 63).collect(),
        labelled: (0..len).map(|i| i % 3 == 1).collect(),
        class: None,
        record: seed as usize,
    };
    let batch = |rows: &[(u32, usize)]| Batch {
        rows: rows.iter().map(|(seed, len)| row(*seed, *len)).collect(),
    };
    vec![
        batch(&[(1, 40), (5, 2), (11, 29)]),
        batch(&[(3, 61), (1, 40)]),
    ]
}

fn settings(rank_max: u16) -> Settings<'static> {
    Settings {
        targets: &Projection::ALL,
        rank_max,
        seed: 7,
        sketch_bytes: u64::MAX,
    }
}

fn run(model: &Model, settings: &Settings<'_>) -> Importance {
    measure(model, settings, &batches(), &Control::new()).unwrap()
}

/// An adapter of every weight that changes nothing yet, whose A are the identity.
fn identities(model: &Model) -> Adapter {
    let whole = model.weights().into_iter().map(|shape| {
        let identity = |i: usize| f32::from(u8::from(i / shape.inp == i % shape.inp));
        let a = (0..shape.inp * shape.inp).map(identity).collect();
        let b = vec![0.0; shape.out * shape.inp];
        Factors::new(shape, shape.inp as u16, a, b).unwrap()
    });
    Adapter::new(1.0, whole).unwrap()
}

/// The whole gradient of each weight: an adapter whose A is the identity has it as that of its B.
fn dense(model: &Model) -> Vec<(WeightShape, Mat<f64>)> {
    let adapter = identities(model);
    let mut trainer = Trainer::new(model, &adapter, Options::default()).unwrap();
    let mut mean: Vec<(WeightShape, Mat<f64>)> = Vec::new();
    let count = batches().len() as f64;
    for batch in batches() {
        let gradient = trainer.gradient_of(&batch).unwrap();
        for (at, own) in gradient.factors().enumerate() {
            let WeightShape { out, inp, .. } = own.shape();
            let part = Mat::from_fn(out, inp, |i, j| f64::from(own.b()[i * inp + j]) / count);
            match mean.get_mut(at) {
                Some((_, mean)) => *mean += part,
                None => mean.push((own.shape(), part)),
            }
        }
    }
    mean
}

/// With as many directions as a weight has the sketch is exact; with fewer it is near. The gradients
/// of so small a model, over 60 labels, fall slowly.
#[test]
fn importance_is_the_energy_of_the_whole_mean_gradient() {
    let model = tiny(2);
    let dense = dense(&model);
    for (rank, tolerance) in [(64, 1e-4), (8, 0.1), (2, 0.2)] {
        let got = run(&model, &settings(rank));
        assert_eq!(got.weights.len(), dense.len());
        for (weight, (shape, gradient)) in got.weights.iter().zip(&dense) {
            assert_eq!(weight.name, shape.name);
            let sigma = gradient.singular_values().unwrap();
            let sigma = &sigma[..sigma.len().min(usize::from(rank))];
            assert_eq!(weight.energies.len(), sigma.len());
            let want: f64 = sigma.iter().map(|sigma| sigma * sigma).sum();
            let error = (weight.worth(rank) / want - 1.0).abs();
            assert!(
                error < tolerance,
                "{} rank {rank}: off by {error}",
                weight.name
            );
            assert!(weight.energies.is_sorted_by(|a, b| a >= b), "concave");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_numbers_for_any_threads_and_groups_of_blocks() {
    let model = tiny(2);
    let want = run(&model, &settings(4));
    assert_eq!(run(&model, &settings(4)), want, "again");
    assert_eq!(run(&tiny(1), &settings(4)), want, "one thread");
    let block = block_bytes(model.config(), &Projection::ALL, 4);
    let narrow = Settings {
        sketch_bytes: block,
        ..settings(4)
    };
    assert_eq!(run(&model, &narrow), want, "a block at a time");
    let other = Settings {
        seed: 8,
        ..settings(4)
    };
    assert_ne!(run(&model, &other), want, "another sketch");
}

#[test]
fn each_weight_is_measured_for_itself() {
    let model = tiny(2);
    let want = run(&model, &settings(4));
    let targets = [Projection::Down, Projection::V];
    let some = Settings {
        targets: &targets,
        ..settings(4)
    };
    let of = |weight: &&WeightImportance| targets.contains(&weight.name.projection());
    let want: Vec<_> = want.weights.iter().filter(of).cloned().collect();
    assert_eq!(run(&model, &some).weights, want);
}

/// Records 1, 3, 5 and 11; that of one is in both batches.
#[test]
fn records_are_counted_once_and_only_where_they_teach_something() {
    let model = tiny(1);
    assert_eq!(run(&model, &settings(2)).records, 4);
    let mut silent = batches();
    silent[0].rows[2].labelled.fill(false);
    silent[0].rows[2].labelled[0] = true;
    let got = measure(&model, &settings(2), &silent, &Control::new()).unwrap();
    assert_eq!(got.records, 3);
}

#[test]
fn it_ends_where_no_more_is_wanted_and_is_then_that_of_the_batches_before() {
    let (model, control) = (tiny(1), Control::new());
    let block = block_bytes(model.config(), &Projection::ALL, 4);
    let passes = |settings: &Settings<'_>, wanted: usize| {
        let mut asked = Vec::new();
        let mut more = |taken: Taken| {
            asked.push((taken.batches, taken.passes));
            taken.batches < wanted
        };
        let found = measure_while(&model, settings, &batches(), &mut more, &control);
        (found.unwrap(), asked)
    };
    let narrow = Settings {
        sketch_bytes: block,
        ..settings(4)
    };
    for (how, times) in [(settings(4), 1), (narrow, 2)] {
        let first = measure(&model, &how, &batches()[..1], &control).unwrap();
        // Whatever is wanted, one batch is measured.
        for wanted in [0, 1] {
            assert_eq!(passes(&how, wanted), (first.clone(), vec![(1, times)]));
        }
        let all = run(&model, &how);
        assert_ne!(all, first);
        assert_eq!(passes(&how, 2), (all, vec![(1, times)]));
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let (model, control) = (tiny(1), Control::new());
    let nothing = |settings: Settings<'_>, batches: &[Batch]| {
        let error = measure(&model, &settings, batches, &control).unwrap_err();
        assert!(matches!(error, Error::NothingToMeasure), "{error}");
    };
    nothing(settings(4), &[]);
    nothing(settings(0), &batches());
    nothing(
        Settings {
            targets: &[],
            ..settings(4)
        },
        &batches(),
    );

    let mut silent = batches();
    silent[1]
        .rows
        .iter_mut()
        .for_each(|row| row.labelled.fill(false));
    let error = measure(&model, &settings(4), &silent, &control).unwrap_err();
    assert!(
        matches!(error, Error::NothingLabelled { batch: 1 }),
        "{error}"
    );

    let needed = block_bytes(model.config(), &Projection::ALL, 4);
    let small = Settings {
        sketch_bytes: needed - 1,
        ..settings(4)
    };
    let error = measure(&model, &small, &batches(), &control).unwrap_err();
    assert!(
        matches!(error, Error::TooLarge { needed: found, allowed } if found == needed && allowed == needed - 1),
        "{error}"
    );

    control.cancel();
    let error = measure(&model, &settings(4), &batches(), &control).unwrap_err();
    assert!(
        matches!(error, Error::Compute(compute::Error::Cancelled(_))),
        "{error}"
    );
}

/// On the shapes of SmolLM2-135M, rank 32: 91 MiB for all blocks where the gradients take 405, and a block
/// at a time 3.0 MiB.
#[test]
fn sketches_take_a_fraction_of_the_gradients() {
    let config = crate::model::Config {
        layers: 30,
        hidden: 576,
        intermediate: 1536,
        heads: 9,
        kv_heads: 3,
        head_size: 64,
        ..tiny(1).config().clone()
    };
    let gradients: usize = config
        .weights()
        .iter()
        .map(|shape| 4 * shape.out * shape.inp)
        .sum();
    let all = 30 * block_bytes(&config, &Projection::ALL, 32);
    assert!(4 * all < gradients as u64, "{all} of {gradients}");
    for shape in config.weights() {
        let own = block_bytes(&config, &[shape.name.projection()], 32);
        assert!(
            2 * own <= 4 * (shape.out * shape.inp) as u64,
            "{}: {own}",
            shape.name
        );
    }
}

/// What is held is what was said: the sketches to the byte, the workspace as other predictions.
#[test]
fn memory_is_as_predicted() {
    let (model, settings) = (tiny(2), settings(2));
    let row = |record| Row {
        tokens: (0..100).map(|i| i % 63).collect(),
        labelled: vec![true; 100],
        class: None,
        record,
    };
    let batches = [Batch {
        rows: (0..3).map(row).collect(),
    }];
    let packed = [Packed::new(&batches[0], model.config()).unwrap()];
    let (mut workspace, control) = (Workspace::default(), Control::new());
    for _ in 0..2 {
        weigh(
            &model,
            &settings,
            (&batches, &packed),
            &mut |_| true,
            &control,
            &mut workspace,
        )
        .unwrap();
    }
    let ranks = domain::adapter::RankTable::default();
    let demand = Demand {
        base: Base::F32,
        kernel: Kernel::best(Compute::F32),
        ranks: &ranks,
        optimizer: Optimizer::None,
        checkpoint: false,
        batch: 3,
        sequence: 100,
        labelled: 100,
        threads: 2,
    };
    let config = model.config();
    let with = estimate(config, 0, &demand, &settings);
    let block = block_bytes(config, settings.targets, 2);
    assert_eq!(with.adapter, 2 * block);
    assert_eq!(Group::new(&model, &settings, 0..2).bytes(), 2 * block);
    let narrow = Settings {
        sketch_bytes: block,
        ..settings
    };
    assert_eq!(estimate(config, 0, &demand, &narrow).adapter, block);

    let without = memory::estimate(config, 0, &demand);
    let (got, held) = (with.activations as f64, workspace.capacity() as f64);
    assert!(got > without.activations as f64);
    // The random matrices and their products come on top, from the same workspace.
    let most = got + (with.workspace - without.workspace) as f64;
    assert!(
        0.85 * got < held && held < 1.15 * most,
        "{got} to {most}, held {held}"
    );
}

/// Through an A that is the identity training sees the whole gradient, and its energy is what the importance adds up to.
#[test]
fn a_step_of_training_sees_the_energy_of_each_weight() {
    let model = tiny(1);
    let adapter = identities(&model);
    let mut trainer = Trainer::new(&model, &adapter, Options::default()).unwrap();
    assert!(trainer.energies().is_empty(), "before the first step");
    let batch = batches().remove(0);
    let gradient = trainer.gradient_of(&batch).unwrap();
    // So small a rate leaves A where it is.
    trainer.step(&batch, 1e-12, &Control::new()).unwrap();
    let seen: Vec<_> = trainer.energies().known().collect();
    assert_eq!(seen.len(), model.weights().len());
    for (name, energy) in seen {
        let whole = gradient.get(name).unwrap().b().iter();
        let whole: f64 = whole.map(|g| f64::from(*g) * f64::from(*g)).sum();
        let off = (f64::from(energy) / whole - 1.0).abs();
        assert!(off < 1e-4, "{name}: {energy}, want {whole}");
    }
}

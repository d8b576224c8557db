//! The trainer against differences, and its options against what one may compute by hand.

use std::num::NonZeroUsize;
use std::path::Path;

use domain::adapter::Projection;

use super::super::Rule;
use super::*;
use crate::adapter::Factors;
use crate::data::Row;
use crate::model::{Base, LoadOptions};

fn tiny() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/tiny");
    let threads = NonZeroUsize::new(2).unwrap();
    Model::load(
        &path,
        &LoadOptions {
            base: Base::F32,
            threads,
            ..LoadOptions::default()
        },
    )
    .unwrap()
}

fn batch() -> Batch {
    let row = |seed: u32, len: usize| Row {
        tokens: (0..len as u32).map(|i| (i * 7 + seed) % 63).collect(),
        labelled: (0..len).map(|i| i % 3 == 1).collect(),
        class: None,
        record: 0,
    };
    Batch {
        rows: vec![row(1, 9), row(5, 2), row(11, 13)],
    }
}

/// What both options leave is what one may compute by hand from the plain gradient.
#[test]
fn b_alone_moves_no_a_and_a_proximal_term_pulls_back_to_the_start() {
    let model = tiny();
    let start = adapter(&model, 0);
    let control = Control::new();
    let trained = |options: Options| {
        let mut trainer = Trainer::new(&model, &start, options).unwrap();
        for _ in 0..2 {
            trainer.step(&batch(), 0.02, &control).unwrap();
        }
        trainer.adapter().unwrap()
    };
    let decayed = Options {
        weight_decay: 0.1,
        ..Options::default()
    };
    let both = trained(decayed);
    let b_alone = trained(Options {
        b_alone: true,
        ..decayed
    });
    for own in start.factors() {
        let name = own.shape().name;
        let (both, alone) = (both.get(name).unwrap(), b_alone.get(name).unwrap());
        assert_eq!(alone.a(), own.a());
        assert_ne!(both.a(), own.a());
        assert_ne!(alone.b(), own.b());
    }

    let pulled = Options {
        proximal: 3.0,
        ..Options::default()
    };
    let mut trainer = Trainer::new(&model, &start, pulled).unwrap();
    let first = trainer.gradient_of(&batch()).unwrap();
    let plain = Trainer::new(&model, &start, Options::default());
    assert_eq!(plain.unwrap().gradient_of(&batch()).unwrap(), first);
    trainer.step(&batch(), 0.02, &control).unwrap();
    let moved = trainer.adapter().unwrap();
    let with = trainer.gradient_of(&batch()).unwrap();
    let plain = Trainer::new(&model, &moved, Options::default());
    let without = plain.unwrap().gradient_of(&batch()).unwrap();
    let mut pulls = 0;
    for own in start.factors() {
        let name = own.shape().name;
        let of = |adapter: &Adapter| adapter.get(name).unwrap().b().to_vec();
        let values = of(&with).into_iter().zip(of(&without));
        let places = of(&moved).into_iter().zip(own.b().to_vec());
        for ((with, without), (moved, start)) in values.zip(places) {
            let pull = 3.0 * (moved - start);
            assert!((with - without - pull).abs() < 1e-5, "{name}");
            pulls += usize::from(pull.abs() > 1e-3);
        }
    }
    assert!(pulls > 0, "nothing moved, so nothing was pulled back");
}

/// A side term is what an adapter of both would be, without being trained.
#[test]
fn a_side_term_counts_in_loss_and_gradient_and_is_not_trained() {
    let mut model = tiny();
    let own = adapter(&model, 1);
    let of_all = model.weights().into_iter().map(|shape| {
        let wave = |len: usize| (0..len).map(|i| 0.2 * (7.0 + i as f32).cos()).collect();
        Factors::new(shape, 3, wave(3 * shape.inp), wave(3 * shape.out)).unwrap()
    });
    let side = Adapter::new(0.4, of_all).unwrap();
    let joined = model.weights().into_iter().map(|shape| {
        let parts: Vec<&Factors> = [own.get(shape.name), side.get(shape.name)]
            .into_iter()
            .flatten()
            .collect();
        let rank: u16 = parts.iter().map(|part| part.rank()).sum();
        let a = parts.iter().flat_map(|part| part.a().to_vec()).collect();
        let b = (0..shape.out).flat_map(|row| {
            parts.iter().flat_map(move |part| {
                let rank = usize::from(part.rank());
                part.b()[row * rank..][..rank].to_vec()
            })
        });
        Factors::new(shape, rank, a, b.collect()).unwrap()
    });
    let joined = Adapter::new(0.4, joined.collect::<Vec<_>>()).unwrap();
    let control = Control::new();
    let mut trainer = Trainer::new(&model, &joined, Options::default()).unwrap();
    let want = trainer.gradient(&batch(), &control).unwrap().loss;
    let want_gradient = trainer.gradient_of(&batch()).unwrap();
    let plain = Trainer::new(&model, &own, Options::default());
    let without = plain.unwrap().gradient(&batch(), &control).unwrap().loss;

    model.set_side(Some(&side)).unwrap();
    let mut trainer = Trainer::new(&model, &own, Options::default()).unwrap();
    let got = trainer.gradient(&batch(), &control).unwrap().loss;
    assert!((got - want).abs() < 1e-5, "{got} {want}");
    assert!(
        (without - want).abs() > 1e-3,
        "the side term changes nothing"
    );
    let got_gradient = trainer.gradient_of(&batch()).unwrap();
    for part in got_gradient.factors() {
        let want = want_gradient.get(part.shape().name).unwrap();
        for (got, want) in part.a().iter().zip(want.a()) {
            assert!((got - want).abs() < 1e-4, "{got} {want}");
        }
    }
    drop(trainer);
    model.set_side(None).unwrap();
    let plain = Trainer::new(&model, &own, Options::default());
    let gone = plain.unwrap().gradient(&batch(), &control).unwrap().loss;
    assert_eq!(gone, without);
}

/// Ranks that differ, a frozen weight in each stack, and nothing on the lowest block if asked.
fn adapter(model: &Model, lowest: u16) -> Adapter {
    let wave = |len: usize, at: f32| (0..len).map(|i| 0.3 * (at + i as f32).sin()).collect();
    let adapted = model.weights().into_iter().filter(|shape| {
        let frozen = [Projection::K, Projection::Up];
        shape.name.layer() >= lowest && !frozen.contains(&shape.name.projection())
    });
    let factors = adapted
        .zip([1u16, 3, 2].into_iter().cycle())
        .map(|(shape, rank)| {
            let width = usize::from(rank);
            let (a, b) = (wave(width * shape.inp, 0.0), wave(width * shape.out, 1.0));
            Factors::new(shape, rank, a, b).unwrap()
        });
    Adapter::new(0.4, factors).unwrap()
}

/// Central differences in f32 are good to about 1 %; a wrong term would be off by far more.
#[test]
fn the_gradient_of_the_whole_model_is_the_derivative_of_its_loss() {
    let model = tiny();
    for (lowest, checkpoint) in [(0, false), (1, true)] {
        let adapter = adapter(&model, lowest);
        let options = Options {
            checkpoint,
            ..Options::default()
        };
        let mut trainer = Trainer::new(&model, &adapter, options).unwrap();
        let control = Control::new();
        trainer.gradient(&batch(), &control).unwrap();
        let gradient: Vec<Vec<f32>> = trainer.gradient.slices().map(<[f32]>::to_vec).collect();
        let scale =
            norm(&trainer.gradient) / (gradient.iter().map(Vec::len).sum::<usize>() as f64).sqrt();
        for (index, values) in gradient
            .iter()
            .enumerate()
            .filter(|(_, values)| !values.is_empty())
        {
            for at in [0, values.len() / 2, values.len() - 1] {
                let mut loss = |by: f32| {
                    let place = |trainer: &mut Trainer<'_>, value: Option<f32>| {
                        let slice = trainer.changes.slices_mut().nth(index).unwrap();
                        let before = slice[at];
                        slice[at] = value.unwrap_or(before + by);
                        before
                    };
                    let before = place(&mut trainer, None);
                    let loss = trainer.gradient(&batch(), &control).unwrap().loss;
                    place(&mut trainer, Some(before));
                    loss
                };
                let step = 1e-2;
                let want = (loss(step) - loss(-step)) / f64::from(2.0 * step);
                let got = f64::from(values[at]);
                assert!(
                    (got - want).abs() < 0.02 * scale.max(want.abs()),
                    "slice {index} at {at}: {got}, {want}"
                );
            }
        }
    }
}

/// The mask of a step stays the same until the step is made, so differences of the loss see the same one.
#[test]
fn the_gradient_with_dropout_is_the_derivative_of_the_loss_that_it_leaves() {
    let model = tiny();
    let adapter = adapter(&model, 0);
    let control = Control::new();
    for checkpoint in [false, true] {
        let options = Options {
            dropout: 0.3,
            dropout_seed: 5,
            checkpoint,
            ..Options::default()
        };
        let mut trainer = Trainer::new(&model, &adapter, options).unwrap();
        let dropped = trainer.gradient(&batch(), &control).unwrap().loss;
        let plain = Trainer::new(&model, &adapter, Options::default());
        let whole = plain.unwrap().gradient(&batch(), &control).unwrap().loss;
        assert!((dropped - whole).abs() > 1e-3, "nothing was left out");
        let gradient: Vec<Vec<f32>> = trainer.gradient.slices().map(<[f32]>::to_vec).collect();
        let count = gradient.iter().map(Vec::len).sum::<usize>() as f64;
        let scale = norm(&trainer.gradient) / count.sqrt();
        let slices = gradient.iter().enumerate();
        for (index, values) in slices.filter(|(_, values)| !values.is_empty()) {
            let at = values.len() / 2;
            let mut loss = |by: f32| {
                let slice = trainer.changes.slices_mut().nth(index).unwrap();
                let before = slice[at];
                slice[at] = before + by;
                let loss = trainer.gradient(&batch(), &control).unwrap().loss;
                trainer.changes.slices_mut().nth(index).unwrap()[at] = before;
                loss
            };
            let want = (loss(1e-2) - loss(-1e-2)) / 2e-2;
            let got = f64::from(values[at]);
            assert!(
                (got - want).abs() < 0.03 * scale.max(want.abs()),
                "slice {index}: {got}, {want}"
            );
        }
    }
}

/// Each step has another mask, each seed too, and evaluation none.
#[test]
fn dropout_is_drawn_anew_for_each_step_and_seed() {
    let model = tiny();
    let adapter = adapter(&model, 0);
    let losses = |dropout_seed| {
        let options = Options {
            dropout: 0.3,
            dropout_seed,
            ..Options::default()
        };
        let mut trainer = Trainer::new(&model, &adapter, options).unwrap();
        let mut step = || trainer.step(&batch(), 0.0, &Control::new()).unwrap().loss;
        [step(), step()]
    };
    let [first, second] = losses(1);
    assert_ne!(first, second);
    assert_ne!(losses(2), [first, second]);
    assert_eq!(losses(1), [first, second]);
}

/// What PyTorch's SGD computes: decay belongs to the gradient, the first velocity is the gradient itself.
#[test]
fn sgd_with_momentum_and_decay_is_what_one_computes_by_hand() {
    let model = tiny();
    let start = adapter(&model, 0);
    let (momentum, decay, rate) = (0.9f32, 0.1, 0.05);
    let options = Options {
        rule: Rule::Sgd { momentum },
        weight_decay: decay,
        ..Options::default()
    };
    let mut trainer = Trainer::new(&model, &start, options).unwrap();
    let control = Control::new();
    let values = |adapter: &Adapter| -> Vec<f32> {
        let both = adapter
            .factors()
            .flat_map(|f| [f.a().to_vec(), f.b().to_vec()]);
        both.flatten().collect()
    };
    let mut velocity = vec![0.0; values(&start).len()];
    let mut want = values(&start);
    for _ in 0..2 {
        let gradient = values(&trainer.gradient_of(&batch()).unwrap());
        trainer.step(&batch(), rate, &control).unwrap();
        for ((want, v), g) in want.iter_mut().zip(&mut velocity).zip(gradient) {
            *v = momentum * *v + g + decay * *want;
            *want -= rate * *v;
        }
        for (got, want) in values(&trainer.adapter().unwrap()).iter().zip(&want) {
            assert!(
                (got - want).abs() <= 1e-6 * (1.0 + want.abs()),
                "{got} {want}"
            );
        }
    }
    let plain = Options {
        rule: Rule::Sgd { momentum: 0.0 },
        ..Options::default()
    };
    let mut trainer = Trainer::new(&model, &start, plain).unwrap();
    let gradient = values(&trainer.gradient_of(&batch()).unwrap());
    trainer.step(&batch(), rate, &control).unwrap();
    let moved = values(&trainer.adapter().unwrap());
    for ((now, before), g) in moved.iter().zip(values(&start)).zip(gradient) {
        assert!((now - (before - rate * g)).abs() <= 1e-6 * (1.0 + before.abs()));
    }
}

/// Batches of other sizes, one of them without a label: the labelled tokens count alike, not the batches.
#[test]
fn accumulated_batches_are_one_batch_of_all_their_rows() {
    let model = tiny();
    let start = adapter(&model, 0);
    let whole = batch();
    let mut unlabelled = whole.rows[0].clone();
    unlabelled.labelled.fill(false);
    let of = |rows: &[Row]| Batch {
        rows: rows.to_vec(),
    };
    let parts = [
        of(&whole.rows[..1]),
        of(&[unlabelled]),
        of(&whole.rows[1..]),
    ];
    let control = Control::new();
    let mut together = Trainer::new(&model, &start, Options::default()).unwrap();
    let mut apart = Trainer::new(&model, &start, Options::default()).unwrap();
    for _ in 0..3 {
        let want = together.step(&whole, 0.01, &control).unwrap();
        let got = apart.step_over(&parts, 0.01, &control).unwrap();
        assert!((got.loss - want.loss).abs() < 1e-5 * want.loss);
        assert!((got.gradient_norm - want.gradient_norm).abs() < 1e-4 * want.gradient_norm);
        assert_eq!(got.labelled_tokens, want.labelled_tokens);
    }
    let (want, got) = (together.adapter().unwrap(), apart.adapter().unwrap());
    for (want, got) in want.factors().zip(got.factors()) {
        for (want, got) in want.b().iter().zip(got.b()) {
            assert!((want - got).abs() < 1e-3, "{want} {got}");
        }
    }
    let nothing = apart.step_over(&parts[1..2], 0.01, &control);
    assert!(matches!(nothing, Err(Error::NothingLabelled)));
}

/// Through the file, into a trainer that began with another adapter.
#[test]
fn a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_bytes() {
    let model = tiny();
    let control = Control::new();
    let folder = tempfile::tempdir().unwrap();
    for rule in [
        Rule::AdamW,
        Rule::Sgd { momentum: 0.9 },
        Rule::Sgd { momentum: 0.0 },
    ] {
        let options = Options {
            rule,
            weight_decay: 0.01,
            dropout: 0.1,
            ..Options::default()
        };
        let mut trainer = Trainer::new(&model, &adapter(&model, 0), options).unwrap();
        let path = folder.path().join("checkpoint");
        for step in 0..6 {
            if step == 3 {
                let stands = trainer.checkpoint(serde_json::json!({})).unwrap();
                stands.write(&path).unwrap();
            }
            trainer.step(&batch(), 0.01, &control).unwrap();
        }
        let want = trainer.adapter().unwrap();
        let stands = Checkpoint::read(&path, &model.weights()).unwrap();
        let mut again = Trainer::new(&model, &adapter(&model, 0), options).unwrap();
        again.step(&batch(), 0.3, &control).unwrap();
        again.resume(&stands).unwrap();
        assert_eq!(again.steps(), 3);
        (0..3).for_each(|_| {
            again.step(&batch(), 0.01, &control).unwrap();
        });
        assert_eq!(again.adapter().unwrap(), want);
        let other = Options {
            rule: if rule == Rule::AdamW {
                Rule::Sgd { momentum: 0.0 }
            } else {
                Rule::AdamW
            },
            ..options
        };
        let mut other = Trainer::new(&model, &adapter(&model, 0), other).unwrap();
        assert!(matches!(other.resume(&stands), Err(Error::OtherOptimizer)));
    }
}

//! Our ops against the plain composition, whole: it is a second implementation of the same model.

use std::num::NonZeroUsize;
use std::path::Path;

use super::*;
use crate::adapter::Adapter;
use crate::control::Control;
use crate::data::{Batch, Row};
use crate::model::{Base, LoadOptions, Model};
use crate::train::{self, Options};

fn reference(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(name)
}

fn load(name: &str) -> Model {
    let options = LoadOptions {
        base: Base::F32,
        threads: NonZeroUsize::new(2).unwrap(),
        ..LoadOptions::default()
    };
    Model::load(&reference(name), &options).unwrap()
}

/// Rows of different lengths; one has nothing to learn, one a single token.
fn batch() -> Batch {
    let row = |(record, len): (usize, u32)| Row {
        tokens: (0..len).map(|i| (i * 7 + record as u32) % 63).collect(),
        labelled: (0..len).map(|i| record != 1 && i % 3 > 0).collect(),
        class: None,
        record,
    };
    Batch {
        rows: [9, 5, 1, 14].into_iter().enumerate().map(row).collect(),
    }
}

fn close(got: &[f32], want: &[f32], what: &str) {
    let largest = want.iter().fold(1e-6f32, |most, v| most.max(v.abs()));
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (got - want).abs() / largest;
        assert!(error < 2e-4, "{what} {i}: {got}, plain {want}");
    }
}

#[test]
fn loss_and_gradient_of_our_ops_equal_the_plain_composition() {
    for (model, adapter) in [
        ("tiny", "tiny-adapter"),
        ("tiny", "tiny-uneven"),
        ("tiny.gguf", "tiny-uneven"),
    ] {
        let model = load(model);
        let adapter = Adapter::load(&reference(adapter), &model.weights()).unwrap();
        let options = Options::default();
        let mut ours = train::Trainer::new(&model, &adapter, options).unwrap();
        let plain = Trainer::new(&model, &adapter, options, Place::Cpu).unwrap();
        let (step, gradients) = plain.gradient(&batch(), &Control::new()).unwrap();
        let got = ours.gradient_of(&batch()).unwrap();
        let loss = ours.step(&batch(), 0.0, &Control::new()).unwrap();
        assert!(
            (loss.loss - step.loss).abs() < 1e-5 * step.loss,
            "{loss:?}, plain {step:?}"
        );
        assert_eq!(
            (loss.tokens, loss.labelled_tokens),
            (step.tokens, step.labelled_tokens)
        );
        for own in got.factors() {
            let name = own.shape().name;
            let (a, b) = &plain.factors.vars[&name];
            let plain = |var: &candle_core::Var| {
                let gradient = gradients.get(var).expect("a gradient");
                gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            close(own.a(), &plain(a), &format!("{name} A"));
            close(own.b(), &plain(b), &format!("{name} B"));
        }
    }
}

#[test]
fn ten_steps_take_both_the_same_way() {
    let model = load("tiny");
    let adapter = Adapter::load(&reference("tiny-uneven"), &model.weights()).unwrap();
    let options = Options {
        weight_decay: 0.1,
        clip_norm: 0.5,
        ..Options::default()
    };
    let mut ours = train::Trainer::new(&model, &adapter, options).unwrap();
    let mut plain = Trainer::new(&model, &adapter, options, Place::Cpu).unwrap();
    for step in 0..10 {
        let want = plain.step(&batch(), 5e-3, &Control::new()).unwrap().loss;
        let got = ours.step(&batch(), 5e-3, &Control::new()).unwrap().loss;
        assert!(
            (got - want).abs() < 1e-4 * want,
            "step {step}: {got}, plain {want}"
        );
    }
    let (got, want) = (ours.adapter().unwrap(), plain.adapter().unwrap());
    for (got, want) in got.factors().zip(want.factors()) {
        assert_eq!(got.shape(), want.shape());
        close(got.b(), want.b(), "trained B");
    }
    assert_ne!(want, adapter);
}

#[test]
fn what_cannot_be_trained_is_refused_as_by_our_ops() {
    let model = load("tiny");
    let empty = Adapter::new(1.0, []).unwrap();
    let refused = Trainer::new(&model, &empty, Options::default(), Place::Cpu);
    assert!(matches!(
        refused,
        Err(Error::Train(train::Error::NothingToTrain))
    ));
    let adapter = Adapter::load(&reference("tiny-adapter"), &model.weights()).unwrap();
    let mut trainer = Trainer::new(&model, &adapter, Options::default(), Place::Cpu).unwrap();
    let mut nothing = batch();
    nothing
        .rows
        .iter_mut()
        .for_each(|row| row.labelled.fill(false));
    let refused = trainer.step(&nothing, 1.0, &Control::new());
    assert!(matches!(
        refused,
        Err(Error::Train(train::Error::NothingLabelled))
    ));
    let stopped = Control::new();
    stopped.cancel();
    trainer.step(&batch(), 1.0, &stopped).unwrap_err();
    assert_eq!(trainer.adapter().unwrap(), adapter);
}

/// A build without the feature says so; it does not compute somewhere else.
#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_is_not_there_is_an_error() {
    let model = load("tiny");
    let adapter = Adapter::load(&reference("tiny-adapter"), &model.weights()).unwrap();
    let refused = Trainer::new(&model, &adapter, Options::default(), Place::Cuda);
    assert!(matches!(refused, Err(Error::Open(_))));
}

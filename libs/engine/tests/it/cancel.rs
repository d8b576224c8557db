//! Cancelling, and steps that fail, leave everything as it was.

use domain::adapter::{Projection, RankTable};
use engine::adapter::{Adapter, Factors};
use engine::compute;
use engine::control::Control;
use engine::data::{Batch, Row};
use engine::evaluate::Evaluator;
use engine::model::Model;
use engine::train::{Error, Options, Trainer};

use crate::support::{Tiny, batch, control, read, tiny};

fn fresh(model: &Model) -> Adapter {
    let ranks = RankTable::uniform(&Projection::ALL, 2, 2);
    Adapter::initialize(&model.weights(), &ranks, 2.0, 7).unwrap()
}

#[test]
fn a_cancelled_step_ends_and_changes_nothing() {
    let (values, model): (Tiny, _) = (read("tiny.json"), tiny());
    let adapter = fresh(&model);
    let mut trainer = Trainer::new(&model, &adapter, Options::default()).unwrap();
    let cancelled = Control::new();
    cancelled.clone().cancel();
    let step = trainer.step(&batch(&values.batches[0]), 1e-2, &cancelled);
    assert!(matches!(
        step,
        Err(Error::Compute(compute::Error::Cancelled(_)))
    ));
    assert_eq!((cancelled.progress(), trainer.steps()), (0, 0));
    assert_eq!(trainer.adapter().unwrap(), adapter);
}

#[test]
fn progress_counts_each_block_forward_and_backward() {
    let (values, model): (Tiny, _) = (read("tiny.json"), tiny());
    let mut trainer = Trainer::new(&model, &fresh(&model), Options::default()).unwrap();
    let watched = Control::new();
    trainer
        .step(&batch(&values.batches[0]), 1e-2, &watched)
        .unwrap();
    assert_eq!(watched.progress(), 4);
}

#[test]
fn a_loss_that_is_not_a_number_names_the_step_and_the_records() {
    let (values, model): (Tiny, _) = (read("tiny.json"), tiny());
    let poisoned = fresh(&model);
    let poison = |factors: &Factors| {
        Factors::new(
            factors.shape(),
            factors.rank(),
            factors.a().to_vec(),
            vec![f32::NAN; factors.b().len()],
        )
        .unwrap()
    };
    let poisoned = Adapter::new(poisoned.scale(), poisoned.factors().map(poison)).unwrap();
    assert!(!poisoned.is_finite());
    let mut trainer = Trainer::new(&model, &poisoned, Options::default()).unwrap();
    let mut rows = batch(&values.batches[0]);
    rows.rows[0].record = 41;
    let error = trainer.step(&rows, 1e-2, &control()).unwrap_err();
    assert!(
        matches!(&error, Error::NotFinite { what: "loss", step: 0, records } if records == &[41, 1, 2, 3]),
        "{error}"
    );
}

#[test]
fn batches_that_do_not_fit_the_model_are_refused() {
    let model = tiny();
    let row = |tokens: Vec<u32>, labelled: Vec<bool>| Batch {
        rows: vec![Row {
            tokens,
            labelled,
            class: None,
            record: 0,
        }],
    };
    let mut evaluator = Evaluator::new(&model, None).unwrap();
    let mut loss = |batch: &Batch| evaluator.loss(batch, &control()).unwrap_err();
    assert!(matches!(
        loss(&row(vec![], vec![])),
        compute::Error::Row {
            row: 0,
            tokens: 0,
            ..
        }
    ));
    assert!(matches!(
        loss(&row(vec![1], vec![])),
        compute::Error::Row {
            tokens: 1,
            labels: 0,
            ..
        }
    ));
    assert!(matches!(
        loss(&row(vec![64], vec![false])),
        compute::Error::Token {
            token: 64,
            vocabulary: 64,
            ..
        }
    ));
    assert!(matches!(
        loss(&row(vec![1; 129], vec![false; 129])),
        compute::Error::TooLong {
            tokens: 129,
            context: 128,
            ..
        }
    ));
    let mut trainer = Trainer::new(&model, &fresh(&model), Options::default()).unwrap();
    let unlabelled = trainer.step(&row(vec![1, 2], vec![true, false]), 1e-2, &control());
    assert!(matches!(unlabelled, Err(Error::NothingLabelled)));
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let model = tiny();
    let mut shapes = model.weights();
    shapes.iter_mut().for_each(|shape| shape.inp += 1);
    let foreign =
        Adapter::initialize(&shapes, &RankTable::uniform(&[Projection::Q], 1, 2), 1.0, 7).unwrap();
    assert!(matches!(
        Evaluator::new(&model, Some(&foreign)),
        Err(compute::Error::Adapter { .. })
    ));
    let empty = Adapter::initialize(&shapes, &RankTable::default(), 1.0, 7).unwrap();
    assert!(matches!(
        Trainer::new(&model, &empty, Options::default()),
        Err(Error::NothingToTrain)
    ));
}

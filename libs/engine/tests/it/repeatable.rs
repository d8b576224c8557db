//! The same seed gives the same bytes, run after run and for any number of threads.

use domain::adapter::{Projection, RankTable};
use engine::adapter::Adapter;
use engine::model::{Base, Model};
use engine::train::{Options, Trainer};

use crate::support::{Tiny, batch, control, options, read, reference};

fn trained(threads: usize, base: Base, checkpoint: bool) -> Vec<u8> {
    let values: Tiny = read("tiny.json");
    let model = Model::load(&reference("tiny.gguf"), &options(base, threads)).unwrap();
    let ranks = RankTable::uniform(&Projection::ALL, 2, 3);
    let adapter = Adapter::initialize(&model.weights(), &ranks, 2.0, 7).unwrap();
    let settings = Options {
        checkpoint,
        ..Options::default()
    };
    let mut trainer = Trainer::new(&model, &adapter, settings).unwrap();
    for rows in &values.batches {
        trainer.step(&batch(rows), 1e-2, &control()).unwrap();
    }
    trainer.adapter().unwrap().to_safetensors().unwrap()
}

#[test]
fn training_gives_the_same_bytes_for_any_run_threads_precision_or_checkpointing() {
    let want = trained(2, Base::F32, false);
    assert_eq!(trained(2, Base::F32, false), want, "again");
    for threads in [1, 3, 4] {
        assert_eq!(
            trained(threads, Base::F32, false),
            want,
            "{threads} threads"
        );
    }
    assert_eq!(trained(2, Base::Source, false), want, "decoded when used");
    assert_eq!(trained(2, Base::F32, true), want, "with checkpointing");
}

/// No code exists that could change the base; this holds the promise to it anyway.
#[test]
fn training_one_projection_leaves_every_other_weight_alone() {
    let values: Tiny = read("tiny.json");
    let model = Model::load(&reference("tiny"), &options(Base::F32, 2)).unwrap();
    let ranks = RankTable::uniform(&[Projection::V], 2, 2);
    let adapter = Adapter::initialize(&model.weights(), &ranks, 2.0, 7).unwrap();
    let logits = || {
        engine::evaluate::Evaluator::new(&model, None)
            .unwrap()
            .logits(&values.prompt, &control())
            .unwrap()
    };
    let before = logits();
    let mut trainer = Trainer::new(&model, &adapter, Options::default()).unwrap();
    trainer
        .step(&batch(&values.batches[0]), 1e-2, &control())
        .unwrap();
    assert_eq!(logits(), before);
    let trained = trainer.adapter().unwrap();
    assert_ne!(trained, adapter);
    assert!(
        trained
            .factors()
            .all(|factors| factors.shape().name.projection() == Projection::V)
    );
}

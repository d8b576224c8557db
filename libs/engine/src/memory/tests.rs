//! Predictions against the buffers that real steps take. Against the resident memory of real runs on
//! SmolLM2 they are held by `benches/memory.py`.

use std::num::NonZeroUsize;
use std::path::Path;

use domain::job::spec::Training;
use domain::zeroth::Steps;

use super::*;
use crate::adapter::Adapter;
use crate::control::Control;
use crate::data::{Batch, Row};
use crate::kernel::Compute;
use crate::model::{LoadOptions, Model};
use crate::train::{Options, Trainer, ZerothTrainer};

fn tiny() -> Model {
    named("tiny")
}

fn named(name: &str) -> Model {
    load(name, Kernel::best(Compute::F32))
}

fn load(name: &str, kernel: Kernel) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(name);
    let options = LoadOptions {
        base: Base::F32,
        kernel,
        threads: NonZeroUsize::new(2).unwrap(),
        ..LoadOptions::default()
    };
    Model::load(&path, &options).unwrap()
}

fn rows(batch: usize, sequence: usize) -> Batch {
    let row = |record| Row {
        tokens: (0..sequence as u32).map(|i| i % 63).collect(),
        labelled: vec![true; sequence],
        class: None,
        record,
    };
    Batch {
        rows: (0..batch).map(row).collect(),
    }
}

fn demand(ranks: &RankTable) -> Demand<'_> {
    Demand {
        base: Base::F32,
        kernel: Kernel::best(Compute::F32),
        ranks,
        optimizer: Optimizer::AdamW,
        checkpoint: false,
        batch: 3,
        sequence: 100,
        labelled: 100,
        threads: 2,
    }
}

/// What the workspace of the tiny model holds after three steps.
fn held(model: &Model, demand: &Demand<'_>) -> usize {
    let adapter = Adapter::initialize(&model.weights(), demand.ranks, 2.0, 0).unwrap();
    let (batch, control) = (rows(demand.batch, demand.sequence), Control::new());
    if demand.optimizer == Optimizer::Mezo {
        let how = Steps::of(&Training::default(), 0);
        let mut trainer = ZerothTrainer::new(model, &adapter, how, 0).unwrap();
        for _ in 0..3 {
            trainer.step(&batch, &control).unwrap();
        }
        return trainer.workspace_bytes();
    }
    let options = Options {
        checkpoint: demand.checkpoint,
        ..Options::default()
    };
    let mut trainer = Trainer::new(model, &adapter, options).unwrap();
    for _ in 0..3 {
        trainer.step(&batch, 1e-6, &control).unwrap();
    }
    trainer.workspace_bytes()
}

/// Predictions are to be good to 15 %; the order in which buffers are taken is worth a few.
#[test]
fn the_predicted_workspace_is_what_a_real_one_holds() {
    let model = tiny();
    let all = RankTable::uniform(&Projection::ALL, 2, 4);
    let some = RankTable::uniform(&[Projection::Q, Projection::Down], 2, 3);
    for ranks in [&all, &some] {
        for (optimizer, checkpoint) in [
            (Optimizer::AdamW, false),
            (Optimizer::AdamW, true),
            (Optimizer::Mezo, false),
        ] {
            for (batch, sequence) in [(3, 100), (1, 128)] {
                let demand = Demand {
                    optimizer,
                    checkpoint,
                    batch,
                    sequence,
                    labelled: sequence,
                    ..demand(ranks)
                };
                let got = pass::workspace(model.config(), &demand).capacity() as f64;
                let want = held(&model, &demand) as f64;
                assert!(
                    (got - want).abs() < 0.15 * want,
                    "{demand:?}: {got}, held {want}"
                );
            }
        }
    }
}

/// A network without a gate, normalizations behind each half: other buffers, in other places.
#[test]
fn the_predicted_workspace_and_base_of_every_family_are_what_it_holds() {
    for name in ["mistral", "qwen2", "qwen3", "gpt2", "gemma3"] {
        for compute in [Compute::F32, Compute::Bf16] {
            let kernel = Kernel::best(compute);
            let model = load(&format!("architectures/{name}"), kernel);
            let targets: Vec<Projection> = model.config().projections().collect();
            let layers = model.config().layers as u16;
            // A window of Mistral's ends the context before.
            let sequence = model.config().context.min(90);
            let all = RankTable::uniform(&targets, layers, 4);
            let some = RankTable::uniform(&targets[..1], layers, 3);
            for (ranks, optimizer, checkpoint) in [
                (&all, Optimizer::AdamW, false),
                (&all, Optimizer::AdamW, true),
                (&some, Optimizer::AdamW, false),
                (&all, Optimizer::Mezo, false),
            ] {
                let demand = Demand {
                    kernel,
                    optimizer,
                    checkpoint,
                    sequence,
                    labelled: sequence,
                    ..demand(ranks)
                };
                let got = pass::workspace(model.config(), &demand).capacity() as f64;
                let want = held(&model, &demand) as f64;
                assert!(
                    (got - want).abs() < 0.15 * want,
                    "{name} {demand:?}: {got}, held {want}"
                );
            }
            let estimate = estimate(model.config(), 0, &demand(&all));
            assert_eq!(estimate.base, model.base_bytes(), "{name}");
        }
    }
}

#[test]
fn the_predicted_workspace_and_base_of_an_encoder_are_what_it_holds() {
    for name in ["encoder", "encoders/roberta", "encoders/distilbert"] {
        holds_as_predicted(&named(name));
    }
}

fn holds_as_predicted(model: &Model) {
    let [q, up] = [Projection::Q, Projection::Up];
    let both = RankTable::uniform(&[q, Projection::O, up, Projection::Down], 2, 4);
    let some = RankTable::uniform(&[q], 2, 3);
    for ranks in [&both, &some] {
        for checkpoint in [false, true] {
            for (batch, sequence) in [(6, 48), (1, 40)] {
                let demand = Demand {
                    checkpoint,
                    batch,
                    sequence,
                    ..demand(ranks)
                };
                let adapter = Adapter::initialize(&model.weights(), ranks, 2.0, 0).unwrap();
                let options = Options {
                    checkpoint,
                    ..Options::default()
                };
                let mut trainer = Trainer::new(model, &adapter, options).unwrap();
                let mut rows = rows(batch, sequence);
                for row in &mut rows.rows {
                    (row.class, row.labelled) = (Some(1.into()), vec![false; sequence]);
                }
                for _ in 0..3 {
                    trainer.step(&rows, 1e-6, &Control::new()).unwrap();
                }
                let want = trainer.workspace_bytes() as f64;
                let got = pass::workspace(model.config(), &demand).capacity() as f64;
                assert!(
                    (got - want).abs() < 0.15 * want,
                    "{demand:?}: {got}, held {want}"
                );
            }
        }
    }
    let estimate = estimate(model.config(), 0, &demand(&both));
    assert_eq!(estimate.base, model.base_bytes());
}

#[test]
fn the_predicted_base_is_what_a_model_holds() {
    let model = tiny();
    let ranks = RankTable::uniform(&Projection::ALL, 2, 4);
    let estimate = estimate(model.config(), 0, &demand(&ranks));
    assert_eq!(estimate.base, model.base_bytes());
    let adapter = Adapter::initialize(&model.weights(), &ranks, 2.0, 0).unwrap();
    assert_eq!(estimate.adapter, 4 * 4 * adapter.parameters() as u64);
}

#[test]
fn what_is_too_large_is_refused_with_what_would_fit() {
    let model = tiny();
    let ranks = RankTable::uniform(&Projection::ALL, 2, 8);
    let demand = Demand {
        batch: 64,
        sequence: 128,
        ..demand(&ranks)
    };
    let config = model.config();
    let needed = estimate(config, 0, &demand).total();
    assert_eq!(check(config, 0, &demand, needed).unwrap().total(), needed);
    let refused = check(config, 0, &demand, needed - 1).unwrap_err();
    assert_eq!(
        (refused.needed.total(), refused.allowed),
        (needed, needed - 1)
    );
    let offered: Vec<Remedy> = refused.remedies.iter().map(|(remedy, _)| *remedy).collect();
    let all = [
        Remedy::Checkpoint,
        Remedy::Batch(32),
        Remedy::Base(Base::Bf16),
        Remedy::Rank(4),
        Remedy::ZerothOrder,
    ];
    assert_eq!(offered, all);
    for (remedy, total) in &refused.remedies {
        assert!(*total < needed, "{remedy}");
    }
    let text = refused.to_string();
    assert!(
        text.contains("checkpointing (") && text.contains("batch 32 ("),
        "{text}"
    );

    let nothing = check(config, 0, &demand, 1).unwrap_err();
    assert!(nothing.remedies.is_empty());
    assert!(nothing.to_string().ends_with("a smaller model only"));
}

/// Attention keeps no square: from 1024 tokens on, twice the sequence takes about twice the memory. Which
/// buffers of the pool are used again depends on their sizes, so a tenth more is let pass.
#[test]
fn memory_grows_linearly_with_the_sequence() {
    let model = tiny();
    let ranks = RankTable::uniform(&Projection::ALL, 2, 4);
    let at = |sequence| {
        let demand = Demand {
            batch: 1,
            sequence,
            labelled: sequence,
            ..demand(&ranks)
        };
        let estimate = estimate(model.config(), 0, &demand);
        estimate.activations + estimate.workspace
    };
    for sequence in [1024, 2048, 4096] {
        let (one, two) = (at(sequence), at(2 * sequence));
        assert!(10 * two <= 22 * one, "{sequence}: {one} bytes, then {two}");
    }
}

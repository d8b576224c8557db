use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use domain::job::mezo::Distribution;
use domain::zeroth::GENERATOR;

use super::*;
use crate::data::{Class, Row};
use crate::evaluate::Evaluator;
use crate::kernel::Kernel;
use crate::memory;
use crate::model::{Base, LoadOptions};

fn how(seed: u64, perturbations: u16) -> Steps {
    Steps {
        generator: GENERATOR,
        seed,
        distribution: Distribution::Gaussian,
        perturbations,
        perturbation: 1e-3,
        clip: 0.0,
        rate: 1e-4,
        variance: 0.0,
    }
}

fn reference(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    folder.join(name)
}

fn options(threads: usize) -> LoadOptions {
    LoadOptions {
        base: Base::F32,
        threads: NonZeroUsize::new(threads).unwrap(),
        ..LoadOptions::default()
    }
}

fn load(name: &str, threads: usize) -> Model {
    Model::load(&reference(name), &options(threads)).unwrap()
}

fn trainer(name: &str, how: Steps) -> WholeTrainer {
    WholeTrainer::new(load(name, 2), how, 11, u64::MAX).unwrap()
}

fn rows() -> Batch {
    let row = |record: usize| Row {
        tokens: (0..14).map(|i| (i * 7 + 3 * record as u32) % 63).collect(),
        labelled: (0..14).map(|i| i > 3).collect(),
        class: None,
        record,
    };
    Batch {
        rows: (0..2).map(row).collect(),
    }
}

/// Every value's bits, tensor by tensor.
fn bits(model: &mut Model) -> Vec<(u32, Vec<u32>)> {
    let mut all = Vec::new();
    model.for_each_parameter(|number, values| {
        all.push((number, values.iter().map(|value| value.to_bits()).collect()));
    });
    all
}

fn moved(model: &mut Model, direction: Normals, factor: f32) {
    model.for_each_parameter(|number, values| direction.add(number, values, factor));
}

/// The same rows, each a prompt that one of two words follows.
fn asked() -> Batch {
    let class = |number| Class {
        number,
        words: [40, 7].into(),
    };
    let mut batch = rows();
    for (number, row) in (0..).zip(&mut batch.rows) {
        (row.class, row.labelled) = (Some(class(number)), vec![false; 14]);
    }
    batch
}

fn loss(model: &Model, batch: &Batch) -> f64 {
    let mut evaluator = Evaluator::new(model, None).unwrap();
    let loss = evaluator.loss(batch, &Control::new()).unwrap();
    loss.mean().unwrap()
}

/// Norms, biases, tied and own output layers, tables of positions and windows among them.
const FAMILIES: [&str; 8] = [
    "tiny",
    "tiny.gguf",
    "architectures/llama3",
    "architectures/mistral",
    "architectures/qwen2",
    "architectures/qwen3",
    "architectures/gpt2",
    "architectures/gemma3",
];

/// A pass at θ ± μz is the pass of a model that was moved whole: to the last bit, in every family.
#[test]
fn a_step_is_the_formula_with_whole_moved_models() {
    for name in FAMILIES {
        for (distribution, batch) in [
            (Distribution::Gaussian, rows()),
            (Distribution::Rademacher, rows()),
            (Distribution::Gaussian, asked()),
        ] {
            let how = Steps {
                distribution,
                ..how(5, 2)
            };
            let mut trainer = trainer(name, how);
            let mut want = load(name, 2);
            let walked = trainer.step(&batch, &Control::new()).unwrap();
            let (mut moves, mut losses) = (Vec::new(), 0.0);
            for number in 0..2 {
                let direction = match distribution {
                    Distribution::Gaussian => Normals::direction(5, 11, number),
                    Distribution::Rademacher => Normals::signs(5, 11, number),
                };
                let at = |factor: f32| {
                    let mut model = load(name, 2);
                    moved(&mut model, direction, factor);
                    loss(&model, &batch)
                };
                let (plus, minus) = (at(1e-3), at(-1e-3));
                losses += f64::midpoint(plus, minus);
                moves.push((
                    direction,
                    ((plus - minus) / (2.0 * f64::from(1e-3f32))) as f32,
                ));
            }
            assert_eq!(walked.loss, Some(losses / 2.0), "{name}");
            for (direction, slope) in moves {
                let rate = f64::from(1e-4f32) / 2.0;
                moved(&mut want, direction, (-rate * f64::from(slope)) as f32);
            }
            assert_eq!(bits(&mut trainer.into_model()), bits(&mut want), "{name}");
        }
    }
}

/// Whoever has the files and the scalars has the model, whatever they were walked on.
#[test]
fn training_is_the_replay_of_its_scalars_bit_for_bit_on_any_number_of_threads() {
    let how = how(9, 2);
    let run = |threads| {
        let model = load("tiny", threads);
        let mut trainer = WholeTrainer::new(model, how, 40, u64::MAX).unwrap();
        for _ in 0..4 {
            trainer.step(&rows(), &Control::new()).unwrap();
        }
        (trainer.scalars(), trainer.digest())
    };
    let (scalars, want) = run(2);
    assert_eq!(scalars.values().len(), 8);
    for threads in [1, 3] {
        assert_eq!(run(threads), (scalars.clone(), want.clone()), "{threads}");
        let model = load("tiny", threads);
        let mut again = WholeTrainer::new(model, how, 40, u64::MAX).unwrap();
        assert!(!again.resume(&scalars, 3), "those are four steps");
        assert!(again.resume(&scalars, 4));
        assert_eq!(
            (again.scalars(), again.digest()),
            (scalars.clone(), want.clone())
        );
        let mut told = Vec::new();
        let mut stepwise = WholeTrainer::new(load("tiny", threads), how, 40, u64::MAX).unwrap();
        assert!(!stepwise.resume_telling(&scalars, 5, |made| told.push(made)));
        assert!(stepwise.resume_telling(&scalars, 4, |made| told.push(made)));
        assert_eq!(told, [1, 2, 3, 4]);
        assert_eq!(
            (stepwise.scalars(), stepwise.digest()),
            (scalars.clone(), want.clone())
        );
        // And it goes on as the first would.
        again.step(&rows(), &Control::new()).unwrap();
        assert_ne!(again.digest(), want);
    }
    let (first, second) = scalars.values().split_at(4);
    let mut stopped = WholeTrainer::new(load("tiny", 2), how, 40, u64::MAX).unwrap();
    assert!(stopped.resume(&Scalars::new(first.to_vec()), 2));
    for _ in 0..2 {
        stopped.step(&rows(), &Control::new()).unwrap();
    }
    assert_eq!(stopped.scalars().values()[4..], *second);
    assert_eq!(stopped.digest(), want);
}

/// By `tests/reference/make_whole.py`, which knows the definition alone: the numbers of the tensors, the directions,
/// and one rounded addition after the other.
#[test]
fn known_scalars_lead_to_the_known_model() {
    const STEPS: [f32; 4] = [1.5, -0.25, 3.0, 0.125];
    let mut trainer = trainer("tiny", how(7, 1));
    assert_eq!(trainer.digest().hex(), START, "the model itself");
    let mut scalars = STEPS.to_vec();
    scalars.insert(2, Scalars::SKIPPED);
    assert!(trainer.resume(&Scalars::new(scalars), 5));
    assert_eq!(trainer.digest().hex(), END);
}

const START: &str = "b4d9fa48e2a345482ac88152a06c511c7406286c8e88cae86f73856c525bbde3";
const END: &str = "882ec7e5e51914face2a5c199eb7009b5db415c6cce7b4f45d469cf0b4c363fc";

#[test]
fn what_fails_or_is_stopped_leaves_the_model_as_it_was() {
    let mut start = load("tiny", 2);
    let start = bits(&mut start);
    let mut stopped = trainer("tiny", how(3, 2));
    let control = Control::new();
    control.cancel();
    stopped.step(&rows(), &control).unwrap_err();
    assert!(stopped.scalars().values().is_empty());
    let mut nothing = rows();
    nothing
        .rows
        .iter_mut()
        .for_each(|row| row.labelled.fill(false));
    let refused = stopped.step(&nothing, &Control::new());
    assert!(matches!(refused, Err(Error::NothingLabelled)));
    assert_eq!(bits(&mut stopped.into_model()), start);

    let far = Steps {
        perturbation: f64::from(f32::MAX),
        ..how(3, 2)
    };
    let mut far_off = trainer("tiny", far);
    let walked = far_off.step(&rows(), &Control::new()).unwrap();
    assert_eq!((walked.loss, walked.slope), (None, 0.0));
    assert_eq!(far_off.scalars().skipped(1, &far), Ok(1));
    assert_eq!(bits(&mut far_off.into_model()), start);
}

/// Between the two passes of a pair nothing has moved: a process that ends there has lost nothing.
#[test]
fn the_two_passes_of_each_direction_are_made_beside_the_model() {
    static BETWEEN: AtomicUsize = AtomicUsize::new(0);
    let mut trainer = trainer("tiny", how(3, 3)).with_between(|| {
        BETWEEN.fetch_add(1, Ordering::Relaxed);
    });
    trainer.step(&rows(), &Control::new()).unwrap();
    assert_eq!(BETWEEN.load(Ordering::Relaxed), 3);
}

/// Nothing of the model's size is held beside it: what is, is stated, and is not more after the next step.
#[test]
fn beside_the_model_there_is_one_block() {
    for name in FAMILIES {
        let mut trainer = trainer(name, how(3, 1));
        trainer.step(&rows(), &Control::new()).unwrap();
        let (held, config) = (trainer.room_bytes(), trainer.model().config().clone());
        let most = memory::whole(&config) as usize;
        let norm = 4 * 2 * config.hidden;
        assert!(
            held > 0 && held <= most + norm,
            "{name}: {held}, stated {most}"
        );
        trainer.step(&rows(), &Control::new()).unwrap();
        assert_eq!(trainer.room_bytes(), held, "{name}");
    }
}

#[test]
fn the_loss_falls() {
    let walk = Steps {
        rate: 2e-5,
        ..how(7, 4)
    };
    let mut trainer = trainer("tiny", walk);
    let before = loss(trainer.model(), &rows());
    for _ in 0..60 {
        trainer.step(&rows(), &Control::new()).unwrap();
    }
    let after = loss(trainer.model(), &rows());
    assert!(after < 0.98 * before, "{before} to {after}");
}

#[test]
fn what_cannot_be_trained_whole_is_refused_with_the_reason() {
    let refused = |options: &LoadOptions, name: &str, limit| {
        let model = Model::load(&reference(name), options).unwrap();
        let made = WholeTrainer::new(model, how(1, 1), 0, limit);
        made.map(|_| ()).unwrap_err().to_string()
    };
    let parameters = Model::parameters_of(load("tiny", 1).config());
    let said = refused(&options(1), "tiny", parameters - 1);
    assert!(said.contains(&parameters.to_string()), "{said}");
    for base in [Base::Source, Base::Nf4] {
        let held = LoadOptions { base, ..options(1) };
        assert!(refused(&held, "tiny", u64::MAX).contains("f32"), "{base:?}");
    }
    let kernel = Kernel::best(Compute::Bf16);
    let rounded = LoadOptions {
        kernel,
        ..options(1)
    };
    assert!(refused(&rounded, "tiny", u64::MAX).contains("f32"));
    let encoder = refused(&options(1), "encoder", u64::MAX);
    assert!(encoder.contains("encoder"), "{encoder}");
}

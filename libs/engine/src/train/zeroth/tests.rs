use std::num::NonZeroUsize;
use std::path::Path;

use super::*;
use crate::adapter::Factors as WeightFactors;
use crate::data::Row;
use crate::evaluate::Evaluator;
use crate::model::{Base, LoadOptions};
use crate::ops::check::dot;
use crate::train::{Options, Replay, Trainer};
use domain::job::mezo::Distribution;
use domain::zeroth::GENERATOR;

fn how(seed: u64, perturbation: f64) -> Steps {
    Steps {
        generator: GENERATOR,
        seed,
        distribution: Distribution::Gaussian,
        perturbations: 1,
        perturbation,
        clip: 0.0,
        rate: 1e-3,
    }
}

fn tiny() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/tiny");
    let threads = NonZeroUsize::new(2).unwrap();
    let options = LoadOptions {
        base: Base::F32,
        threads,
        ..LoadOptions::default()
    };
    Model::load(&path, &options).unwrap()
}

fn uneven(model: &Model) -> Adapter {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/tiny-uneven");
    Adapter::load(&path, &model.weights()).unwrap()
}

/// `adapter + factor·z`, weight by weight by name.
fn along(adapter: &Adapter, direction: Normals, factor: f32) -> Adapter {
    let moved = adapter.factors().map(|own| {
        let shape = own.shape();
        let tensor = 2 * (16 * u32::from(shape.name.layer()) + shape.name.projection() as u32);
        let (mut a, mut b) = (own.a().to_vec(), own.b().to_vec());
        direction.add(tensor, &mut a, factor);
        direction.add(tensor + 1, &mut b, factor);
        WeightFactors::new(shape, own.rank(), a, b).unwrap()
    });
    Adapter::new(adapter.scale(), moved).unwrap()
}

fn rows() -> Batch {
    Batch {
        rows: vec![Row {
            tokens: (0..20).map(|i| (i * 7) % 63).collect(),
            labelled: vec![true; 20],
            record: 0,
        }],
    }
}

/// `Σ gradient · z` over the whole adapter.
fn along_gradient(gradient: &Adapter, direction: Normals) -> f64 {
    let zero = gradient.factors().map(|own| {
        let (a, b) = (vec![0.0; own.a().len()], vec![0.0; own.b().len()]);
        WeightFactors::new(own.shape(), own.rank(), a, b).unwrap()
    });
    let z = along(&Adapter::new(1.0, zero).unwrap(), direction, 1.0);
    let pairs = gradient.factors().zip(z.factors());
    pairs
        .map(|(g, z)| dot(g.a(), z.a()) + dot(g.b(), z.b()))
        .sum()
}

/// What is left is of the order of μ², and what f32 rounds off the two losses.
#[test]
fn the_slope_is_that_of_the_loss_along_z_in_sign_and_size() {
    let (model, rows, control) = (tiny(), rows(), Control::new());
    let start = uneven(&model);
    let mut first_order = Trainer::new(&model, &start, Options::default()).unwrap();
    let gradient = first_order.gradient_of(&rows).unwrap();
    let mut signs = [0, 0];
    for seed in 0..12 {
        let mut trainer = ZerothTrainer::new(&model, &start, how(seed, 1e-3), 0).unwrap();
        let got = trainer.slope(&rows, &control).unwrap().along;
        let want = along_gradient(&gradient, Normals::direction(seed, 0, 0));
        assert!(
            (got - want).abs() < 0.02 * want.abs() + 0.002,
            "seed {seed}: {got}, gradient along z {want}"
        );
        signs[usize::from(got > 0.0)] += 1;
        assert_eq!(trainer.adapter().unwrap(), start, "nothing moved");
    }
    assert!(signs.iter().all(|count| *count > 1), "{signs:?}");
}

#[test]
fn a_step_is_the_formula_with_whole_moved_adapters() {
    let (model, rows) = (tiny(), rows());
    for (perturbations, clip) in [(1, 0.0), (3, 0.0), (2, 0.25)] {
        let how = Steps {
            perturbations,
            clip,
            ..how(5, 1e-2)
        };
        let mut want = uneven(&model);
        let mut trainer = ZerothTrainer::new(&model, &want, how, 11).unwrap();
        let mut clipped = 0;
        for step in 11..14 {
            let (mut moves, mut losses) = (Vec::new(), 0.0);
            for number in 0..u32::from(perturbations) {
                let direction = Normals::direction(how.seed, step, number);
                let loss = |factor: f32| {
                    let moved = along(&want, direction, factor);
                    let mut evaluator = Evaluator::new(&model, Some(&moved)).unwrap();
                    let loss = evaluator.loss(&rows, &Control::new()).unwrap();
                    loss.mean().unwrap()
                };
                let shift = how.perturbation as f32;
                let (plus, minus) = (loss(shift), loss(-shift));
                losses += f64::midpoint(plus, minus);
                let mut slope = ((plus - minus) / (2.0 * f64::from(shift))) as f32;
                if clip > 0.0 && slope.abs() > clip as f32 {
                    slope = slope.signum() * clip as f32;
                    clipped += 1;
                }
                moves.push((direction, slope));
            }
            let got = trainer.step(&rows, &Control::new()).unwrap();
            assert_eq!(got.loss, Some(losses / f64::from(perturbations)));
            let rate = f64::from(1e-3f32) / f64::from(perturbations);
            for (direction, slope) in moves {
                want = along(&want, direction, (-rate * f64::from(slope)) as f32);
            }
            assert_eq!(trainer.adapter().unwrap(), want);
        }
        assert_eq!(clipped > 0, clip > 0.0, "the limit is one that is met");
    }
}

/// Replays every tensor of an adapter.
fn replayed(start: &Adapter, replay: &Replay) -> Adapter {
    let moved = start.factors().map(|own| {
        let shape = own.shape();
        let (mut a, mut b) = (own.a().to_vec(), own.b().to_vec());
        assert!(replay.apply(&shape.name.peft_a(), &mut a));
        assert!(replay.apply(&shape.name.peft_b(), &mut b));
        WeightFactors::new(shape, own.rank(), a, b).unwrap()
    });
    Adapter::new(start.scale(), moved).unwrap()
}

#[test]
fn training_is_the_replay_of_its_scalars_bit_for_bit() {
    let (model, rows, control) = (tiny(), rows(), Control::new());
    for distribution in [Distribution::Gaussian, Distribution::Rademacher] {
        let how = Steps {
            perturbations: 2,
            distribution,
            ..how(9, 1e-2)
        };
        let start = uneven(&model);
        let mut trainer = ZerothTrainer::new(&model, &start, how, 40).unwrap();
        for _ in 0..6 {
            trainer.step(&rows, &control).unwrap();
        }
        let (scalars, want) = (trainer.scalars(), trainer.adapter().unwrap());
        assert_eq!(scalars.values().len(), 12);
        let whole = Replay::new().then(&how, 40, &scalars);
        let threads = |count| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
            pool.unwrap().install(|| replayed(&start, &whole))
        };
        assert_eq!(threads(1), want);
        assert_eq!(threads(3), want);
        // Two rounds, one after the other, are the same walk.
        let (first, second) = scalars.values().split_at(4);
        let [first, second] = [first, second].map(|part| Scalars::new(part.to_vec()));
        let rounds = Replay::new().then(&how, 40, &first).then(&how, 42, &second);
        assert_eq!(replayed(&start, &rounds), want);
        // And no other order of the same scalars is.
        let mut turned = scalars.values().to_vec();
        turned.swap(0, 2);
        let turned = Replay::new().then(&how, 40, &Scalars::new(turned));
        assert_ne!(replayed(&start, &turned), want);
    }
}

#[test]
fn a_step_without_a_finite_loss_moves_nothing_and_is_marked() {
    let (model, rows, control) = (tiny(), rows(), Control::new());
    let start = uneven(&model);
    let far = Steps {
        perturbation: f64::from(f32::MAX),
        perturbations: 2,
        ..how(3, 1e-2)
    };
    let mut trainer = ZerothTrainer::new(&model, &start, far, 0).unwrap();
    let walked = trainer.step(&rows, &control).unwrap();
    assert_eq!((walked.loss, walked.slope), (None, 0.0));
    assert_eq!(trainer.adapter().unwrap(), start);
    let scalars = trainer.scalars();
    assert_eq!(scalars.skipped(1, &far), Ok(1));
    assert_eq!(
        replayed(&start, &Replay::new().then(&far, 0, &scalars)),
        start
    );
}

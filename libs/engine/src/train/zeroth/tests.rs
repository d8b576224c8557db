use std::num::NonZeroUsize;
use std::path::Path;

use super::*;
use crate::adapter::Factors as WeightFactors;
use crate::data::Row;
use crate::evaluate::Evaluator;
use crate::model::{Base, LoadOptions};
use crate::normal::Normals;
use crate::ops::check::dot;
use crate::ops::lora_linear::Factors;
use crate::train::{Options, Replay, Trainer};
use domain::job::mezo::Distribution;
use domain::zeroth::GENERATOR;

mod among;

fn how(seed: u64, perturbation: f64) -> Steps {
    Steps {
        generator: GENERATOR,
        seed,
        distribution: Distribution::Gaussian,
        perturbations: 1,
        perturbation,
        clip: 0.0,
        rate: 1e-3,
        variance: 0.0,
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
            class: None,
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
    let (gaussian, signs) = (Distribution::Gaussian, Distribution::Rademacher);
    for (perturbations, clip, distribution) in [
        (1, 0.0, gaussian),
        (3, 0.0, gaussian),
        (2, 0.25, gaussian),
        (2, 0.0, signs),
    ] {
        let how = Steps {
            perturbations,
            clip,
            distribution,
            ..how(5, 1e-2)
        };
        let mut want = uneven(&model);
        let mut trainer = ZerothTrainer::new(&model, &want, how, 11).unwrap();
        let mut clipped = 0;
        for step in 11..14 {
            let (mut moves, mut losses) = (Vec::new(), 0.0);
            for number in 0..u32::from(perturbations) {
                let direction = match distribution {
                    Distribution::Gaussian => Normals::direction(how.seed, step, number),
                    Distribution::Rademacher => Normals::signs(how.seed, step, number),
                };
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

/// The room of a moved adapter is that of one block, whatever the number of blocks.
#[test]
fn beside_the_adapter_one_block_of_it_is_held_for_each_pass_that_is_computed_at_once() {
    let (model, rows) = (tiny(), rows());
    let start = uneven(&model);
    let (mut blocks, mut whole) = ([0; 2], 0);
    for own in start.factors() {
        let count = own.a().len() + own.b().len();
        blocks[usize::from(own.shape().name.layer())] += count;
        whole += count;
    }
    let largest = blocks.into_iter().max().unwrap();
    assert!(largest < whole, "both blocks are adapted");
    let how = Steps {
        perturbations: 2,
        ..how(5, 1e-2)
    };
    for passes in [1, 2, 4] {
        let trainer = ZerothTrainer::new(&model, &start, how, 0).unwrap();
        let mut trainer = trainer.with_abreast(passes);
        trainer.step(&rows, &Control::new()).unwrap();
        let moved = &trainer.point.moved.blocks;
        assert_eq!(moved.len(), usize::from(passes));
        let numbers = |factors: &Factors| {
            let parts = factors.parts.iter().map(|part| part.b.len());
            factors.a.len() + parts.sum::<usize>()
        };
        for block in moved {
            let held: usize = block.iter().map(numbers).sum();
            assert!((1..=largest).contains(&held), "{held} of {whole}");
        }
        assert!(trainer.point.scales.is_empty(), "nothing is scaled");
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

/// The mean square of a first step's scalars, which bounds are chosen by.
fn square(model: &Model, start: &Adapter, how: Steps) -> f64 {
    let mut trainer = ZerothTrainer::new(model, start, how, 0).unwrap();
    let walked = trainer.step(&rows(), &Control::new()).unwrap();
    walked.slope.powi(2)
}

#[test]
fn a_step_takes_as_many_directions_as_its_bound_asks_for_and_is_replayed_so() {
    let (model, rows, control) = (tiny(), rows(), Control::new());
    let start = uneven(&model);
    let many = Steps {
        perturbations: 16,
        ..how(9, 1e-2)
    };
    let bound = Steps {
        variance: square(&model, &start, many) / 6.0,
        ..many
    };
    let mut trainer = ZerothTrainer::new(&model, &start, bound, 40).unwrap();
    let mut taken = Vec::new();
    for _ in 0..8 {
        let walked = trainer.step(&rows, &control).unwrap();
        assert!(walked.loss.is_some());
        taken.push(walked.directions);
    }
    let mut kinds = taken.clone();
    kinds.sort_unstable();
    kinds.dedup();
    assert!(
        kinds.len() > 1 && kinds.iter().all(|n| (2..=16).contains(n)),
        "{taken:?}"
    );
    let scalars = trainer.scalars();
    assert_eq!(
        scalars.values().len(),
        8 * 16,
        "no longer than without a bound"
    );
    assert_eq!(scalars.directions(16), taken.iter().sum::<usize>() as u64);
    assert_eq!(scalars.skipped(8, &bound), Ok(0));
    let replay = Replay::new().then(&bound, 40, &scalars);
    assert_eq!(replayed(&start, &replay), trainer.adapter().unwrap());
    // The directions that were taken are those of a step without a bound.
    let mut all = ZerothTrainer::new(&model, &start, many, 40).unwrap();
    all.step(&rows, &control).unwrap();
    let first = &scalars.values()[..taken[0]];
    assert_eq!(first, &all.scalars().values()[..taken[0]]);
}

#[test]
fn passes_that_are_computed_as_one_find_the_same_slopes() {
    let (model, rows, control) = (tiny(), rows(), Control::new());
    let start = uneven(&model);
    let how = Steps {
        perturbations: 5,
        ..how(9, 1e-2)
    };
    let scalars = |abreast: u16| {
        let trainer = ZerothTrainer::new(&model, &start, how, 3).unwrap();
        let mut trainer = trainer.with_abreast(abreast);
        trainer.step(&rows, &control).unwrap();
        let scalars = trainer.scalars();
        let replay = Replay::new().then(&how, 3, &scalars);
        assert_eq!(replayed(&start, &replay), trainer.adapter().unwrap());
        scalars
    };
    let one = scalars(1);
    for abreast in [2, 3, 4, 10] {
        let got = scalars(abreast);
        for (got, one) in got.values().iter().zip(one.values()) {
            // Two losses that differ by their last bits, through 2μ.
            assert!((got - one).abs() < 1e-3, "{abreast}: {got}, not {one}");
        }
    }
}

/// The planner counts on it.
#[test]
fn passes_that_are_computed_as_one_need_the_buffers_of_a_batch_as_many_times_as_large() {
    let (model, rows, control) = (tiny(), rows(), Control::new());
    let start = uneven(&model);
    let how = Steps {
        perturbations: 2,
        ..how(5, 1e-2)
    };
    let bytes = |abreast: u16, records: usize| {
        let rows = rows.rows.iter().cycle().take(records);
        let batch = Batch {
            rows: rows.cloned().collect(),
        };
        let trainer = ZerothTrainer::new(&model, &start, how, 0).unwrap();
        let mut trainer = trainer.with_abreast(abreast);
        trainer.step(&batch, &control).unwrap();
        trainer.workspace_bytes() as f64
    };
    for passes in [2, 4] {
        let (abreast, large) = (bytes(passes, 1), bytes(1, passes.into()));
        assert!(abreast < 1.15 * large, "{passes}: {abreast}, not {large}");
        assert!(abreast > 1.5 * bytes(1, 1), "{passes}: {abreast}");
    }
}

#[test]
fn what_directions_are_multiplied_by_holds_in_training_as_in_replay() {
    let (model, rows, control) = (tiny(), rows(), Control::new());
    let start = uneven(&model);
    let how = Steps {
        perturbations: 2,
        ..how(9, 1e-2)
    };
    let mut mask = crate::train::Mask::new(0.25);
    for own in start.factors() {
        let name = own.shape().name;
        mask.add(&name.peft_a(), own.a());
        mask.add(&name.peft_b(), own.b());
    }
    let past = Scalars::new(vec![1.0, -2.0, 0.5, 3.0]);
    let emphasis = || Emphasis::default().scaled(0.4, [(&how, 36, &past)]);
    let mask = std::sync::Arc::new(mask);
    let kinds = [
        Emphasis::default().masked(mask.clone()),
        emphasis(),
        emphasis().masked(mask),
    ];
    let mut ends = Vec::new();
    for emphasis in kinds {
        let trainer = ZerothTrainer::new(&model, &start, how, 40).unwrap();
        let mut trainer = trainer.with_emphasis(&emphasis, &control).unwrap();
        for _ in 0..3 {
            trainer.step(&rows, &control).unwrap();
        }
        let end = trainer.adapter().unwrap();
        let replay = Replay::new().then_by(&how, 40, &trainer.scalars(), emphasis);
        assert_eq!(replayed(&start, &replay), end);
        let plain = Replay::new().then(&how, 40, &trainer.scalars());
        assert_ne!(replayed(&start, &plain), end);
        ends.push(end);
    }
    let still = |end: &Adapter| {
        let pairs = start.factors().zip(end.factors());
        let same = |(one, other): (&WeightFactors, &WeightFactors)| {
            let pairs = one
                .a()
                .iter()
                .zip(other.a())
                .chain(one.b().iter().zip(other.b()));
            pairs.filter(|(one, other)| one == other).count()
        };
        pairs.map(same).sum::<usize>()
    };
    let all: usize = start
        .factors()
        .map(|own| own.a().len() + own.b().len())
        .sum();
    for (kind, end) in ends.iter().enumerate() {
        let masked = kind != 1;
        assert_eq!(
            still(end) * 10 > all * 7,
            masked,
            "{kind}: {} of {all}",
            still(end)
        );
    }
}

/// On a large adapter it takes longer than a worker may be silent.
#[test]
fn each_tensor_that_directions_are_scaled_by_is_progress_and_may_be_the_last() {
    let (model, control) = (tiny(), Control::new());
    let (start, how) = (uneven(&model), how(9, 1e-2));
    let past = Scalars::new(vec![1.0, -2.0]);
    let emphasis = Emphasis::default().scaled(0.4, [(&how, 36, &past)]);
    let begin = || {
        let trainer = ZerothTrainer::new(&model, &start, how, 40).unwrap();
        trainer.with_emphasis(&emphasis, &control)
    };
    begin().unwrap();
    let tensors = 2 * start.factors().filter(|own| own.rank() > 0).count();
    assert_eq!(control.progress(), tensors as u64);
    control.cancel();
    let stopped = begin().unwrap_err();
    assert!(
        matches!(stopped, Error::Compute(compute::Error::Cancelled(_))),
        "{stopped}"
    );
}

#[test]
fn a_trainer_that_goes_on_from_another_ones_scalars_ends_with_the_same_bytes() {
    let (model, rows, control) = (tiny(), rows(), Control::new());
    let start = uneven(&model);
    let how = Steps {
        perturbations: 2,
        ..how(5, 1e-2)
    };
    let begun = || ZerothTrainer::new(&model, &start, how, 11).unwrap();
    let (mut whole, mut stopped, mut second) = (begun(), begun(), begun());
    for _ in 0..2 {
        whole.step(&rows, &control).unwrap();
        stopped.step(&rows, &control).unwrap();
    }
    let scalars = stopped.scalars();
    assert!(!second.resume(&scalars, 3), "those are two steps");
    assert_eq!(second.adapter().unwrap(), start);
    assert!(second.resume(&scalars, 2));
    for _ in 0..2 {
        whole.step(&rows, &control).unwrap();
        second.step(&rows, &control).unwrap();
    }
    assert_eq!(second.adapter().unwrap(), whole.adapter().unwrap());
    assert_eq!(second.scalars(), whole.scalars());
}

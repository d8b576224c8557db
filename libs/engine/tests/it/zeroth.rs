//! Zeroth-order steps move the adapter as the formula says, and not at all when they fail.

use domain::adapter::{Projection, RankTable};
use domain::job::spec::Training;
use domain::zeroth::Steps;
use engine::adapter::{Adapter, Factors};
use engine::bench::{agreement, slopes};
use engine::control::Control;
use engine::data::{Batch, Row};
use engine::evaluate::Evaluator;
use engine::kernel::{Compute, Kernel};
use engine::model::{Base, LoadOptions, Model};
use engine::train::{Replay, ZerothTrainer};

use crate::support::{Tiny, batch, control, options, read, reference, tiny};

/// The default of a job.
const MU: f64 = 1e-2;

/// At [`MU`].
fn how(seed: u64, rate: f64) -> Steps {
    Steps {
        rate,
        ..Steps::of(&Training::default(), seed)
    }
}

fn start(model: &Model) -> Adapter {
    Adapter::load(&reference("tiny-uneven"), &model.weights()).unwrap()
}

/// The file of an adapter after steps done again, tensor by tensor.
fn replayed(start: &Adapter, replay: &Replay) -> Vec<u8> {
    let moved = start.factors().map(|own| {
        let shape = own.shape();
        let (mut a, mut b) = (own.a().to_vec(), own.b().to_vec());
        assert!(replay.apply(&shape.name.peft_a(), &mut a));
        assert!(replay.apply(&shape.name.peft_b(), &mut b));
        Factors::new(shape, own.rank(), a, b).unwrap()
    });
    let moved = Adapter::new(start.scale(), moved).unwrap();
    moved.to_safetensors().unwrap()
}

#[test]
fn at_rate_0_the_adapter_keeps_its_bits() {
    let (model, values): (_, Tiny) = (tiny(), read("tiny.json"));
    let start = start(&model);
    let mut trainer = ZerothTrainer::new(&model, &start, how(7, 0.0), 0).unwrap();
    for rows in &values.batches {
        let step = trainer.step(&batch(rows), &control()).unwrap();
        assert!(step.slope > 0.0);
    }
    assert_eq!(
        trainer.adapter().unwrap().to_safetensors().unwrap(),
        start.to_safetensors().unwrap()
    );
}

#[test]
fn a_step_that_is_cancelled_leaves_the_adapter_and_the_scalars_as_they_were() {
    let (model, values): (_, Tiny) = (tiny(), read("tiny.json"));
    let start = start(&model);
    let rows = batch(&values.batches[0]);
    let mut trainer = ZerothTrainer::new(&model, &start, how(7, 1.0), 0).unwrap();
    let stopped = Control::new();
    stopped.cancel();
    trainer.step(&rows, &stopped).unwrap_err();
    assert_eq!(trainer.adapter().unwrap(), start);
    assert!(trainer.scalars().values().is_empty());
}

#[test]
fn the_same_seed_gives_the_same_bytes_for_any_number_of_threads_and_precision_of_the_base() {
    let values: Tiny = read("tiny.json");
    let trained = |threads, base, seed| {
        let model = Model::load(&reference("tiny.gguf"), &options(base, threads)).unwrap();
        let ranks = RankTable::uniform(&Projection::ALL, 2, 3);
        let adapter = Adapter::initialize(&model.weights(), &ranks, 2.0, 7).unwrap();
        let how = how(seed, 1e-3);
        let mut trainer = ZerothTrainer::new(&model, &adapter, how, 3).unwrap();
        for rows in &values.batches {
            trainer.step(&batch(rows), &control()).unwrap();
        }
        let trained = trainer.adapter().unwrap().to_safetensors().unwrap();
        // Whoever has the start and the scalars has the file.
        let replay = Replay::new().then(&how, 3, &trainer.scalars());
        assert!(replayed(&adapter, &replay) == trained);
        trained
    };
    let want = trained(2, Base::F32, 7);
    for (threads, base) in [(1, Base::F32), (3, Base::F32), (2, Base::Source)] {
        assert!(trained(threads, base, 7) == want, "{threads} {base:?}");
    }
    assert!(
        trained(2, Base::F32, 8) != want,
        "another seed, another direction"
    );
}

/// The projection of the true gradient on a random direction is all a step knows; many steps learn.
#[test]
fn the_loss_falls() {
    let model = tiny();
    let row = |record: usize| Row {
        tokens: (0..12).map(|i| (i * 5 + record as u32 * 3) % 63).collect(),
        labelled: vec![true; 12],
        class: None,
        record,
    };
    let rows = Batch {
        rows: (0..4).map(row).collect(),
    };
    let start = start(&model);
    let mut trainer = ZerothTrainer::new(&model, &start, how(7, 5e-4), 0).unwrap();
    for _ in 0..300 {
        trainer.step(&rows, &control()).unwrap();
    }
    let loss = |adapter: &Adapter| {
        let mut evaluator = Evaluator::new(&model, Some(adapter)).unwrap();
        evaluator.loss(&rows, &control()).unwrap().mean().unwrap()
    };
    let (before, after) = (loss(&start), loss(&trainer.adapter().unwrap()));
    assert!(after < 0.98 * before, "{before} to {after}");
}

fn with_kernel(path: &std::path::Path, base: Base, kernel: Kernel) -> Model {
    let options = LoadOptions {
        kernel,
        ..options(base, 2)
    };
    Model::load(path, &options).unwrap()
}

/// Every kernel in f32 passes the gate, and its figures tell a coarser arithmetic from a finer one.
#[test]
fn a_slope_in_f32_is_the_same_in_every_kernel_and_rounding_is_seen() {
    let values: Tiny = read("tiny.json");
    let batches: Vec<Batch> = values.batches.iter().map(|rows| batch(rows)).collect();
    let run = |kernel: Kernel| {
        let model = with_kernel(&reference("tiny"), Base::F32, kernel);
        slopes(&model, &start(&model), MU, &batches).unwrap()
    };
    let exact = run(Kernel::best(Compute::F32));
    let [mut f32s, mut bf16s, mut int8s] = [0f64; 3];
    for kernel in Kernel::available() {
        let seen = agreement(&exact, &run(kernel));
        let (signs, difference) = (100.0 * seen.signs(), 100.0 * seen.difference());
        println!("{kernel}: signs agree in {signs:.1} %, off by {difference:.2} %");
        let most = match kernel.compute() {
            Compute::F32 => &mut f32s,
            Compute::Bf16 => &mut bf16s,
            Compute::Int8 => &mut int8s,
        };
        *most = most.max(seen.difference());
        assert!(
            kernel.compute() != Compute::F32 || seen.passes(),
            "{kernel}"
        );
    }
    assert!(
        f32s < 0.01 && f32s < bf16s && bf16s < int8s,
        "{f32s} {bf16s} {int8s}"
    );
}

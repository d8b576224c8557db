//! Bases in bf16, int8 and NF4: from every source, with a stated error against `f32`.
//!
//! The tolerances are about twice what was measured when they were written (this binary prints the
//! figures with `--nocapture`); SmolLM2's stand in `docs/engine.md`.

use std::path::Path;

use candle_core::quantized::GgmlDType;
use engine::adapter::Adapter;
use engine::evaluate::Evaluator;
use engine::model::{Base, Error, Model};
use engine::train::{Options, Trainer};
use safetensors::tensor::Dtype;

use crate::made;
use crate::support::{Tiny, batch, control, options, read, reference};

const QUANTIZED: [Base; 3] = [Base::Bf16, Base::Int8, Base::Nf4];

fn load(path: &Path, base: Base) -> Model {
    Model::load(path, &options(base, 2)).unwrap()
}

fn logits(model: &Model) -> Vec<f32> {
    let prompt = read::<Tiny>("tiny.json").prompt;
    let mut evaluator = Evaluator::new(model, None).unwrap();
    evaluator.logits(&prompt, &control()).unwrap()
}

/// `‖got − want‖ / ‖want‖`.
pub fn relative(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |v: f32| f64::from(v) * f64::from(v);
    let error: f64 = got.iter().zip(want).map(|(g, w)| square(g - w)).sum();
    (error / want.iter().copied().map(square).sum::<f64>()).sqrt()
}

/// Relative errors of the logits of a model made for a test, of one block.
const MADE: [f64; 3] = [0.015, 0.05, 0.5];
/// And of the tiny model: two blocks of width 32, its weights fifteen times those of a real one.
const TINY: [f64; 3] = [0.03, 0.1, 0.8];

fn check_every_base(path: &Path, what: &str, tolerances: [f64; 3]) {
    let exact = load(path, Base::F32);
    let want = logits(&exact);
    for (base, tolerance) in QUANTIZED.into_iter().zip(tolerances) {
        let model = load(path, base);
        let error = relative(&logits(&model), &want);
        println!("{what} as {base:?}: {error:.5}");
        assert!(error <= tolerance, "{what} as {base:?}: {error}");
        let exact_bytes = exact.base_bytes();
        assert!(
            model.base_bytes() * 2 < exact_bytes + 4000,
            "{what} as {base:?}"
        );
    }
}

#[test]
fn every_safetensors_type_loads_into_every_base() {
    for kind in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let folder = tempfile::tempdir().unwrap();
        made::folder(folder.path(), kind, |_, _| ());
        check_every_base(folder.path(), &format!("{kind:?}"), TINY);
    }
}

#[test]
fn every_gguf_type_loads_into_every_base() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [
        GgmlDType::F32,
        GgmlDType::F16,
        GgmlDType::BF16,
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
        GgmlDType::Q8K,
    ] {
        let path = made::gguf(folder.path(), kind);
        check_every_base(&path, &format!("{kind:?}"), MADE);
    }
    check_every_base(&reference("tiny.gguf"), "a mixed file", TINY);
}

#[test]
fn the_same_model_from_either_kind_of_file_is_the_same_base() {
    let folder = tempfile::tempdir().unwrap();
    made::folder(folder.path(), Dtype::F32, |_, _| ());
    for base in QUANTIZED {
        let (made, whole) = (load(folder.path(), base), load(&reference("tiny"), base));
        assert_eq!(logits(&made), logits(&whole));
    }
}

/// A weight in bf16 loses nothing in a bf16 base.
#[test]
fn a_bf16_model_is_exact_in_a_bf16_base() {
    let folder = tempfile::tempdir().unwrap();
    made::folder(folder.path(), Dtype::BF16, |_, _| ());
    let want = logits(&load(folder.path(), Base::F32));
    assert_eq!(logits(&load(folder.path(), Base::Bf16)), want);
}

#[test]
fn what_is_no_number_is_refused_with_the_name_of_its_tensor() {
    let name = "model.layers.1.self_attn.v_proj.weight";
    for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX] {
        let folder = tempfile::tempdir().unwrap();
        let change = |tensor: &str, values: &mut [f32]| {
            if tensor == name {
                values[7] = value;
            }
        };
        made::folder(folder.path(), Dtype::F32, change);
        for base in QUANTIZED {
            let error = Model::load(folder.path(), &options(base, 1)).unwrap_err();
            assert!(
                matches!(&error, Error::Value { name: named } if named == name),
                "{error}"
            );
        }
    }
}

/// The losses of 40 steps on the reference batches, four times over.
fn losses(base: Base) -> Vec<f64> {
    let values: Tiny = read("tiny.json");
    let model = load(&reference("tiny"), base);
    let adapter = Adapter::load(&reference("tiny-adapter"), &model.weights()).unwrap();
    let mut trainer = Trainer::new(&model, &adapter, Options::default()).unwrap();
    let batches = values.batches.iter().cycle().take(40);
    batches
        .map(|rows| trainer.step(&batch(rows), 5e-3, &control()).unwrap().loss)
        .collect()
}

#[test]
fn forty_steps_stay_near_those_in_f32() {
    let want = losses(Base::F32);
    for (base, tolerance) in [(Base::Bf16, 0.01), (Base::Int8, 0.04), (Base::Nf4, 0.3)] {
        let got = losses(base);
        let errors = got.iter().zip(&want).map(|(g, w)| (g - w).abs() / w);
        let worst = errors.fold(0.0, f64::max);
        println!(
            "{base:?}: at most {worst:.5} of the loss of a step; last {} in f32 {}",
            got[39], want[39]
        );
        assert!(worst <= tolerance, "{base:?}: {worst}");
    }
    assert!(want[39] < 0.9 * want[0], "there is something to learn");
}

//! Logits and training steps equal those of PyTorch, transformers and PEFT.

use engine::adapter::Adapter;
use engine::evaluate::Evaluator;
use engine::model::{Base, Model};
use engine::train::{Options, Trainer};

use crate::support::{Tiny, Training, batch, close, control, options, read, reference, tiny};

/// Both sides compute in f32; sums are taken in another order.
const LOGITS: f32 = 2e-6;

fn logits(model: &Model, adapter: Option<&Adapter>, prompt: &[u32]) -> Vec<f32> {
    Evaluator::new(model, adapter)
        .unwrap()
        .logits(prompt, &control())
        .unwrap()
}

#[test]
fn logits_of_a_hugging_face_folder_equal_transformers() {
    let want: Tiny = read("tiny.json");
    for base in [Base::Source, Base::F32] {
        let model = Model::load(&reference("tiny"), &options(base, 2)).unwrap();
        close(&logits(&model, None, &want.prompt), &want.logits, LOGITS);
    }
}

/// The file mixes Q8_0, Q4_1, Q4_0, Q5_0, Q5_1, F16, BF16 and F32, with llama.cpp's row order.
#[test]
fn logits_of_a_gguf_file_equal_those_of_the_values_it_decodes_to() {
    let want: Tiny = read("tiny.json");
    let load = |base| Model::load(&reference("tiny.gguf"), &options(base, 2)).unwrap();
    let (source, dense) = (load(Base::Source), load(Base::F32));
    let got = logits(&source, None, &want.prompt);
    close(&got, &want.gguf_logits, LOGITS);
    assert_eq!(
        got,
        logits(&dense, None, &want.prompt),
        "both precisions give the same bits"
    );
    assert!(source.base_bytes() < dense.base_bytes() / 2);
}

#[test]
fn logits_with_adapters_saved_by_peft_equal_peft() {
    let (want, model): (Tiny, _) = (read("tiny.json"), tiny());
    for (name, logits_wanted) in [
        ("tiny-adapter", &want.adapter_logits),
        ("tiny-uneven", &want.uneven_logits),
    ] {
        let adapter = Adapter::load(&reference(name), &model.weights()).unwrap();
        close(
            &logits(&model, Some(&adapter), &want.prompt),
            logits_wanted,
            LOGITS,
        );
    }
}

#[test]
fn ten_training_steps_equal_pytorch() {
    let want: Tiny = read("tiny.json");
    for checkpoint in [false, true] {
        for training in [&want.plain, &want.decayed] {
            let losses = train(&want, training, checkpoint);
            for (step, (got, want)) in losses.iter().zip(&training.losses).enumerate() {
                assert!(
                    (got - want).abs() <= 2e-5 * want,
                    "step {step}: loss {got}, PyTorch {want}"
                );
            }
        }
    }
}

fn train(reference_values: &Tiny, training: &Training, checkpoint: bool) -> Vec<f64> {
    let model = tiny();
    let adapter = Adapter::load(&reference("tiny-adapter"), &model.weights()).unwrap();
    let Training {
        weight_decay,
        clip_norm,
        rate,
        ..
    } = *training;
    let options = Options {
        weight_decay,
        clip_norm,
        checkpoint,
        ..Options::default()
    };
    let mut trainer = Trainer::new(&model, &adapter, options).unwrap();
    let step = |rows: &Vec<_>| trainer.step(&batch(rows), rate, &control()).unwrap().loss;
    reference_values.batches.iter().map(step).collect()
}

//! Every family: logits and gradients of a tiny random checkpoint equal transformers', from its own folder and after
//! an export to GGUF. Values by `tests/reference/make_architectures.py`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use engine::adapter::Adapter;
use engine::data::{Batch, Row};
use engine::evaluate::Evaluator;
use engine::export::{Format, Precision, Request, export};
use engine::generate::{Request as Prompt, greedy};
use engine::model::{Architecture, Base, Model};
use engine::train::{Options, Rule, Trainer};
use serde::Deserialize;

use crate::support::{close, control, options, reference};

#[derive(Deserialize)]
struct Values {
    prompt: Vec<u32>,
    logits: Vec<f32>,
    long: Vec<u32>,
    long_last: Vec<f32>,
    rows: Vec<Labelled>,
    loss: f64,
    gradients: BTreeMap<String, Vec<f32>>,
}

#[derive(Deserialize)]
struct Labelled {
    tokens: Vec<u32>,
    labelled: Vec<bool>,
}

const FAMILIES: [(&str, Architecture); 6] = [
    ("llama3", Architecture::Llama),
    ("mistral", Architecture::Mistral),
    ("qwen2", Architecture::Qwen2),
    ("qwen3", Architecture::Qwen3),
    ("gpt2", Architecture::Gpt2),
    ("gemma3", Architecture::Gemma3),
];

fn folder(name: &str) -> PathBuf {
    reference("architectures").join(name)
}

fn values(name: &str) -> Values {
    let text = std::fs::read(folder(name).join("values.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn load(path: PathBuf) -> Model {
    Model::load(&path, &options(Base::F32, 2)).unwrap()
}

fn logits(model: &Model, adapter: Option<&Adapter>, tokens: &[u32]) -> Vec<f32> {
    let mut evaluator = Evaluator::new(model, adapter).unwrap();
    evaluator.logits(tokens, &control()).unwrap()
}

fn check_logits(model: &Model, want: &Values) {
    // Both sides compute in f32; sums are taken in another order.
    close(&logits(model, None, &want.prompt), &want.logits, 5e-6);
    let long = logits(model, None, &want.long);
    close(&long[long.len() - 64..], &want.long_last, 5e-6);
}

#[test]
fn logits_of_every_family_equal_transformers_from_a_folder_and_from_gguf() {
    for (name, architecture) in FAMILIES {
        let (want, model) = (values(name), load(folder(name)));
        assert_eq!(model.config().architecture, architecture);
        check_logits(&model, &want);

        let place = tempfile::tempdir().unwrap();
        let fresh = place.path().join("fresh");
        let own = Adapter::load(&folder(name).join("adapter"), &model.weights()).unwrap();
        let still = own.factors().map(|factors| {
            let zeros = vec![0.0; factors.b().len()];
            engine::adapter::Factors::new(factors.shape(), 2, factors.a().to_vec(), zeros).unwrap()
        });
        let export_of = engine::adapter::Export {
            base_model: name,
            layers: 2,
        };
        let still = Adapter::new(1.0, still).unwrap();
        still.save(&fresh, &export_of).unwrap();
        let out = place.path().join("out");
        let request = Request {
            adapter: &fresh,
            model: &folder(name),
            format: Format::Gguf,
            precision: Precision::F32,
            output: &out,
            replace: false,
            name,
            labels: &[],
            threads: NonZeroUsize::new(2).unwrap(),
        };
        export(request, &control()).unwrap();
        check_logits(&load(out), &want);
    }
}

/// A step of plain gradient descent at rate 1 moves every value by its gradient.
#[test]
fn gradients_of_every_family_equal_autograd() {
    for (name, _) in FAMILIES {
        let (want, model) = (values(name), load(folder(name)));
        let adapter = Adapter::load(&folder(name).join("adapter"), &model.weights()).unwrap();
        let row = |(record, row): (usize, &Labelled)| Row {
            tokens: row.tokens.clone(),
            labelled: row.labelled.clone(),
            class: None,
            record,
        };
        let batch = Batch {
            rows: want.rows.iter().enumerate().map(row).collect(),
        };
        for checkpoint in [false, true] {
            let options = Options {
                rule: Rule::Sgd { momentum: 0.0 },
                checkpoint,
                ..Options::default()
            };
            let mut trainer = Trainer::new(&model, &adapter, options).unwrap();
            let step = trainer.step(&batch, 1.0, &control()).unwrap();
            assert!((step.loss - want.loss).abs() < 1e-5 * want.loss, "{name}");
            let moved = trainer.adapter().unwrap();
            let largest = want.gradients.values().flatten();
            let largest = largest.fold(0f32, |most, g| most.max(g.abs()));
            for (before, after) in adapter.factors().zip(moved.factors()) {
                let weight = before.shape().name;
                for (key, before, after) in [
                    (weight.peft_a(), before.a(), after.a()),
                    (weight.peft_b(), before.b(), after.b()),
                ] {
                    let want = &want.gradients[&key];
                    assert_eq!(before.len(), want.len());
                    for ((before, after), want) in before.iter().zip(after).zip(want) {
                        let got = before - after;
                        assert!(
                            (got - want).abs() <= 2e-5 * largest,
                            "{name} {key}: {got}, {want}"
                        );
                    }
                }
            }
        }
    }
}

/// Biases, normalized heads and scaled rotations hold in the cache of generation too.
#[test]
fn generation_of_every_family_equals_the_best_next_token_of_the_whole_text() {
    for (name, _) in FAMILIES {
        let (model, prompt) = (load(folder(name)), values(name).prompt);
        let mut text = prompt.clone();
        for _ in 0..6 {
            let all = logits(&model, None, &text);
            let last = &all[(text.len() - 1) * 64..];
            let best = (0..64)
                .max_by(|a, b| last[*a].total_cmp(&last[*b]))
                .unwrap();
            text.push(best as u32);
        }
        let request = Prompt {
            prompt: &prompt,
            limit: 6,
            stop: &[],
        };
        let made = greedy(&model, None, request, &control(), |_| ()).unwrap();
        assert_eq!(made, text[prompt.len()..], "{name}");
    }
}

/// A window is the end of the context: up to it both are the same.
#[test]
fn a_window_ends_the_context() {
    assert_eq!(load(folder("mistral")).config().context, 64);
    assert_eq!(load(folder("llama3")).config().context, 96);
}

//! What GPT-2 and Gemma 3 have of their own: settings, files as they are published, bases and steps of every kind.

use std::fs;
use std::path::Path;

use domain::adapter::{Projection, RankTable};
use domain::job::spec::Training;
use domain::zeroth::Steps;
use engine::adapter::{Adapter, Export};
use engine::data::{Batch, Row};
use engine::evaluate::{Choice, Evaluator};
use engine::export::{Format, Precision, Request, export};
use engine::kernel::{Compute, Kernel};
use engine::model::{Base, Error, LoadOptions, Model};
use engine::train::{Options, Trainer, ZerothTrainer};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

use crate::support::{close, control, options, reference};

const OWN: [&str; 2] = ["gpt2", "gemma3"];
const DECODERS: [&str; 6] = ["llama3", "mistral", "qwen2", "qwen3", "gpt2", "gemma3"];

/// A copy of a family's folder with some settings changed.
fn changed(name: &str, settings: &Map<String, Value>) -> tempfile::TempDir {
    let (from, to) = (
        reference("architectures").join(name),
        tempfile::tempdir().unwrap(),
    );
    for file in [
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        fs::copy(from.join(file), to.path().join(file)).unwrap();
    }
    let mut config: Map<String, Value> =
        serde_json::from_slice(&fs::read(from.join("config.json")).unwrap()).unwrap();
    config.extend(settings.clone());
    fs::write(
        to.path().join("config.json"),
        Value::from(config).to_string(),
    )
    .unwrap();
    to
}

fn with(name: &str, key: &str, value: Value) -> tempfile::TempDir {
    changed(name, &Map::from_iter([(key.to_owned(), value)]))
}

fn values(name: &str) -> Value {
    let path = reference("architectures").join(name).join("values.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).unwrap()
}

fn load(path: &Path, base: Base, compute: Compute) -> Model {
    let options = LoadOptions {
        kernel: Kernel::best(compute),
        ..options(base, 2)
    };
    Model::load(path, &options).unwrap()
}

fn logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let mut evaluator = Evaluator::new(model, None).unwrap();
    evaluator.logits(tokens, &control()).unwrap()
}

/// Scores scaled otherwise, a shorter window, another order of layers and other rotations.
#[test]
fn gemmas_settings_mean_what_they_mean_to_transformers() {
    let values = values("gemma3");
    let other = values["other"]["config"].as_object().unwrap();
    let folder = changed("gemma3", other);
    let model = load(folder.path(), Base::F32, Compute::F32);
    let want: Vec<f32> = numbers(&values["other"]["logits"]);
    close(&logits(&model, &numbers(&values["prompt"])), &want, 5e-6);

    // Files that were published before transformers 5 say the same in other words.
    let mut older = other.clone();
    for (key, value) in [
        ("rope_parameters", Value::Null),
        ("layer_types", Value::Null),
        ("sliding_window_pattern", json!(2)),
        ("rope_theta", json!(500_000.0)),
        ("rope_local_base_freq", json!(20_000.0)),
    ] {
        older.insert(key.to_owned(), value);
    }
    let model = load(changed("gemma3", &older).path(), Base::F32, Compute::F32);
    close(&logits(&model, &numbers(&values["prompt"])), &want, 5e-6);

    // llama.cpp takes some of it as given, so a file for it would be another model.
    let refused = exported(folder.path(), "gemma3", Format::Gguf).unwrap_err();
    let text = whole(&refused);
    assert!(text.contains("Gemma 3 whose layers"), "{text}");
    exported(folder.path(), "gemma3", Format::Merged).unwrap();
}

/// As Gemma 3 of 4B and larger has them: in layers that see everything positions are divided by eight, in the others by nothing.
#[test]
fn gemmas_scaled_rotations_are_those_of_transformers_from_a_folder_and_from_gguf() {
    let values = values("gemma3");
    let scaled = values["scaled"]["config"].as_object().unwrap();
    let (long, want) = (
        numbers::<u32>(&values["long"]),
        numbers::<f32>(&values["scaled"]["long_last"]),
    );
    let check = |path: &Path| {
        let model = load(path, Base::F32, Compute::F32);
        let all = logits(&model, &long);
        close(&all[all.len() - want.len()..], &want, 5e-6);
        model.config().clone()
    };
    let folder = changed("gemma3", scaled);
    let config = check(folder.path());
    assert_eq!(config.rope_factors, [8.0; 4]);
    // As published.
    let older = [
        ("rope_parameters", Value::Null),
        (
            "rope_scaling",
            json!({ "factor": 8.0, "rope_type": "linear" }),
        ),
        ("rope_theta", json!(1_000_000.0)),
        ("rope_local_base_freq", json!(10_000.0)),
    ];
    let older = older.map(|(key, value)| (key.to_owned(), value));
    check(changed("gemma3", &Map::from_iter(older)).path());

    // With an adapter that changes nothing: to a GGUF file, from that to a folder, and from the file to a file.
    let model = load(folder.path(), Base::F32, Compute::F32);
    let nothing = RankTable::uniform(&[Projection::Q], 6, 2);
    let nothing = Adapter::initialize(&model.weights(), &nothing, 1.0, 1).unwrap();
    let place = tempfile::tempdir().unwrap();
    let (adapter, file) = (place.path().join("adapter"), place.path().join("file"));
    let about = Export {
        base_model: "gemma3",
        layers: 6,
    };
    nothing.save(&adapter, &about).unwrap();
    let make = |model: &Path, format: Format, output: &Path| {
        let request = Request {
            adapter: &adapter,
            model,
            format,
            precision: Precision::F32,
            output,
            replace: false,
            name: "gemma3",
            labels: &[],
            threads: std::num::NonZeroUsize::MIN,
        };
        export(request, &control()).unwrap();
        assert_eq!(check(output).rope_factors, config.rope_factors);
    };
    make(folder.path(), Format::Gguf, &file);
    make(&file, Format::Merged, &place.path().join("folder"));
    make(&file, Format::Gguf, &place.path().join("again"));

    // Nobody else's are scaled so.
    let linear = json!({ "rope_type": "linear", "rope_theta": 1e6, "factor": 8.0 });
    let other = with("qwen3", "rope_parameters", linear);
    let refused = Model::load(other.path(), &options(Base::F32, 1)).unwrap_err();
    assert!(refused.to_string().contains("linear"), "{refused}");
}

/// An error with its sources.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn exported(
    model: &Path,
    name: &str,
    format: Format,
) -> Result<tempfile::TempDir, engine::export::Error> {
    let place = tempfile::tempdir().unwrap();
    let request = Request {
        adapter: &reference("architectures").join(name).join("adapter"),
        model,
        format,
        precision: Precision::F32,
        output: &place.path().join("out"),
        replace: false,
        name,
        labels: &[],
        threads: std::num::NonZeroUsize::MIN,
    };
    export(request, &control()).map(|_| place)
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    for (name, key, value, said) in [
        ("gpt2", "activation_function", json!("relu"), "relu"),
        (
            "gpt2",
            "scale_attn_by_inverse_layer_idx",
            json!(true),
            "scaled by layer",
        ),
        (
            "gpt2",
            "add_cross_attention",
            json!(true),
            "beside an encoder",
        ),
        (
            "gemma3",
            "hidden_activation",
            json!("silu"),
            "the activation silu",
        ),
        ("gemma3", "final_logit_softcapping", json!(30.0), "capped"),
        (
            "gemma3",
            "use_bidirectional_attention",
            json!(true),
            "sees what comes after",
        ),
        (
            "gemma3",
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
            "layer_types",
        ),
        ("gemma3", "sliding_window", json!(0), "sliding window"),
        (
            "gemma3",
            "architectures",
            json!(["Gemma3nForCausalLM"]),
            "GPT2LMHeadModel, Gemma3ForCausalLM",
        ),
    ] {
        let folder = with(name, key, value);
        let error: Error = Model::inspect(folder.path()).unwrap_err();
        assert!(error.to_string().contains(said), "{key}: {error}");
    }
}

/// The files that were first published have the names without the model around it.
#[test]
fn gpt2_without_its_output_layer_is_the_same_model() {
    let folder = changed("gpt2", &Map::new());
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let bare = file.tensors().into_iter().map(|(name, view)| {
        let bare = name
            .strip_prefix("transformer.")
            .unwrap_or(&name)
            .to_owned();
        (bare, view)
    });
    let bare = safetensors::serialize(bare.collect::<Vec<_>>(), None).unwrap();
    fs::write(&path, bare).unwrap();
    let (values, model) = (values("gpt2"), load(folder.path(), Base::F32, Compute::F32));
    let want: Vec<f32> = numbers(&values["logits"]);
    close(&logits(&model, &numbers(&values["prompt"])), &want, 5e-6);
}

/// From a folder to GGUF and back to a folder: the transposed weights and the weights less one are the same again.
#[test]
fn a_model_comes_back_from_gguf_as_it_was() {
    for name in OWN {
        let folder = reference("architectures").join(name);
        let gguf = exported(&folder, name, Format::Gguf).unwrap();
        let direct = exported(&folder, name, Format::Merged).unwrap();
        // The adapter's change is in both already: what is added once more is the same.
        let twice = exported(&gguf.path().join("out"), name, Format::Merged).unwrap();
        let again = exported(&direct.path().join("out"), name, Format::Merged).unwrap();
        let tokens: Vec<u32> = numbers(&values(name)["prompt"]);
        let of = |place: &tempfile::TempDir| {
            logits(
                &load(&place.path().join("out"), Base::F32, Compute::F32),
                &tokens,
            )
        };
        close(&of(&twice), &of(&again), 1e-5);
        let config = |place: &tempfile::TempDir| {
            let path = place.path().join("out");
            Model::inspect(&path).unwrap().config
        };
        assert_eq!(config(&twice), config(&again), "{name}");
    }
}

fn batch(name: &str) -> Batch {
    let rows = values(name)["rows"].as_array().unwrap().clone();
    let row = |(record, row): (usize, &Value)| Row {
        tokens: numbers(&row["tokens"]),
        labelled: numbers(&row["labelled"]),
        class: None,
        record,
    };
    Batch {
        rows: rows.iter().enumerate().map(row).collect(),
    }
}

/// The norm of the difference, relative to that of what is wanted.
fn off(got: &[f32], want: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f32>| {
        values.map(|v| f64::from(v * v)).sum::<f64>().sqrt()
    };
    let difference = norm(&mut got.iter().zip(want).map(|(got, want)| got - want));
    difference / norm(&mut want.iter().copied())
}

/// Rounding moves logits by a bounded part of their norm: most in NF4, whose blocks are four rows of so narrow a model and
/// which has nothing to average over; and a few steps lower the loss in each.
#[test]
fn every_base_and_arithmetic_trains() {
    for name in DECODERS {
        let (values, path) = (values(name), reference("architectures").join(name));
        let (want, prompt): (Vec<f32>, _) =
            (numbers(&values["logits"]), numbers(&values["prompt"]));
        for (base, compute, within) in [
            (Base::Source, Compute::F32, 1e-5),
            (Base::Bf16, Compute::F32, 0.03),
            (Base::Int8, Compute::F32, 0.06),
            (Base::Nf4, Compute::F32, 0.8),
            (Base::Bf16, Compute::Bf16, 0.04),
            (Base::Int8, Compute::Int8, 0.1),
        ] {
            let model = load(&path, base, compute);
            let off = off(&logits(&model, &prompt), &want);
            assert!(off < within, "{name} {base:?} {compute:?}: {off}");
            let adapter = Adapter::load(&path.join("adapter"), &model.weights()).unwrap();
            let mut trainer = Trainer::new(&model, &adapter, Options::default()).unwrap();
            let rows = batch(name);
            let first = trainer.step(&rows, 5e-3, &control()).unwrap().loss;
            let mut last = first;
            for _ in 0..10 {
                last = trainer.step(&rows, 5e-3, &control()).unwrap().loss;
            }
            assert!(last < 0.9 * first, "{name} {base:?}: {first} to {last}");
        }
    }
}

/// What is chosen among is what the logits of the prompt with each completion say, whatever the base is held in and multiplied
/// by. The rows of choices are computed together, and logits alone: sums in another order, which in bf16 and int8 are sometimes
/// rounded to the neighbouring value before the next product.
#[test]
fn choices_are_those_of_the_logits_in_every_base_and_arithmetic() {
    let (prompt, first, second) = ([4, 9, 33], [7], [50, 2, 60]);
    for name in DECODERS {
        let path = reference("architectures").join(name);
        for (base, compute, within) in [
            (Base::F32, Compute::F32, 1e-5),
            (Base::Bf16, Compute::F32, 1e-5),
            (Base::Int8, Compute::F32, 1e-5),
            (Base::Nf4, Compute::F32, 1e-5),
            (Base::Bf16, Compute::Bf16, 5e-3),
            (Base::Int8, Compute::Int8, 2e-2),
        ] {
            let model = load(&path, base, compute);
            let wanted = |completion: &[u32]| -> f64 {
                let whole = [&prompt[..], completion].concat();
                let logits = logits(&model, &whole);
                let rows = logits.chunks_exact(model.config().vocabulary);
                // The token behind a position is predicted there.
                let predicted = rows.skip(prompt.len() - 1).zip(completion);
                let log = |(row, token): (&[f32], &u32)| {
                    let total: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
                    f64::from(row[*token as usize]) - total.ln()
                };
                predicted.map(log).sum()
            };
            let asked = Choice {
                prompt: prompt.to_vec(),
                candidates: vec![first.to_vec(), second.to_vec()],
            };
            let mut evaluator = Evaluator::new(&model, None).unwrap();
            let found = evaluator.choices(&[asked], &control()).unwrap();
            for (found, want) in found[0].iter().zip([wanted(&first), wanted(&second)]) {
                let off = (found - want).abs() / want.abs();
                assert!(off < within, "{name} {base:?} {compute:?}: {off}");
            }
        }
    }
}

/// What a zeroth-order step measures is what the first-order gradient says, along its own direction; and rate 0 moves nothing.
#[test]
fn zeroth_order_steps_walk_down() {
    for name in DECODERS {
        let path = reference("architectures").join(name);
        let model = load(&path, Base::F32, Compute::F32);
        let adapter = Adapter::load(&path.join("adapter"), &model.weights()).unwrap();
        let still = Steps {
            rate: 0.0,
            ..Steps::of(&Training::default(), 7)
        };
        let mut trainer = ZerothTrainer::new(&model, &adapter, still, 0).unwrap();
        trainer.step(&batch(name), &control()).unwrap();
        assert_eq!(trainer.adapter().unwrap(), adapter);
        let walking = Steps {
            rate: 1e-3,
            ..Steps::of(&Training::default(), 7)
        };
        let mut trainer = ZerothTrainer::new(&model, &adapter, walking, 0).unwrap();
        let loss = |adapter: &Adapter| {
            let mut trainer = Trainer::new(&model, adapter, Options::default()).unwrap();
            trainer.step(&batch(name), 0.0, &control()).unwrap().loss
        };
        let before = loss(&adapter);
        for _ in 0..100 {
            trainer.step(&batch(name), &control()).unwrap();
        }
        let after = loss(&trainer.adapter().unwrap());
        assert!(after < before, "{name}: {before} to {after}");
    }
}

/// PEFT finds the modules by these names (`tests/peft/check_exports.py` loads them there).
#[test]
fn an_adapter_of_gpt2_has_pefts_names() {
    let path = reference("architectures/gpt2");
    let model = load(&path, Base::F32, Compute::F32);
    let ranks = RankTable::uniform(&[Projection::CAttn, Projection::MlpCProj], 2, 3);
    let adapter = Adapter::initialize(&model.weights(), &ranks, 2.0, 7).unwrap();
    let export = Export {
        base_model: "gpt2",
        layers: 2,
    };
    let said: Value = serde_json::from_str(&adapter.peft_config(&export).unwrap()).unwrap();
    assert_eq!(said["target_modules"], json!(["c_attn", "mlp.c_proj"]));
    assert_eq!(said["fan_in_fan_out"], json!(true));
    let bytes = adapter.to_safetensors().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let key = "base_model.model.transformer.h.1.attn.c_attn.lora_B.weight";
    assert_eq!(file.tensor(key).unwrap().shape(), [48, 3]);
    let key = "base_model.model.transformer.h.0.mlp.c_proj.lora_A.weight";
    assert_eq!(file.tensor(key).unwrap().shape(), [3, 64]);
}

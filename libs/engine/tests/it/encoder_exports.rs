//! An encoder, its adapter and its head as one model: a folder that says what transformers says of the three
//! (`tests/reference/make_encoder.py`), whether the head is the model's own or comes with the adapter.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use engine::compute;
use engine::export::{Error, Exported, Format, Precision, Request, export};
use engine::model::{Architecture, Base, Model};
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};

use crate::encoder::{batch, classes, folder, logs, values};
use crate::support::{close, control, options};

/// Tables, normalizations, pooler and head, and in each of two layers six weights with biases and two normalizations.
const TENSORS: usize = 5 + 2 + 2 + 2 * (6 * 2 + 2 * 2);

fn exported(
    (model, adapter): (&Path, &Path),
    (format, precision): (Format, Precision),
    labels: &[&str],
    output: &Path,
) -> Result<Exported, Error> {
    let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    let request = Request {
        adapter,
        model,
        format,
        precision,
        output,
        replace: false,
        name: "tiny",
        labels: &labels,
        threads: NonZeroUsize::new(2).unwrap(),
    };
    export(request, &control())
}

fn merged(model: &Path, precision: Precision, labels: &[&str], output: &Path) -> Exported {
    let adapter = folder().join("adapter");
    let done = exported(
        (model, &adapter),
        (Format::Merged, precision),
        labels,
        output,
    );
    done.unwrap()
}

/// The same encoder as published without a head: bare names, and a configuration that names no classes.
fn without_head(place: &Path) -> PathBuf {
    let (from, to) = (folder(), place.join("bare"));
    fs::create_dir(&to).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let mut config = json_of(&from.join("config.json"));
    config["architectures"] = json!(["BertModel"]);
    for key in ["id2label", "label2id"] {
        config.as_object_mut().unwrap().remove(key);
    }
    fs::write(to.join("config.json"), config.to_string()).unwrap();
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let bare = file.iter().filter_map(|(name, view)| {
        let name = name.strip_prefix("bert.")?;
        Some((name.to_owned(), view))
    });
    fs::write(to.join("model.safetensors"), serialize(bare, None).unwrap()).unwrap();
    to
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// transformers' logits of the encoder with PEFT's adapter, now of one model.
fn says_what_transformers_says(path: &Path) {
    let want = values();
    let model = Model::load(path, &options(Base::F32, 2)).unwrap();
    assert_eq!(model.config().architecture, Architecture::Bert);
    let logits: Vec<f32> = want
        .adapted_logits
        .iter()
        .flat_map(|row| logs(row))
        .collect();
    close(&classes(&model, None, &batch(&want.rows)), &logits, 1e-5);
}

#[test]
fn an_encoder_with_its_adapter_and_head_becomes_one_model() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let done = merged(&folder(), Precision::Source, &[], &out);
    assert_eq!(done.tensors, TENSORS);
    assert!(done.logits_off <= 1e-5, "{done:?}");
    says_what_transformers_says(&out);
    let (config, own) = (out.join("config.json"), folder().join("config.json"));
    let (config, own) = (json_of(&config), json_of(&own));
    assert_eq!(config["id2label"], own["id2label"]);
    assert_eq!(config["label2id"], own["label2id"]);
    assert_eq!(config["num_labels"], 3);
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let bytes = |place: &Path| fs::read(place.join(name)).unwrap();
        assert_eq!(bytes(&out), bytes(&folder()), "{name}");
    }
}

#[test]
fn a_head_that_the_adapter_brings_is_part_of_the_model_with_the_names_of_its_classes() {
    let place = tempfile::tempdir().unwrap();
    let bare = without_head(place.path());
    let out = place.path().join("out");
    let labels = ["meeting", "goal", "money"];
    let done = merged(&bare, Precision::Source, &labels, &out);
    assert_eq!(done.tensors, TENSORS);
    says_what_transformers_says(&out);
    let config = json_of(&out.join("config.json"));
    assert_eq!(
        config["architectures"],
        json!(["BertForSequenceClassification"])
    );
    let names = json!({"0": "meeting", "1": "goal", "2": "money"});
    assert_eq!(config["id2label"], names);
    let unnamed = place.path().join("unnamed");
    merged(&bare, Precision::F32, &[], &unnamed);
    let config = json_of(&unnamed.join("config.json"));
    assert_eq!(config["label2id"]["LABEL_2"], 2);
}

#[test]
fn a_merged_encoder_in_sixteen_bits_stays_within_the_stated_bounds() {
    let place = tempfile::tempdir().unwrap();
    for (precision, dtype) in [(Precision::F16, "float16"), (Precision::Bf16, "bfloat16")] {
        let out = place.path().join(dtype);
        let done = merged(&folder(), precision, &[], &out);
        let half = done.logits_bound / 2.0;
        assert!(done.logits_off > 0.0 && done.logits_off < half, "{done:?}");
        assert_eq!(json_of(&out.join("config.json"))["dtype"], dtype);
    }
}

#[test]
fn what_no_merged_encoder_can_be_is_refused_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let adapter = folder().join("adapter");
    let own = (folder(), adapter.clone());
    let refused = |model: &Path, adapter: &Path, format, labels: &[&str]| {
        let how = (format, Precision::F32);
        let error = exported((model, adapter), how, labels, &out).unwrap_err();
        assert!(!out.exists());
        error
    };
    for format in [Format::Gguf, Format::GgufLora] {
        let error = refused(&own.0, &own.1, format, &[]);
        assert!(matches!(error, Error::Encoder), "{error:?}");
    }
    let error = refused(&own.0, &own.1, Format::Merged, &["ham", "spam"]);
    assert!(
        matches!(
            error,
            Error::Labels {
                labels: 2,
                classes: 3
            }
        ),
        "{error:?}"
    );

    // Neither side has a head.
    let bare = without_head(place.path());
    let headless = place.path().join("headless");
    fs::create_dir(&headless).unwrap();
    let mut config = json_of(&adapter.join("adapter_config.json"));
    config["modules_to_save"] = Value::Null;
    fs::write(headless.join("adapter_config.json"), config.to_string()).unwrap();
    let bytes = fs::read(adapter.join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let factors = file.iter().filter(|(name, _)| !name.contains("classifier"));
    let path = headless.join("adapter_model.safetensors");
    fs::write(path, serialize(factors, None).unwrap()).unwrap();
    let error = refused(&bare, &headless, Format::Merged, &[]);
    let none = matches!(error, Error::Compute(compute::Error::NoHead));
    assert!(none, "{error:?}");
}

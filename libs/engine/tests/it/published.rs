//! BERT as it was first published: the classes of its training, normalizations under TensorFlow's names, and a tokenizer whose
//! special tokens no file names. Values by `tests/reference/make_encoder.py`, whose checkpoint is written so.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use engine::export::{Format, Precision, Request, export};
use engine::model::{Architecture, Base, Error, Model};
use safetensors::{SafeTensors, serialize};
use serde_json::json;

use crate::encoder::{batch, classes, encoder, folder, label, logs, values};
use crate::encoders::{FAMILIES, json_of, said};
use crate::support::{close, control, options};

/// The tiny BERT without its head, of this class, its tensors called so, or left out.
fn published(place: &Path, class: &str, called: impl Fn(&str) -> Option<String>) -> PathBuf {
    let (from, to) = (folder(), place.join(class));
    fs::create_dir(&to).unwrap();
    fs::copy(from.join("tokenizer.json"), to.join("tokenizer.json")).unwrap();
    let tokenizer = json!({"do_lower_case": true, "model_max_length": 48});
    fs::write(to.join("tokenizer_config.json"), tokenizer.to_string()).unwrap();
    let mut config = json_of(&from.join("config.json"));
    config["architectures"] = json!([class]);
    for key in ["id2label", "label2id"] {
        config.as_object_mut().unwrap().remove(key);
    }
    fs::write(to.join("config.json"), config.to_string()).unwrap();
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let bare = file.iter().filter(|(name, _)| !name.contains("classifier"));
    let bare = bare.filter_map(|(name, view)| Some((called(name)?, view)));
    fs::write(to.join("model.safetensors"), serialize(bare, None).unwrap()).unwrap();
    to
}

fn older(name: &str) -> String {
    let of = |part: &str, own: &str| Some(format!("{}.{own}", name.strip_suffix(part)?));
    let weight = of(".LayerNorm.weight", "LayerNorm.gamma");
    let bias = of(".LayerNorm.bias", "LayerNorm.beta");
    weight.or(bias).unwrap_or_else(|| name.to_owned())
}

#[test]
fn a_checkpoint_of_its_first_training_says_what_transformers_says() {
    let place = tempfile::tempdir().unwrap();
    let whole = |name: &str| Some(older(name));
    let alone = |name: &str| Some(older(name.strip_prefix("bert.")?));
    let own = Model::load(&folder(), &options(Base::F32, 2)).unwrap();
    let (head, want) = (own.head().unwrap(), values());
    let logits: Vec<f32> = want.logits.iter().flat_map(|row| logs(row)).collect();
    for path in [
        published(place.path(), "BertForMaskedLM", whole),
        published(place.path(), "BertForPreTraining", alone),
    ] {
        let mut model = Model::load(&path, &options(Base::F32, 2)).unwrap();
        assert_eq!(model.config().architecture, Architecture::Bert);
        assert!(model.head().is_none());
        let words = encoder(&model, |_| ());
        for text in &want.texts {
            let row = words.row(0, &label(&text.text, "spam")).unwrap();
            assert_eq!(row.tokens, text.ids, "{:?}", text.text);
        }
        model.set_head(head.clone()).unwrap();
        let found = classes(&model, None, &batch(&want.rows));
        close(&found, &logits, 5e-6);
    }
}

/// Nor does any file of the first `DistilBERT` name them.
#[test]
fn distilberts_unnamed_special_tokens_are_those_of_its_tokenizer() {
    let place = tempfile::tempdir().unwrap();
    let [_, distilbert] = &FAMILIES;
    let path = said(distilbert, place.path(), &[]);
    fs::write(path.join("tokenizer_config.json"), "{}").unwrap();
    let model = Model::load(&path, &options(Base::F32, 2)).unwrap();
    let words = encoder(&model, |_| ());
    for text in distilbert.values().texts {
        let row = words.row(0, &label(&text.text, "spam")).unwrap();
        assert_eq!(row.tokens, text.ids, "{:?}", text.text);
    }
}

/// What is exported has today's names: transformers' own of the class.
#[test]
fn an_export_of_it_has_todays_names() {
    let place = tempfile::tempdir().unwrap();
    let path = published(place.path(), "BertForMaskedLM", |name| Some(older(name)));
    let out = place.path().join("out");
    let adapter = folder().join("adapter");
    let request = Request {
        adapter: &adapter,
        model: &path,
        format: Format::Merged,
        precision: Precision::Source,
        output: &out,
        replace: false,
        name: "tiny",
        labels: &[],
        threads: NonZeroUsize::new(2).unwrap(),
    };
    export(request, &control()).unwrap();
    let names = |folder: &Path| {
        let bytes = fs::read(folder.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut names: Vec<String> = file.names().into_iter().map(String::from).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(&out), names(&folder()));
    let class = &json_of(&out.join("config.json"))["architectures"][0];
    assert_eq!(class, "BertForSequenceClassification");
}

/// As transformers saves it without what its class does not use: the first token would go through a layer that nobody trained.
#[test]
fn a_checkpoint_without_the_pooler_is_refused_by_its_name() {
    let place = tempfile::tempdir().unwrap();
    let path = published(place.path(), "BertForMaskedLM", |name| {
        let pooler = name.contains("pooler");
        (!pooler).then(|| name.to_owned())
    });
    let refused = Model::load(&path, &options(Base::F32, 2)).map(drop);
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("pooler.dense.weight is missing"), "{said}");
}

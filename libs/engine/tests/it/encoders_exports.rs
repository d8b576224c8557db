//! `RoBERTa`, `XLM-RoBERTa` and `DistilBERT` with their adapters and heads as one model, and their adapters in PEFT's words
//! (`tests/reference/make_encoders.py`).

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use engine::adapter::Export;
use engine::export::{Error, Exported, Format, Precision, Request, export};
use engine::model::{Architecture, Base, Model};
use safetensors::SafeTensors;
use serde_json::json;

use crate::encoder::{batch, classes};
use crate::encoders::{FAMILIES, Family, json_of, said, tensors, without_head, written};
use crate::support::{close, control, options};

fn exported(
    (family, model): (&Family, &Path),
    format: Format,
    output: &Path,
) -> Result<Exported, Error> {
    let adapter = family.folder().join("adapter");
    let request = Request {
        adapter: &adapter,
        output,
        ..request(model, format)
    };
    export(request, &control())
}

/// Of whose paths the caller gives those of adapter and output.
fn request(model: &Path, format: Format) -> Request<'_> {
    Request {
        adapter: model,
        model,
        format,
        precision: Precision::Source,
        output: model,
        replace: false,
        name: "tiny",
        labels: &[],
        threads: NonZeroUsize::new(2).unwrap(),
    }
}

#[test]
fn a_merged_model_says_what_transformers_says_whoever_brings_the_head() {
    for family in &FAMILIES {
        let place = tempfile::tempdir().unwrap();
        let bare = without_head(family, place.path());
        for (at, model) in [("own", family.folder()), ("brought", bare)] {
            let out = place.path().join(at);
            let done = exported((family, &model), Format::Merged, &out).unwrap();
            assert_eq!(done.tensors, family.tensors);
            let merged = Model::load(&out, &options(Base::F32, 2)).unwrap();
            assert_eq!(merged.config(), family.load(Base::F32).config());
            let got = classes(&merged, None, &batch(&family.values().rows));
            close(&got, &family.wanted(true), 1e-5);
            let config = json_of(&out.join("config.json"));
            assert_eq!(config["architectures"], json!([family.class]));
            // Every tensor has the name that transformers gives it.
            let bytes = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
            let (own, theirs) = (bytes(&out), bytes(&family.folder()));
            let names = |bytes: &[u8]| -> Vec<String> {
                let file = SafeTensors::deserialize(bytes).unwrap();
                let mut names: Vec<String> = file.names().into_iter().map(String::from).collect();
                names.sort_unstable();
                names
            };
            assert_eq!(names(&own), names(&theirs));
        }
        let out = place.path().join("peft");
        exported((family, &family.folder()), Format::Peft, &out).unwrap();
        assert_eq!(tensors(&out), tensors(&family.folder().join("adapter")));
        // Factors alone have the family's names as well.
        let own = family.adapter(&family.load(Base::F32)).with_head(None);
        let (bare, out) = (place.path().join("factors"), place.path().join("named"));
        let about = Export {
            base_model: "encoder",
            layers: 2,
        };
        own.save(&bare, &about).unwrap();
        let theirs = written(&family.adapter(&family.load(Base::F32)));
        let model = family.folder();
        let request = Request {
            adapter: &bare,
            output: &out,
            ..request(&model, Format::Peft)
        };
        export(request, &control()).unwrap();
        let found = tensors(&out);
        assert_eq!(found.len(), 2 * 6 * 2);
        for (key, values) in found {
            assert_eq!(theirs[&key], values, "{key}");
        }
        for format in [Format::Gguf, Format::GgufLora] {
            let refused = exported((family, &family.folder()), format, &place.path().join("no"));
            assert!(matches!(refused, Err(Error::Encoder)));
        }
    }
}

/// The script that made the values checks that it is so in transformers.
#[test]
fn xlm_roberta_is_roberta_of_another_name() {
    let [roberta, _] = &FAMILIES;
    let place = tempfile::tempdir().unwrap();
    let class = "XLMRobertaForSequenceClassification";
    let settings = [
        ("architectures", json!([class])),
        ("model_type", json!("xlm-roberta")),
    ];
    let folder = said(roberta, place.path(), &settings);
    let model = Model::load(&folder, &options(Base::F32, 2)).unwrap();
    assert_eq!(model.config().architecture, Architecture::XlmRoberta);
    let batch = batch(&roberta.values().rows);
    close(&classes(&model, None, &batch), &roberta.wanted(false), 5e-6);
    let out = place.path().join("out");
    exported((roberta, &folder), Format::Merged, &out).unwrap();
    let config = json_of(&out.join("config.json"));
    assert_eq!(config["architectures"], json!([class]));
    assert_eq!(config["model_type"], "xlm-roberta");
}

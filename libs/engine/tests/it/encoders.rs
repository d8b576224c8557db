//! `RoBERTa`, `XLM-RoBERTa` and `DistilBERT`: ids, logits and gradients of tiny random checkpoints for sequence classification equal
//! transformers', their adapters with heads PEFT's. Values by `tests/reference/make_encoders.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use domain::adapter::{Encoder, HeadShape, Projection, RankTable};
use engine::adapter::{Adapter, Error, Export, Head};
use engine::compute;
use engine::evaluate::Evaluator;
use engine::kernel::{Compute, Kernel};
use engine::model::{self, Architecture, Base, LoadOptions, Model};
use engine::train::{Options, Rule, Trainer};
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};

use crate::bases::relative;
use crate::encoder::{Classified, Values, batch, classes, encoder, label, logs};
use crate::support::{close, control, options, read, reference};

/// A family with a fixture.
pub struct Family {
    pub name: &'static str,
    pub architecture: Architecture,
    pub encoder: Encoder,
    /// PEFT's modules of its head.
    pub modules: &'static [&'static str],
    /// Its class in transformers.
    pub class: &'static str,
    /// The class of what is published without a head.
    pub bare: &'static str,
    /// Tensors of it with its head.
    pub tensors: usize,
}

/// Two layers have six weights with biases and two normalizations; beside them two or three tables, a normalization, and a head of
/// two layers.
const OF_LAYERS: usize = 2 * (6 * 2 + 2 * 2);

pub const FAMILIES: [Family; 2] = [
    Family {
        name: "roberta",
        architecture: Architecture::Roberta,
        encoder: Encoder::Roberta,
        modules: &["classifier"],
        class: "RobertaForSequenceClassification",
        bare: "RobertaForMaskedLM",
        tensors: 3 + 2 + 4 + OF_LAYERS,
    },
    Family {
        name: "distilbert",
        architecture: Architecture::Distilbert,
        encoder: Encoder::Distilbert,
        modules: &["pre_classifier", "classifier"],
        class: "DistilBertForSequenceClassification",
        bare: "DistilBertForMaskedLM",
        tensors: 2 + 2 + 4 + OF_LAYERS,
    },
];

impl Family {
    pub fn folder(&self) -> PathBuf {
        reference("encoders").join(self.name)
    }

    pub fn values(&self) -> Values {
        read(&format!("encoders/{}/values.json", self.name))
    }

    pub fn load(&self, base: Base) -> Model {
        Model::load(&self.folder(), &options(base, 2)).unwrap()
    }

    pub fn adapter(&self, model: &Model) -> Adapter {
        Adapter::load(&self.folder().join("adapter"), &model.weights()).unwrap()
    }

    /// Logarithms of the probabilities that transformers finds, with the adapter or without.
    pub fn wanted(&self, adapted: bool) -> Vec<f32> {
        let values = self.values();
        let logits = if adapted {
            values.adapted_logits
        } else {
            values.logits
        };
        logits.iter().flat_map(|row| logs(row)).collect()
    }
}

#[test]
fn ids_and_logits_equal_transformers() {
    for family in &FAMILIES {
        let (model, want) = (family.load(Base::F32), family.values());
        assert_eq!(model.config().architecture, family.architecture);
        // RoBERTa's table has two rows that no text reaches.
        assert_eq!(model.config().context, 48);
        let words = encoder(&model, |_| ());
        for text in &want.texts {
            let row = words.row(0, &label(&text.text, "spam")).unwrap();
            assert_eq!(row.tokens, text.ids, "{} {:?}", family.name, text.text);
        }
        let batch = batch(&want.rows);
        let adapter = family.adapter(&model);
        for (adapter, adapted) in [(None, false), (Some(&adapter), true)] {
            let got = classes(&model, adapter, &batch);
            close(&got, &family.wanted(adapted), 5e-6);
        }
    }
}

/// A step of plain gradient descent at rate 1 moves every value by its gradient.
#[test]
fn gradients_of_factors_and_both_layers_of_the_head_equal_autograd() {
    for family in &FAMILIES {
        let (model, want) = (family.load(Base::F32), family.values());
        let (adapter, batch) = (family.adapter(&model), batch(&want.rows));
        let largest = want.gradients.values().flatten();
        let largest = largest.fold(0f32, |most, g| most.max(g.abs()));
        let options = Options {
            rule: Rule::Sgd { momentum: 0.0 },
            ..Options::default()
        };
        let mut trainer = Trainer::new(&model, &adapter, options).unwrap();
        let step = trainer.step(&batch, 1.0, &control()).unwrap();
        assert!((step.loss - want.loss).abs() < 1e-5 * want.loss);
        let moved = trainer.adapter().unwrap();
        let (mut before, after) = (written(&adapter), written(&moved));
        assert_eq!(before.len(), want.gradients.len());
        for (key, want) in &want.gradients {
            let before = before.remove(key).unwrap_or_else(|| panic!("no {key}"));
            for ((before, after), want) in before.iter().zip(&after[key]).zip(want) {
                let got = before - after;
                assert!((got - want).abs() <= 2e-5 * largest, "{key}: {got}, {want}");
            }
        }
    }
}

/// The values of the file that PEFT reads.
pub fn written(adapter: &Adapter) -> BTreeMap<String, Vec<f32>> {
    let place = tempfile::tempdir().unwrap();
    let export = Export {
        base_model: "encoder",
        layers: 2,
    };
    adapter.save(place.path(), &export).unwrap();
    tensors(place.path())
}

pub fn tensors(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(folder.join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let value = |four: &[u8]| f32::from_le_bytes(four.try_into().unwrap());
    let all = file.tensors().into_iter();
    all.map(|(name, view)| (name, view.data().chunks_exact(4).map(value).collect()))
        .collect()
}

#[test]
fn adapters_are_written_as_peft_writes_them_and_read_again() {
    for family in &FAMILIES {
        let model = family.load(Base::F32);
        let own = family.adapter(&model);
        assert_eq!(own.head().unwrap().shape().encoder, family.encoder);
        assert_eq!(written(&own), tensors(&family.folder().join("adapter")));
        let place = tempfile::tempdir().unwrap();
        let export = Export {
            base_model: "encoder",
            layers: 2,
        };
        own.save(place.path(), &export).unwrap();
        assert_eq!(Adapter::load(place.path(), &model.weights()).unwrap(), own);
        let config = json_of(&place.path().join("adapter_config.json"));
        assert_eq!(config["modules_to_save"], json!(family.modules));
        let theirs = json_of(&family.folder().join("adapter/adapter_config.json"));
        let names = |config: &Value| -> Vec<String> {
            let mut names: Vec<String> =
                serde_json::from_value(config["target_modules"].clone()).unwrap();
            names.sort_unstable();
            names
        };
        assert_eq!(names(&config), names(&theirs));

        // Modules may be named by their ends, as people write them.
        let mut short = theirs;
        short["target_modules"] = match family.encoder {
            Encoder::Distilbert => {
                json!(["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"])
            }
            _ => json!(["query", "key", "value", "dense"]),
        };
        let bytes = fs::read(family.folder().join("adapter/adapter_model.safetensors")).unwrap();
        let short = serde_json::to_vec(&short).unwrap();
        let again = Adapter::from_peft(&bytes, &short, &model.weights());
        assert_eq!(again.unwrap(), own, "{}", family.name);

        // Half of a head is none.
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let is_dense = |name: &str| name.contains("classifier.dense") || name.contains("pre_class");
        let half = file.iter().filter(|(name, _)| !is_dense(name));
        let half = serialize(half, None).unwrap();
        let refused = Adapter::from_peft(&half, &short, &model.weights());
        let named = matches!(&refused, Err(Error::Missing { key }) if is_dense(key));
        assert!(named, "{refused:?}");
    }
}

pub fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// As of BERT (`it/encoder.rs`): logits within a bound of those in f32, and a few steps lower the loss, in each base and
/// arithmetic.
#[test]
fn every_base_and_arithmetic_learns_classes() {
    for family in &FAMILIES {
        let want = family.values();
        let batch = batch(&want.rows);
        let exact = classes(&family.load(Base::F32), None, &batch);
        for (base, compute, bound) in [
            (Base::Source, Compute::F32, 1e-6),
            (Base::Bf16, Compute::F32, 0.02),
            (Base::Int8, Compute::F32, 0.05),
            (Base::Nf4, Compute::F32, 0.3),
            (Base::Bf16, Compute::Bf16, 0.04),
            (Base::Int8, Compute::Int8, 0.1),
        ] {
            let options = LoadOptions {
                kernel: Kernel::best(compute),
                ..options(base, 2)
            };
            let model = Model::load(&family.folder(), &options).unwrap();
            let off = relative(&classes(&model, None, &batch), &exact);
            assert!(off <= bound, "{} {base:?} {compute:?}: {off}", family.name);
            let adapter = family.adapter(&model);
            let mut trainer = Trainer::new(&model, &adapter, Options::default()).unwrap();
            let first = trainer.step(&batch, 1e-2, &control()).unwrap().loss;
            let mut last = first;
            for _ in 0..10 {
                last = trainer.step(&batch, 1e-2, &control()).unwrap().loss;
            }
            assert!(
                last < 0.9 * first,
                "{} {base:?} {compute:?}: {first} to {last}",
                family.name
            );
        }
    }
}

/// From what is published, which has no head: the dense layer is learned with the rest.
#[test]
fn a_fresh_head_on_a_model_without_one_learns_to_tell_classes_apart() {
    for family in &FAMILIES {
        let place = tempfile::tempdir().unwrap();
        let bare = without_head(family, place.path());
        let model = Model::load(&bare, &options(Base::F32, 2)).unwrap();
        assert!(model.head().is_none());
        let ranks = RankTable::uniform(&[Projection::Q, Projection::Up], 2, 2);
        let shape = HeadShape {
            encoder: family.encoder,
            classes: 2,
            width: 16,
        };
        let head = Head::fresh(shape, 5).unwrap();
        let start = Adapter::initialize(&model.weights(), &ranks, 2.0, 5).unwrap();
        let start = start.with_head(Some(head.clone()));
        let mut rows = family.values().rows;
        rows.truncate(2);
        for (class, row) in (0u32..).zip(&mut rows) {
            let tokens = std::mem::take(&mut row.tokens);
            *row = Classified { tokens, class };
        }
        let batch = batch(&rows);
        let mut trainer = Trainer::new(&model, &start, Options::default()).unwrap();
        for _ in 0..80 {
            trainer.step(&batch, 2e-2, &control()).unwrap();
        }
        let trained = trainer.adapter().unwrap();
        let (before, after) = (written(&start), written(&trained));
        for tensor in shape.tensors() {
            let key = tensor.peft();
            assert_ne!(before[&key], after[&key], "{key}");
        }
        let found = classes(&model, Some(&trained), &batch);
        assert!(found[0] > -0.1 && found[3] > -0.1, "{found:?}");
    }
}

/// The same encoder as published without a head: its configuration names another class, and no classes.
pub fn without_head(family: &Family, place: &Path) -> PathBuf {
    let (from, to) = (family.folder(), place.join("bare"));
    fs::create_dir(&to).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let mut config = json_of(&from.join("config.json"));
    config["architectures"] = json!([family.bare]);
    for key in ["id2label", "label2id"] {
        config.as_object_mut().unwrap().remove(key);
    }
    fs::write(to.join("config.json"), config.to_string()).unwrap();
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let bare = file.iter().filter(|(name, _)| !name.contains("classifier"));
    fs::write(to.join("model.safetensors"), serialize(bare, None).unwrap()).unwrap();
    to
}

/// A copy of a family's folder whose configuration says this.
pub fn said(family: &Family, place: &Path, settings: &[(&str, Value)]) -> PathBuf {
    let to = place.join("said");
    fs::create_dir_all(&to).unwrap();
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    ] {
        fs::copy(family.folder().join(name), to.join(name)).unwrap();
    }
    let mut config = json_of(&family.folder().join("config.json"));
    for (key, value) in settings {
        config[key] = value.clone();
    }
    fs::write(to.join("config.json"), config.to_string()).unwrap();
    to
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let [roberta, distilbert] = &FAMILIES;
    let place = tempfile::tempdir().unwrap();
    let refused = |family: &Family, settings: &[(&str, Value)]| {
        let folder = said(family, place.path(), settings);
        let error = Model::load(&folder, &options(Base::F32, 2)).map(drop);
        error.unwrap_err()
    };
    for (family, key) in [(roberta, "hidden_act"), (distilbert, "activation")] {
        let error = refused(family, &[(key, json!("relu"))]);
        assert!(
            matches!(&error, model::Error::Feature { what } if what.contains("relu")),
            "{error}"
        );
    }
    let relative = json!("relative_key");
    let error = refused(roberta, &[("position_embedding_type", relative)]);
    assert!(error.to_string().contains("relative_key"), "{error}");
    let error = refused(roberta, &[("max_position_embeddings", json!(2))]);
    assert!(error.to_string().contains("context length"), "{error}");
    // Of the same tensors, and not tested.
    for other in [
        "CamembertForSequenceClassification",
        "RobertaForTokenClassification",
    ] {
        let error = refused(roberta, &[("architectures", json!([other]))]).to_string();
        for part in [other, "RobertaModel", "DistilBertForSequenceClassification"] {
            assert!(error.contains(part), "{error}");
        }
    }

    // A head is of its own family: a layer more or less is another classifier.
    let model = roberta.load(Base::F32);
    for encoder in [Encoder::Bert, Encoder::Distilbert] {
        let shape = HeadShape {
            encoder,
            classes: 3,
            width: 16,
        };
        let head = Head::fresh(shape, 5).unwrap();
        let own = roberta.adapter(&model).with_head(Some(head));
        let refused = Evaluator::new(&model, Some(&own)).map(drop).unwrap_err();
        assert!(
            matches!(refused, compute::Error::HeadFamily { .. }),
            "{refused}"
        );
    }
}

//! Encoders: ids, logits and gradients of a tiny random `BertForSequenceClassification` equal transformers', its adapter and head
//! PEFT's, and what an encoder does not do is refused. Values by `tests/reference/make_encoder.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use domain::adapter::{
    Encoder as Family, HEAD_BIAS, HEAD_WEIGHT, HeadShape, Projection, RankTable,
};
use domain::job::spec::Training;
use domain::zeroth::Steps;
use engine::adapter::{Adapter, Error, Export, Head};
use engine::compute;
use engine::data::{Batch, EncodeOptions, Encoder, Record, Refusal, Row, Truncate};
use engine::evaluate::Evaluator;
use engine::export::{self, gguf_lora};
use engine::generate::{Request, greedy};
use engine::kernel::{Compute, Kernel};
use engine::model::{Architecture, Base, LoadOptions, Model};
use engine::train::{self, Options, Rule, Trainer, ZerothTrainer};
use serde::Deserialize;

use crate::bases::relative;
use crate::support::{close, control, options, read, reference, tiny};

#[derive(Deserialize)]
pub struct Values {
    pub texts: Vec<Text>,
    pub rows: Vec<Classified>,
    pub logits: Vec<Vec<f32>>,
    pub adapted_logits: Vec<Vec<f32>>,
    pub loss: f64,
    pub gradients: BTreeMap<String, Vec<f32>>,
}

#[derive(Deserialize)]
pub struct Text {
    pub text: String,
    pub ids: Vec<u32>,
}

#[derive(Deserialize)]
pub struct Classified {
    pub tokens: Vec<u32>,
    pub class: u32,
}

pub fn folder() -> PathBuf {
    reference("encoder")
}

pub fn values() -> Values {
    read("encoder/values.json")
}

fn load(base: Base) -> Model {
    Model::load(&folder(), &options(base, 2)).unwrap()
}

fn adapter(model: &Model) -> Adapter {
    Adapter::load(&folder().join("adapter"), &model.weights()).unwrap()
}

pub fn batch(rows: &[Classified]) -> Batch {
    let row = |(record, row): (usize, &Classified)| Row {
        tokens: row.tokens.clone(),
        labelled: vec![false; row.tokens.len()],
        class: Some(row.class.into()),
        record,
    };
    Batch {
        rows: rows.iter().enumerate().map(row).collect(),
    }
}

/// Of logits the logarithms of the probabilities.
pub fn logs(logits: &[f32]) -> Vec<f32> {
    let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    let log = |logit: &f32| (f64::from(*logit) - total.ln()) as f32;
    logits.iter().map(log).collect()
}

pub fn classes(model: &Model, adapter: Option<&Adapter>, batch: &Batch) -> Vec<f32> {
    let mut evaluator = Evaluator::new(model, adapter).unwrap();
    let (rows, _) = evaluator.classes(batch, &control()).unwrap();
    rows.into_iter().flatten().map(|log| log as f32).collect()
}

pub fn label(text: &str, label: &str) -> Record {
    Record::Label {
        text: text.to_owned(),
        label: label.to_owned(),
    }
}

pub fn encoder(model: &Model, change: impl FnOnce(&mut EncodeOptions)) -> Encoder {
    let mut options = EncodeOptions {
        labels: ["ham", "sport", "spam"].map(str::to_owned).to_vec(),
        ..EncodeOptions::new(48)
    };
    change(&mut options);
    Encoder::new(model.tokenizer().clone(), options).unwrap()
}

#[test]
fn ids_equal_transformers_and_what_is_too_long_loses_its_end() {
    let model = load(Base::F32);
    let whole = encoder(&model, |_| ());
    for Text { text, ids } in values().texts {
        let row = whole.row(3, &label(&text, "spam")).unwrap();
        assert_eq!(row.tokens, ids, "{text:?}");
        assert_eq!(
            (row.class.clone(), row.record, row.targets()),
            (Some(2.into()), 3, 0)
        );
        let shown = whole.preview(&row).unwrap();
        assert_eq!(shown.class.as_deref(), Some("spam"));
    }
    let long = label("a b c d e f", "ham");
    let short = encoder(&model, |options| options.sequence_length = 5);
    assert_eq!(short.row(0, &long).unwrap().tokens, [2, 5, 6, 7, 3]);
    let front = encoder(&model, |options| {
        options.sequence_length = 5;
        options.truncate = Truncate::Front;
    });
    assert_eq!(front.row(0, &long).unwrap().tokens, [2, 8, 9, 10, 3]);
    let strict = encoder(&model, |options| {
        options.sequence_length = 5;
        options.truncate = Truncate::Refuse;
    });
    let refused = strict.row(0, &long);
    assert!(matches!(refused, Err(Refusal::TooLong { tokens: 8, .. })));
}

#[test]
fn records_without_one_of_the_labels_are_refused() {
    let model = load(Base::F32);
    let encoder = encoder(&model, |_| ());
    let other = encoder.row(0, &label("a", "news")).unwrap_err();
    assert!(matches!(other, Refusal::OtherLabel) && other.is_of_this_record());
    let text = Record::Text {
        text: "a".to_owned(),
    };
    let unlabelled = encoder.row(0, &text).unwrap_err();
    assert!(matches!(unlabelled, Refusal::NotLabelled) && !unlabelled.is_of_this_record());
}

/// transformers computed the rows as one batch with padding, which must not be seen.
#[test]
fn logits_equal_transformers_with_and_without_an_adapter() {
    let (model, want) = (load(Base::F32), values());
    assert_eq!(model.config().architecture, Architecture::Bert);
    let batch = batch(&want.rows);
    for (adapter, logits) in [
        (None, &want.logits),
        (Some(adapter(&model)), &want.adapted_logits),
    ] {
        let want: Vec<f32> = logits.iter().flat_map(|row| logs(row)).collect();
        let got = classes(&model, adapter.as_ref(), &batch);
        close(&got, &want, 5e-6);
        // A row alone is as among others.
        for (row, got) in batch.rows.iter().zip(got.chunks_exact(3)) {
            let alone = Batch {
                rows: vec![row.clone()],
            };
            close(&classes(&model, adapter.as_ref(), &alone), got, 1e-6);
        }
    }
}

/// A step of plain gradient descent at rate 1 moves every value by its gradient.
#[test]
fn gradients_of_factors_and_head_equal_autograd() {
    let (model, want) = (load(Base::F32), values());
    let (adapter, batch) = (adapter(&model), batch(&want.rows));
    let largest = want.gradients.values().flatten();
    let largest = largest.fold(0f32, |most, g| most.max(g.abs()));
    for checkpoint in [false, true] {
        let options = Options {
            rule: Rule::Sgd { momentum: 0.0 },
            checkpoint,
            ..Options::default()
        };
        let mut trainer = Trainer::new(&model, &adapter, options).unwrap();
        let step = trainer.step(&batch, 1.0, &control()).unwrap();
        assert!((step.loss - want.loss).abs() < 1e-5 * want.loss);
        assert_eq!(step.labelled_tokens, 4);
        let moved = trainer.adapter().unwrap();
        let mut seen = BTreeSet::new();
        let mut check = |key: &str, before: &[f32], after: &[f32]| {
            let want = &want.gradients[key];
            assert_eq!(before.len(), want.len(), "{key}");
            for ((before, after), want) in before.iter().zip(after).zip(want) {
                let got = before - after;
                assert!((got - want).abs() <= 2e-5 * largest, "{key}: {got}, {want}");
            }
            seen.insert(key.to_owned());
        };
        for (before, after) in adapter.factors().zip(moved.factors()) {
            let module = before.shape().name.in_encoder(Family::Bert).unwrap();
            let key = |factor| format!("base_model.model.{module}.{factor}.weight");
            check(&key("lora_A"), before.a(), after.a());
            check(&key("lora_B"), before.b(), after.b());
        }
        let (before, after) = (adapter.head().unwrap(), moved.head().unwrap());
        check(HEAD_WEIGHT, before.weight(), after.weight());
        check(HEAD_BIAS, before.bias(), after.bias());
        assert_eq!(seen.len(), want.gradients.len());
    }
}

#[test]
fn an_adapter_with_a_head_is_written_as_peft_writes_it_and_read_again() {
    let model = load(Base::F32);
    let own = adapter(&model);
    let place = tempfile::tempdir().unwrap();
    let export = Export {
        base_model: "encoder",
        layers: 2,
    };
    own.save(place.path(), &export).unwrap();
    assert_eq!(Adapter::load(place.path(), &model.weights()).unwrap(), own);
    let tensors = |folder: PathBuf| {
        let bytes = std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let one = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            (name, (view.shape().to_vec(), view.data().to_vec()))
        };
        file.tensors()
            .into_iter()
            .map(one)
            .collect::<BTreeMap<_, _>>()
    };
    let theirs = tensors(folder().join("adapter"));
    assert_eq!(tensors(place.path().to_owned()), theirs);

    let config = std::fs::read(folder().join("adapter/adapter_config.json")).unwrap();
    let mut without: serde_json::Value = serde_json::from_slice(&config).unwrap();
    without["modules_to_save"] = serde_json::Value::Null;
    let bytes = std::fs::read(folder().join("adapter/adapter_model.safetensors")).unwrap();
    let without = serde_json::to_vec(&without).unwrap();
    let refused = Adapter::from_peft(&bytes, &without, &model.weights());
    assert!(matches!(refused, Err(Error::Extra { key }) if key == HEAD_WEIGHT));
}

#[test]
fn training_tells_classes_apart_and_the_head_alone_is_not_enough_to_begin() {
    let model = load(Base::F32);
    let ranks = RankTable::uniform(&[Projection::Q, Projection::Up], 2, 2);
    let shape = HeadShape {
        encoder: Family::Bert,
        classes: 2,
        width: 16,
    };
    let head = Head::fresh(shape, 5).unwrap();
    let start = Adapter::initialize(&model.weights(), &ranks, 2.0, 5).unwrap();
    let start = start.with_head(Some(head.clone()));
    let rows = [(vec![2, 57, 61, 3], 1), (vec![2, 58, 5, 3], 0)];
    let rows = rows.map(|(tokens, class)| Classified { tokens, class });
    let batch = batch(&rows);
    let mut trainer = Trainer::new(&model, &start, Options::default()).unwrap();
    for _ in 0..60 {
        trainer.step(&batch, 2e-2, &control()).unwrap();
    }
    let trained = trainer.adapter().unwrap();
    assert_ne!(trained.head(), Some(&head));
    let found = classes(&model, Some(&trained), &batch);
    assert!(found[1] > -0.1 && found[2] > -0.1, "{found:?}");
    let bare = Adapter::new(2.0, []).unwrap().with_head(Some(head));
    let nothing = Trainer::new(&model, &bare, Options::default()).map(drop);
    assert!(matches!(nothing, Err(train::Error::NothingToTrain)));
}

/// As of decoders (`it/families.rs`): logits within a bound of those in f32, and a few steps lower the loss, in each base and
/// arithmetic.
#[test]
fn every_base_and_arithmetic_learns_classes() {
    let want = values();
    let batch = batch(&want.rows);
    let exact = classes(&load(Base::F32), None, &batch);
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
        let model = Model::load(&folder(), &options).unwrap();
        let off = relative(&classes(&model, None, &batch), &exact);
        assert!(off <= bound, "{base:?} {compute:?}: {off}");
        let mut trainer = Trainer::new(&model, &adapter(&model), Options::default()).unwrap();
        let first = trainer.step(&batch, 1e-2, &control()).unwrap().loss;
        let mut last = first;
        for _ in 0..10 {
            last = trainer.step(&batch, 1e-2, &control()).unwrap().loss;
        }
        assert!(
            last < 0.9 * first,
            "{base:?} {compute:?}: {first} to {last}"
        );
    }
}

#[test]
fn what_an_encoder_does_not_do_is_refused_with_what_does() {
    let (model, want) = (load(Base::F32), values());
    let own = adapter(&model);
    let prompt = Request {
        prompt: &[2, 5, 3],
        limit: 3,
        stop: &[],
    };
    let written = greedy(&model, None, prompt, &control(), |_| ()).unwrap_err();
    let text = format!("{:#}", anyhow_chain(&written));
    assert!(text.contains("give a decoder"), "{text}");
    let steps = Steps::of(&Training::default(), 0);
    let zeroth = ZerothTrainer::new(&model, &own, steps, 0).map(drop);
    assert!(
        zeroth
            .unwrap_err()
            .to_string()
            .contains("without gradients")
    );

    let mut words = batch(&want.rows);
    let row = &mut words.rows[0];
    (row.class, row.labelled) = (None, vec![true; row.tokens.len()]);
    let mut trainer = Trainer::new(&model, &own, Options::default()).unwrap();
    let error = trainer.step(&words, 1e-3, &control()).unwrap_err();
    assert!(
        error.to_string().contains("does not predict tokens"),
        "{error}"
    );
    let mut other = batch(&want.rows);
    other.rows[1].class = Some(3.into());
    let error = trainer.step(&other, 1e-3, &control()).unwrap_err();
    assert!(error.to_string().contains("class 3"), "{error}");

    // llama.cpp's format has neither encoders nor heads.
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join(gguf_lora::FILE);
    let refused = gguf_lora::write(&own, model.config(), "tiny", &path);
    assert!(matches!(refused, Err(export::Error::Encoder)));
    let refused = gguf_lora::write(&own, tiny().config(), "tiny", &path);
    assert!(matches!(refused, Err(export::Error::Encoder)) && !path.exists());

    // The head is the encoder's, of its own width.
    let decoder = tiny();
    let ranks = RankTable::uniform(&[Projection::Q], 2, 2);
    let shape = HeadShape {
        encoder: Family::Bert,
        classes: 2,
        width: decoder.config().hidden,
    };
    let start = Adapter::initialize(&decoder.weights(), &ranks, 2.0, 5).unwrap();
    let start = start.with_head(Some(Head::fresh(shape, 5).unwrap()));
    let refused = Evaluator::new(&decoder, Some(&start)).map(drop);
    assert!(matches!(refused, Err(compute::Error::Head { .. })));
    let wide = HeadShape {
        encoder: Family::Bert,
        classes: 3,
        width: 8,
    };
    let wide = own.with_head(Some(Head::fresh(wide, 5).unwrap()));
    let refused = Evaluator::new(&model, Some(&wide)).map(drop);
    assert!(matches!(refused, Err(compute::Error::Head { width: 8 })));
}

fn anyhow_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        text = format!("{text}: {error}");
        below = error.source();
    }
    text
}

#[derive(Deserialize)]
struct Real {
    ids: Vec<Vec<u32>>,
    logits: Vec<Vec<f32>>,
}

const MAILS: [&str; 3] = [
    "Cheap pills, no prescription needed!!! Order now.",
    "Minutes of yesterday's meeting are attached; the next one is on Thursday at 10.",
    "Ümläute und 中文 too",
];

/// all-MiniLM-L6-v2 itself, whose folder `FEDPIPE_MINILM` names, with a head of a formula.
#[test]
fn minilm_equals_transformers() {
    let Some(path) = testkit::model::real("FEDPIPE_MINILM") else {
        return;
    };
    let want: Real = read("minilm.json");
    let mut model = Model::load(&path, &options(Base::F32, 2)).unwrap();
    assert!(model.head().is_none());
    let shape = HeadShape {
        encoder: Family::Bert,
        classes: 2,
        width: 384,
    };
    let wave = |i: usize| (0.4 * (0.61 * i as f64 + 1.0).sin()) as f32;
    let head = Head::new(shape, (0..768).map(wave).collect(), vec![0.1, -0.2]).unwrap();
    model.set_head(head).unwrap();
    let encoder = encoder(&model, |options| options.sequence_length = 128);
    let rows = MAILS.iter().enumerate();
    let rows = rows.map(|(number, text)| encoder.row(number, &label(text, "ham")).unwrap());
    let batch = Batch {
        rows: rows.collect(),
    };
    let ids: Vec<_> = batch.rows.iter().map(|row| row.tokens.clone()).collect();
    assert_eq!(ids, want.ids);
    let logits: Vec<f32> = want.logits.iter().flat_map(|row| logs(row)).collect();
    close(&classes(&model, None, &batch), &logits, 2e-5);
}

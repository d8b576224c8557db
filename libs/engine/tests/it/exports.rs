//! Exports: each is loaded by the engine again, from another kind of source, and gives the engine's numbers.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use engine::adapter::Adapter;
use engine::evaluate::Evaluator;
use engine::export::{Error, Exported, Format, Precision, Request, export, gguf_lora};
use engine::model::{Base, Model};

use crate::support::{close, control, options, reference};

const PROMPT: [u32; 9] = [5, 17, 3, 60, 8, 8, 41, 2, 33];

struct Case {
    model: &'static str,
    adapter: &'static str,
    place: tempfile::TempDir,
}

impl Case {
    fn new(model: &'static str, adapter: &'static str) -> Self {
        let place = tempfile::tempdir().unwrap();
        Self {
            model,
            adapter,
            place,
        }
    }

    fn out(&self) -> PathBuf {
        self.place.path().join("out")
    }

    fn export(&self, format: Format, precision: Precision) -> Result<Exported, Error> {
        self.export_again(format, precision, false)
    }

    fn export_again(
        &self,
        format: Format,
        precision: Precision,
        replace: bool,
    ) -> Result<Exported, Error> {
        let request = Request {
            adapter: &reference(self.adapter),
            model: &reference(self.model),
            format,
            precision,
            output: &self.out(),
            replace,
            name: "tiny",
            labels: &[],
            threads: NonZeroUsize::new(2).unwrap(),
        };
        export(request, &control())
    }

    /// The engine's own logits, the adapter beside the base.
    fn logits(&self) -> Vec<f32> {
        let model = Model::load(&reference(self.model), &options(Base::F32, 2)).unwrap();
        let adapter = Adapter::load(&reference(self.adapter), &model.weights()).unwrap();
        logits(&model, Some(&adapter))
    }
}

fn logits(model: &Model, adapter: Option<&Adapter>) -> Vec<f32> {
    let mut evaluator = Evaluator::new(model, adapter).unwrap();
    evaluator.logits(&PROMPT, &control()).unwrap()
}

fn logits_of(path: &Path) -> Vec<f32> {
    logits(&Model::load(path, &options(Base::Source, 2)).unwrap(), None)
}

/// From either kind of source to either kind of export, ranks alike and uneven.
#[test]
fn exported_models_give_the_engines_logits_from_any_source() {
    for model in ["tiny", "tiny.gguf"] {
        for adapter in ["tiny-adapter", "tiny-uneven"] {
            for (format, file) in [(Format::Merged, ""), (Format::Gguf, "model.gguf")] {
                let case = Case::new(model, adapter);
                let exported = case.export(format, Precision::F32).unwrap();
                assert!(exported.logits_off <= 1e-5, "{exported:?}");
                assert_eq!(exported.tensors, 21);
                close(&logits_of(&case.out().join(file)), &case.logits(), 1e-5);
                assert_eq!(
                    case.place.path().read_dir().unwrap().count(),
                    1,
                    "nothing is left beside it"
                );
            }
        }
    }
}

#[test]
fn precisions_stay_within_their_stated_bounds() {
    let case = |format, precision| {
        let case = Case::new("tiny", "tiny-adapter");
        case.export(format, precision).unwrap()
    };
    for format in [Format::Merged, Format::Gguf] {
        for (precision, most) in [(Precision::F16, 1e-2), (Precision::Bf16, 6e-2)] {
            let exported = case(format, precision);
            assert_eq!(exported.logits_bound, most);
            assert!(
                exported.logits_off > 0.0 && exported.logits_off < most / 2.0,
                "{exported:?}"
            );
        }
    }
    let exported = case(Format::Gguf, Precision::Q8);
    assert!(
        exported.logits_off > 1e-4 && exported.logits_off < exported.logits_bound / 2.0,
        "{exported:?}"
    );
    let refused = Case::new("tiny", "tiny-adapter").export(Format::Merged, Precision::Q8);
    assert!(
        matches!(refused, Err(Error::Precision { .. })),
        "{refused:?}"
    );
}

/// What the adapter leaves alone keeps its integers; what it changes becomes f16.
#[test]
fn a_mixed_gguf_file_keeps_the_kinds_of_what_does_not_change() {
    let case = Case::new("tiny.gguf", "tiny-adapter");
    let exported = case.export(Format::Gguf, Precision::Source).unwrap();
    assert!(exported.logits_off < 5e-3, "{exported:?}");
    let bytes = |path: PathBuf| std::fs::metadata(path).unwrap().len();
    let path = case.out().join("model.gguf");
    let f32_case = Case::new("tiny.gguf", "tiny-adapter");
    f32_case.export(Format::Gguf, Precision::F32).unwrap();
    assert!(bytes(path) < bytes(f32_case.out().join("model.gguf")) * 3 / 4);
}

#[test]
fn adapters_alone_are_read_back_with_one_scale_whatever_their_ranks() {
    for adapter in ["tiny-adapter", "tiny-uneven"] {
        let case = Case::new("tiny", adapter);
        let exported = case.export(Format::Peft, Precision::Source).unwrap();
        assert_eq!(exported.logits_off, 0.0);
        let model = Model::load(&reference("tiny"), &options(Base::F32, 2)).unwrap();
        let own = Adapter::load(&reference(adapter), &model.weights()).unwrap();
        let again = Adapter::load(&case.out(), &model.weights()).unwrap();
        assert_eq!(again, own);

        let case = Case::new("tiny", adapter);
        case.export(Format::GgufLora, Precision::Source).unwrap();
        let path = case.out().join(gguf_lora::FILE);
        let again = gguf_lora::read(model.config(), &path).unwrap();
        close(&logits(&model, Some(&again)), &case.logits(), 1e-6);
    }
}

#[test]
fn the_same_export_has_the_same_bytes_and_replaces_only_where_it_may() {
    let files = |format, file: &str| {
        let case = Case::new("tiny", "tiny-uneven");
        case.export(format, Precision::F16).unwrap();
        let first = std::fs::read(case.out().join(file)).unwrap();
        let refused = case.export(format, Precision::F16);
        assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
        case.export_again(format, Precision::F16, true).unwrap();
        assert_eq!(std::fs::read(case.out().join(file)).unwrap(), first);
    };
    files(Format::Merged, "model.safetensors");
    files(Format::Gguf, "model.gguf");
    files(Format::GgufLora, gguf_lora::FILE);
    files(Format::Peft, "adapter_model.safetensors");
}

/// Tokenizer and template go along: text becomes the same ids and comes back.
#[test]
fn the_tokenizer_goes_along_in_either_direction() {
    for model in ["tiny", "tiny.gguf"] {
        let own = Model::load(&reference(model), &options(Base::F32, 1)).unwrap();
        for (format, file) in [(Format::Merged, ""), (Format::Gguf, "model.gguf")] {
            let case = Case::new(model, "tiny-adapter");
            case.export(format, Precision::F32).unwrap();
            let again = Model::load(&case.out().join(file), &options(Base::F32, 1)).unwrap();
            let (own, again) = (own.tokenizer(), again.tokenizer());
            assert_eq!((again.eos(), again.bos()), (own.eos(), own.bos()));
            assert_eq!(again.vocabulary_size(), own.vocabulary_size());
            let text = "!!\"#$";
            assert_eq!(again.encode(text).unwrap(), own.encode(text).unwrap());
        }
    }
}

/// An adapter of another model leaves nothing behind, not even an empty folder.
#[test]
fn a_refused_export_leaves_nothing() {
    let case = Case::new("tiny", "tiny");
    let refused = case.export(Format::Gguf, Precision::F32);
    assert!(matches!(refused, Err(Error::Adapter(_))), "{refused:?}");
    assert_eq!(case.place.path().read_dir().unwrap().count(), 0);
}

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use domain::job::spec::Training;
use domain::zeroth::{Scalars, Steps};

use super::*;
use crate::export::gguf;
use crate::model::{Base, LoadOptions};
use crate::train::WholeTrainer;

/// Folders and GGUF files, transposed weights, tables of positions, biases, normalizations less one.
const MODELS: [&str; 7] = [
    "tiny",
    "tiny.gguf",
    "architectures/mistral",
    "architectures/qwen2",
    "architectures/qwen3",
    "architectures/gpt2",
    "architectures/gemma3",
];

fn reference(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    folder.join(name)
}

fn load(path: &Path) -> Model {
    let options = LoadOptions {
        base: Base::F32,
        threads: NonZeroUsize::new(2).unwrap(),
        ..LoadOptions::default()
    };
    Model::load(path, &options).unwrap()
}

fn trained(name: &str) -> WholeTrainer {
    let how = Steps {
        rate: 1e-3,
        ..Steps::of(&Training::default(), 3)
    };
    let mut trainer = WholeTrainer::new(load(&reference(name)), how, 0, u64::MAX).unwrap();
    assert!(trainer.resume(&Scalars::new(vec![1.0, -2.0, 0.5]), 3));
    trainer
}

fn values(model: &mut Model) -> Vec<f32> {
    let mut all = Vec::new();
    model.for_each_parameter(|_, values| all.extend_from_slice(values));
    all
}

#[test]
fn the_folder_holds_what_was_trained_bit_for_bit() {
    for name in MODELS {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("out");
        let want = values(&mut trained(name).into_model());
        let model = trained(name).into_model();
        let exported = export_trained(&reference(name), model, &out, &Control::new()).unwrap();
        assert!(exported.tensors > 0 && exported.logits_off <= exported.logits_bound);
        let got = values(&mut load(&out));
        let start = values(&mut load(&reference(name)));
        let pairs = start.iter().zip(&want);
        let still = pairs.filter(|(start, want)| start == want).count();
        assert!(still * 1000 < want.len(), "{name}: {still} did not move");
        assert_eq!(got.len(), want.len(), "{name}");
        let off = |(got, want): (&f32, &f32)| (got - want).abs();
        let most = got.iter().zip(&want).map(off).fold(0f32, f32::max);
        // Gemma's folder holds the weights of normalizations less one.
        let allowed = if name.ends_with("gemma3") {
            f32::EPSILON
        } else {
            0.0
        };
        assert!(most <= allowed, "{name}: off by {most}");
    }
}

#[test]
fn what_is_there_already_stays() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("mine"), "kept").unwrap();
    let model = trained("tiny").into_model();
    let refused = export_trained(&reference("tiny"), model, place.path(), &Control::new());
    assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
}

/// A file says scaled positions as factors, a folder by what they follow from.
#[test]
fn what_a_folder_cannot_say_is_refused_before_any_training() {
    let place = tempfile::tempdir().unwrap();
    let (from, out) = (reference("architectures/llama3"), place.path().join("out"));
    let mut source = Source::open(&from).unwrap();
    let (config, tokenizer) = (source.config().unwrap(), source.tokenizer().unwrap());
    assert!(!config.rope_factors.is_empty());
    let (nothing, control) = (Adapter::new(1.0, []).unwrap(), Control::new());
    let mut merged = Merged {
        source: &mut source,
        config: &config,
        adapter: &nothing,
        trained: BTreeMap::new(),
        control: &control,
    };
    let path = place.path().join("model.gguf");
    gguf::write(&mut merged, &tokenizer, (Precision::F32, "llama3"), &path).unwrap();
    let refused = check_trained(&path, &out);
    let scaled = matches!(
        refused,
        Err(Error::Model(crate::model::Error::Feature { .. }))
    );
    assert!(scaled, "{refused:?}");
    // What a folder says is copied.
    check_trained(&from, &out).unwrap();
    for name in MODELS {
        check_trained(&reference(name), &out).unwrap();
    }
    let left = std::fs::read_dir(place.path()).unwrap();
    assert_eq!(left.count(), 1, "more is left than the file");
}

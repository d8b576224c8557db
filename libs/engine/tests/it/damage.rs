//! Damaged, incomplete and foreign models get a typed error that names what is wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use engine::evaluate::Evaluator;
use engine::model::{Base, Error, Model};
use safetensors::tensor::SafeTensors;
use tempfile::TempDir;

use crate::support::{Tiny, control, options, read, reference};

fn load(path: &Path) -> Result<Model, Error> {
    Model::load(path, &options(Base::Source, 1))
}

/// A copy of the tiny folder that may be damaged.
fn copy() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(reference("tiny")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn damaged_config(from: &str, to: &str) -> Error {
    let folder = copy();
    let path = folder.path().join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    assert!(config.contains(from), "{from}");
    fs::write(&path, config.replace(from, to)).unwrap();
    load(folder.path()).unwrap_err()
}

#[test]
fn another_architecture_is_refused_with_its_name_and_the_supported_ones() {
    let error = damaged_config("LlamaForCausalLM", "GPTNeoXForCausalLM");
    assert!(
        error.to_string().contains("GPTNeoXForCausalLM")
            && error.to_string().contains("LlamaForCausalLM"),
        "{error}"
    );
    assert!(matches!(error, Error::Architecture { .. }));
    assert!(
        matches!(damaged_config("\"default\"", "\"yarn\""), Error::Feature { what } if what.contains("yarn"))
    );
    assert!(matches!(
        damaged_config("\"attention_bias\": false", "\"attention_bias\": true"),
        Error::Feature { .. }
    ));
}

#[test]
fn impossible_sizes_are_refused() {
    assert!(matches!(
        damaged_config("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"),
        Error::Setting { .. }
    ));
    assert!(matches!(
        damaged_config("\"num_attention_heads\": 4", "\"num_attention_heads\": 0"),
        Error::Setting { .. }
    ));
    let error = damaged_config("\"intermediate_size\": 64", "\"intermediate_size\": 65");
    assert!(
        matches!(error, Error::Shape { name, expected, found } if name.ends_with("gate_proj.weight") && expected == [65, 32] && found == [64, 32])
    );
    assert!(
        matches!(damaged_config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"), Error::Missing { name } if name.contains("layers.2"))
    );
    assert!(matches!(
        damaged_config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": \"x\""),
        Error::Header { .. }
    ));
}

#[test]
fn a_file_cut_short_or_with_the_wrong_beginning_is_told_apart() {
    for (name, file) in [
        ("tiny/model.safetensors", "model.safetensors"),
        ("tiny.gguf", "model.gguf"),
    ] {
        let folder = if file.ends_with("gguf") {
            tempfile::tempdir().unwrap()
        } else {
            copy()
        };
        let whole = fs::read(reference(name)).unwrap();
        let path = folder.path().join(file);
        let with = |data: &[u8]| {
            fs::write(&path, data).unwrap();
            load(folder.path()).unwrap_err()
        };
        assert!(
            matches!(
                with(&whole[..whole.len() - 7]),
                Error::Truncated {
                    missing_bytes: 7,
                    ..
                }
            ),
            "{name}"
        );
        assert!(
            matches!(
                with(&whole[..200]),
                Error::Header { .. } | Error::Magic { .. }
            ),
            "{name}"
        );
        assert!(matches!(with(b"!"), Error::Magic { .. }), "{name}");
        assert!(
            matches!(with(b"this is no model at all"), Error::Magic { .. }),
            "{name}"
        );
    }
}

#[test]
fn a_folder_without_a_model_or_with_two_says_so() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        load(folder.path()),
        Err(Error::NoModel { gguf_files: 0, .. })
    ));
    for name in ["a.gguf", "b.gguf"] {
        fs::copy(reference("tiny.gguf"), folder.path().join(name)).unwrap();
    }
    assert!(matches!(
        load(folder.path()),
        Err(Error::NoModel { gguf_files: 2, .. })
    ));
    fs::remove_file(folder.path().join("b.gguf")).unwrap();
    assert!(load(folder.path()).is_ok());
    assert!(matches!(
        load(&folder.path().join("none")),
        Err(Error::Read { .. })
    ));
}

/// Splits the tiny model into two shards and an index.
fn sharded() -> TempDir {
    let folder = copy();
    let path = folder.path().join("model.safetensors");
    let data = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&data).unwrap();
    let mut map = BTreeMap::new();
    for (index, name) in [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    .into_iter()
    .enumerate()
    {
        let tensors = file
            .tensors()
            .into_iter()
            .enumerate()
            .filter(|(i, _)| i % 2 == index)
            .map(|(_, tensor)| tensor);
        let tensors: Vec<_> = tensors.collect();
        map.extend(tensors.iter().map(|(key, _)| (key.clone(), name)));
        fs::write(
            folder.path().join(name),
            safetensors::serialize(tensors, None).unwrap(),
        )
        .unwrap();
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    fs::write(
        folder.path().join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
    fs::remove_file(path).unwrap();
    folder
}

#[test]
fn a_model_in_shards_equals_the_whole_one() {
    let want: Tiny = read("tiny.json");
    let logits = |path: &Path| {
        let model = load(path).unwrap();
        Evaluator::new(&model, None)
            .unwrap()
            .logits(&want.prompt, &control())
            .unwrap()
    };
    assert_eq!(logits(sharded().path()), logits(&reference("tiny")));
}

#[test]
fn a_missing_shard_is_named() {
    let folder = sharded();
    fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert!(
        matches!(load(folder.path()), Err(Error::Read { path, .. }) if path.ends_with("model-00002-of-00002.safetensors"))
    );
}

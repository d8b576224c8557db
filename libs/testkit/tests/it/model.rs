//! The tiny model, as the engine reads it.

use std::path::Path;

use engine::model::{Base, LoadOptions, Model};

fn load(folder: &Path) -> Model {
    let options = LoadOptions {
        base: Base::Source,
        ..LoadOptions::default()
    };
    Model::load(folder, &options).unwrap()
}

#[test]
fn the_engine_loads_it_and_any_text_survives_its_tokens() {
    let folder = tempfile::tempdir().unwrap();
    testkit::model::tiny(folder.path(), 1).unwrap();
    let model = load(folder.path());
    let config = model.config();
    assert_eq!(
        (config.layers, config.hidden, config.vocabulary),
        (2, 32, 264)
    );
    assert!(config.tied);
    let tokenizer = model.tokenizer();
    let text = "Grüße\n\u{1f600} \0 yes no";
    let tokens = tokenizer.encode(text).unwrap();
    assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
    for answer in [" yes", " no"] {
        assert_eq!(tokenizer.encode(answer).unwrap().len(), 1, "{answer}");
    }
    assert!(tokenizer.chat_template().is_ok());
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let weights = |seed| {
        let folder = tempfile::tempdir().unwrap();
        testkit::model::tiny(folder.path(), seed).unwrap();
        std::fs::read(folder.path().join("model.safetensors")).unwrap()
    };
    assert_eq!(weights(1), weights(1));
    assert_ne!(weights(1), weights(2));
}

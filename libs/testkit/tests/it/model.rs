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

#[test]
fn a_real_model_that_nobody_names_is_left_out_only_where_that_is_asked_for() {
    let found = std::panic::catch_unwind(|| testkit::model::real("FEDPIPE_NO_SUCH_MODEL"));
    let asked = std::env::var_os("FEDPIPE_TEST_NO_MODELS").is_some();
    assert_eq!(found.ok(), asked.then_some(None));
    assert!(testkit::model::real("PATH").is_some());
}

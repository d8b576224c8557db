//! `fedpipe bench generate`: a base, its adapter beside it, and both as one model write the same prompt on, in one process.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::command::{Ended, fedpipe};

async fn bench(model: &Path, more: &[&str]) -> Ended {
    let mut words = vec!["bench", "generate", "--model", model.to_str().unwrap()];
    words.extend(["--base", "f32", "--threads", "1", "--repeats", "2"]);
    words.extend(more);
    fedpipe(&words).await
}

fn engine(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.join("../libs/engine/tests/reference").join(name)
}

fn check(figures: &Value, tokens: u64) {
    let base = &figures["ways"]["base"]["token_seconds"];
    let base = base.as_f64().unwrap();
    for way in ["base", "adapter", "merged"] {
        let own = &figures["ways"][way];
        assert_eq!(own["tokens"], tokens, "{way}: {figures}");
        let number = |key: &str| own[key].as_f64().unwrap();
        let seconds = number("token_seconds");
        assert!(seconds > 0.0 && number("prompt_seconds") > 0.0, "{figures}");
        assert!((number("tokens_per_second") * seconds - 1.0).abs() < 1e-9);
        assert!((number("times_the_base") * base / seconds - 1.0).abs() < 1e-9);
    }
    // One model as two files says the same.
    assert_eq!(figures["same_tokens"], tokens, "{figures}");
}

#[tokio::test]
async fn generation_is_timed_by_the_base_with_an_adapter_and_merged() {
    let lengths = ["--prompt-tokens", "5", "--tokens", "7", "--json"];
    let own = engine("tiny-adapter");
    for model in ["tiny", "tiny.gguf"] {
        let made_up = [&lengths[..], &["--rank", "2", "--targets", "q,v"]].concat();
        check(&bench(&engine(model), &made_up).await.json(), 7);
        let named = [&lengths[..], &["--adapter", own.to_str().unwrap()]].concat();
        let figures = bench(&engine(model), &named).await.json();
        check(&figures, 7);
        assert_eq!(figures["what"], json!("generate"));
    }
    let said = bench(&engine("tiny"), &lengths[..4]).await.good();
    for words in ["base ", "adapter ", "merged ", "the first 7 tokens"] {
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn generation_of_what_writes_nothing_or_too_much_is_not_timed() {
    let ended = bench(&engine("encoder"), &[]).await;
    ended.failed(&["an encoder classifies and writes nothing"]);
    let ended = bench(&engine("tiny"), &["--tokens", "100000"]).await;
    ended.failed(&["--prompt-tokens", "context"]);
}

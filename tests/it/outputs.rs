//! What `fedpipe` gives other tools: exports, generated texts, figures of answers.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::command::{Ended, fedpipe};

/// The tiny model and an adapter of it that was trained for some steps.
struct Trained {
    place: tempfile::TempDir,
}

impl Trained {
    async fn new(more: &[&str]) -> Self {
        let place = tempfile::tempdir().unwrap();
        testkit::model::tiny(&place.path().join("model"), 1).unwrap();
        let trained = Self { place };
        let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/records.jsonl");
        let records = records.to_str().unwrap().to_owned();
        let (model, out) = (trained.path("model"), trained.path("adapter"));
        let mut words = vec![
            "train", "--model", &model, "--data", &records, "--out", &out,
        ];
        words.extend(["--steps", "8", "--batch", "2", "--sequence-length", "96"]);
        words.extend([
            "--learning-rate",
            "1e-2",
            "--targets",
            "all-linear",
            "--rank",
            "4",
        ]);
        words.extend(more);
        let _ = fedpipe(&words).await.good();
        trained
    }

    fn path(&self, name: &str) -> String {
        self.place.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.place.path().join(name), text).unwrap();
        self.path(name)
    }

    async fn export(&self, to: &str, out: &str, more: &[&str]) -> Ended {
        let (model, adapter, out) = (self.path("model"), self.path("adapter"), self.path(out));
        let mut words = vec!["export", "--model", &model, "--adapter", &adapter];
        words.extend(["--to", to, "-o", &out]);
        words.extend(more);
        fedpipe(&words).await
    }

    async fn generate(&self, model: &str, more: &[&str]) -> Ended {
        let model = self.path(model);
        let mut words = vec!["generate", "--model", &model, "--tokens", "12"];
        words.extend(more);
        fedpipe(&words).await
    }
}

/// The same text, greedily, from the adapter beside its model and from every export that is a model.
#[tokio::test]
async fn every_export_of_a_trained_adapter_says_the_same() {
    let trained = Trained::new(&["--rslora", "--alpha", "8"]).await;
    let adapter = trained.path("adapter");
    // 8 / √4, which is said as PEFT divides: by the rank, 16 / 4.
    let config = fs::read_to_string(Path::new(&adapter).join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(
        (config["lora_alpha"].as_f64(), config["r"].as_u64()),
        (Some(16.0), Some(4))
    );
    assert_eq!(config["use_rslora"], false);
    let ask = ["--prompt", "Question: how many?\nAnswer:"];
    let beside = [&ask[..], &["--adapter", &adapter]].concat();
    let want = trained.generate("model", &beside).await.good();
    assert_ne!(
        trained.generate("model", &ask).await.good(),
        want,
        "nothing was learned"
    );
    for (to, out) in [("merged", "merged"), ("gguf", "gguf")] {
        let said = trained
            .export(to, out, &["--precision", "f32", "--json"])
            .await
            .json();
        let (off, bound) = (&said["logits_off"], &said["logits_bound"]);
        assert!(off.as_f64().unwrap() < bound.as_f64().unwrap(), "{said}");
        assert_eq!(said["format"], to);
        assert_eq!(trained.generate(out, &ask).await.good(), want, "{to}");
    }
    let words = trained.export("peft", "peft", &[]).await.good();
    assert!(
        words.contains("tensors read back; logits off by 0.0e0"),
        "{words}"
    );
    let again = trained.path("peft");
    let beside = [&ask[..], &["--adapter", &again]].concat();
    assert_eq!(trained.generate("model", &beside).await.good(), want);
    let _ = trained.export("gguf-lora", "lora", &[]).await.good();
    assert!(
        PathBuf::from(trained.path("lora"))
            .join("adapter.gguf")
            .is_file()
    );

    trained
        .export("peft", "peft", &[])
        .await
        .failed(&["is there already", "--force"]);
    let _ = trained.export("peft", "peft", &["--force"]).await.good();
    let refused = trained
        .export("merged", "other", &["--precision", "q8_0"])
        .await;
    refused.failed(&["merged has no precision q8_0"]);
    assert!(!Path::new(&trained.path("other")).exists());
    for (to, words) in [
        ("merged", "this model is a decoder"),
        ("peft", "--label names"),
    ] {
        let refused = trained.export(to, "other", &["--label", "ham"]).await;
        refused.failed(&[words]);
    }
    trained
        .export("onnx", "other", &[])
        .await
        .misused(&["onnx", "gguf-lora"]);
}

#[tokio::test]
async fn several_prompts_are_answered_from_a_file_and_draws_follow_the_seed() {
    let trained = Trained::new(&[]).await;
    let prompts = trained.file(
        "prompts",
        "one plain line\n\n{\"prompt\": \"a question\"}\n\
         {\"messages\": [{\"role\": \"user\", \"content\": \"hello\"}, {\"role\": \"assistant\", \"content\": \"hidden\"}]}\n",
    );
    let lines = async |more: &[&str]| -> Vec<Value> {
        let words = [&["--prompts", &prompts, "--json"][..], more].concat();
        let out = trained.generate("model", &words).await.good();
        out.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let greedy = lines(&[]).await;
    let numbers: Vec<u64> = greedy
        .iter()
        .map(|line| line["line"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 3, 4]);
    // The template's marks and the user's turn, without the answer.
    let alone = trained
        .generate("model", &["--chat", "--prompt", "hello", "--json"])
        .await
        .json();
    assert_eq!(greedy[2]["prompt_tokens"], alone["prompt_tokens"]);
    assert_eq!(greedy[2]["text"], alone["text"]);

    let drawn = ["--temperature", "1", "--seed", "5"];
    let first = lines(&drawn).await;
    assert_ne!(first, greedy);
    assert_eq!(lines(&drawn).await, first);
    assert_ne!(lines(&["--temperature", "1", "--seed", "6"]).await, first);
    assert_eq!(lines(&["--temperature", "1", "--top-k", "1"]).await, greedy);

    let bad = trained.file("bad", "fine\n{\"prompt\": 7}\n");
    let refused = trained.generate("model", &["--prompts", &bad]).await;
    refused.failed(&["bad, line 2", "prompt, text or messages"]);
    let refused = trained
        .generate("model", &["--prompt", "x", "--top-p", "0"])
        .await;
    refused.failed(&["--top-p above 0"]);
    trained.generate("model", &[]).await.misused(&["--prompt"]);
}

#[tokio::test]
async fn generated_answers_are_compared_with_the_wanted_ones() {
    let trained = Trained::new(&[]).await;
    let model = trained.path("model");
    let ask = async |data: &str, more: &[&str]| {
        let words = [
            "eval",
            "--model",
            &model,
            "--data",
            data,
            "--answers",
            "--tokens",
            "12",
            "--json",
        ];
        fedpipe(&[&words[..], more].concat()).await
    };
    // What the model says anyway is wanted of one record, and something else of the other.
    let said = trained
        .generate("model", &["--prompt", "Say:", "--json"])
        .await
        .json();
    let line = |completion: &Value| {
        serde_json::json!({ "prompt": "Say:", "completion": completion }).to_string()
    };
    let data = trained.file(
        "data.jsonl",
        &format!(
            "{}\n{}\n",
            line(&said["text"]),
            line(&"something else entirely".into())
        ),
    );
    let figures = ask(&data, &[]).await.json();
    assert_eq!(figures["records"], 2);
    assert_eq!(figures["exact_match"], 0.5, "{figures}");
    for figure in ["f1", "rouge_l"] {
        let value = figures[figure].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&value), "{figures}");
    }
    assert!(
        figures["bleu"].as_f64().is_some_and(|bleu| bleu > 0.0),
        "{figures}"
    );
    assert_eq!(
        ask(&data, &["--limit", "1"]).await.json()["exact_match"],
        1.0
    );

    // A long question is cut as a worker cuts it; what asks nothing is counted by its reason.
    let long = serde_json::json!({ "prompt": "word ".repeat(2000), "completion": "an answer" });
    let nothing = serde_json::json!({ "prompt": "Say:", "completion": " " });
    let mixed = trained.file("mixed.jsonl", &format!("{long}\n{nothing}\n"));
    let ended = ask(&mixed, &[]).await;
    let reason = "not evaluated: nothing_to_learn 1 time (record 1)";
    assert!(ended.err.contains(reason), "{ended:?}");
    let figures = ended.json();
    assert_eq!(
        (&figures["records"], &figures["refused"]),
        (&1.into(), &1.into())
    );

    let texts = trained.file("texts.jsonl", "{\"text\": \"nothing is asked here\"}\n");
    let nothing = [
        "no record has an answer",
        "nothing_to_learn 1 time (record 0)",
    ];
    ask(&texts, &[]).await.failed(&nothing);
    ask(&texts, &[])
        .await
        .failed(&["records of prompt and completion"]);

    let choices = trained.file(
        "choices.jsonl",
        "{\"prompt\": \"Is it?\", \"completion\": \" yes\"}\n",
    );
    let words = [
        "eval", "--model", &model, "--data", &choices, "--choice", " yes", "--choice", " no",
    ];
    let table = fedpipe(&words).await.good();
    assert!(
        table.contains("taken for \" yes\"") && table.contains("balanced accuracy"),
        "{table}"
    );
    let words = [
        "eval", "--model", &model, "--data", &choices, "--choice", "maybe", "--choice", "never",
    ];
    let none = [
        "no record could be evaluated: other_answer 1 time",
        "--choice as",
    ];
    fedpipe(&words).await.failed(&none);

    // A decoder has no words for labels here: training and scoring say so, and what would do.
    let labels = trained.file(
        "labels.jsonl",
        "{\"text\": \"free money\", \"label\": \"spam\"}\n",
    );
    let words = ["records of prompt and completion", "a site's data set"];
    ask(&labels, &[]).await.failed(&words);
    let score = ["eval", "--model", &model, "--data", &labels];
    fedpipe(&score).await.failed(&words);
    let out = trained.path("never");
    let train = [
        "train", "--model", &model, "--data", &labels, "--steps", "1", "--out", &out,
    ];
    fedpipe(&train).await.failed(&words);
}

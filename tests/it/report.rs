//! What a person sees of data and training: previews, curves, and what is said of damaged files.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;
use tests::command::{Ended, fedpipe};

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        testkit::model::tiny(&folder.path().join("model"), 1).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn data(&self, lines: &[&str]) -> String {
        let path = self.path("train.jsonl");
        fs::write(&path, lines.join("\n")).unwrap();
        path
    }

    async fn train(&self, data: &str, more: &[&str]) -> Ended {
        let (model, out) = (self.path("model"), self.path("out"));
        let mut arguments = vec![
            "train",
            "--model",
            &model,
            "--data",
            data,
            "--threads",
            "1",
            "--batch",
            "1",
        ];
        if !more.contains(&"--preview") {
            arguments.extend(["--out", &out, "--steps", "3"]);
        }
        arguments.extend(more);
        fedpipe(&arguments).await
    }
}

const GOOD: &str = r#"{"prompt":"a b","completion":" yes"}"#;
const LONG: &str = r#"{"prompt":"a","completion":"0123456789012345678901234567890123456789"}"#;

#[tokio::test]
async fn a_preview_shows_text_tokens_and_which_of_them_carry_loss_and_trains_nothing() {
    let bench = Bench::new();
    let data = bench.data(&["not JSON", GOOD, LONG]);
    let shown = bench
        .train(&data, &["--preview", "--sequence-length", "16"])
        .await
        .good();
    assert!(
        shown.contains(&format!("record 0 ({data} line 2)\na b yes<|im_end|>\n")),
        "{shown}"
    );
    assert!(
        shown.contains("a| |b[ yes|<|im_end|>]\n5 tokens, 2 carry loss"),
        "{shown}"
    );
    assert!(
        shown.contains("line 3)\ncannot be learned: answer_too_long: the answer of 41 tokens"),
        "{shown}"
    );
    let shown = bench
        .train(&data, &["--preview", "1", "--json"])
        .await
        .json();
    let tokens = shown[0]["tokens"].as_array().unwrap();
    let losses: Vec<bool> = tokens.iter().map(|token| token["loss"] == true).collect();
    assert_eq!(losses, [false, false, false, true, true]);
    assert_eq!(shown.as_array().map(Vec::len), Some(1));
    assert!(!fs::exists(bench.path("out")).unwrap());
}

#[tokio::test]
async fn damaged_input_is_said_with_file_line_byte_or_turn_and_what_to_do() {
    let bench = Bench::new();
    let data = bench.data(&[GOOD, "{\"prompt\":", "{\"text\":5}"]);
    let trained = bench.train(&data, &[]).await;
    assert!(
        trained
            .err
            .contains("train.jsonl: 2 skipped: bad_json 1 (line 2), wrong_shape 1 (line 3)"),
        "{trained:?}"
    );
    let _ = trained.good();
    let only_bad = bench.data(&["nothing", ""]);
    bench.train(&only_bad, &[]).await.failed(&[
        "train.jsonl has no readable record",
        "bad_json 1 (line 1)",
        "write plain text, or on each line JSON of text",
    ]);
    let long = bench.data(&[LONG]);
    let refused = bench.train(&long, &["--sequence-length", "16"]).await;
    refused.failed(&[
        "train.jsonl",
        "answer of 41 tokens",
        "sequence of 16",
        "--preview",
    ]);

    let turn = |role: &str| format!("{{\"role\":\"{role}\",\"content\":\"hi\"}}");
    let turns = [turn("user"), turn("robot"), turn("assistant")].join(",");
    let chat = bench.data(&[&format!("{{\"messages\":[{turns}]}}")]);
    let template = "{% for m in messages %}{% if m.role == 'robot' %}{{ raise_exception('no robots') }}{% endif %}{{ m.content }}{% endfor %}";
    fs::write(bench.path("model/chat_template.jinja"), template).unwrap();
    bench
        .train(&chat, &[])
        .await
        .failed(&["the chat template refuses turn 2 of 3", "no robots"]);

    let good = bench.data(&[GOOD]);
    let weights = bench.path("model/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    let mut damaged = whole.clone();
    damaged[30] = 0;
    fs::write(&weights, damaged).unwrap();
    bench
        .train(&good, &[])
        .await
        .failed(&["the header of", "model.safetensors", "at byte "]);
    fs::write(&weights, &whole[..whole.len() - 100]).unwrap();
    let cut = format!(
        "cut short at byte {}: 100 bytes of tensor",
        whole.len() - 100
    );
    bench
        .train(&good, &[])
        .await
        .failed(&["model.safetensors", &cut]);
    fs::write(&weights, &whole).unwrap();

    // The adapter that the first run left.
    let adapter = bench.path("out");
    for name in ["adapter_model.safetensors", "adapter_config.json"] {
        let file = format!("{adapter}/{name}");
        let sound = fs::read(&file).unwrap();
        fs::write(&file, &sound[..sound.len() / 2]).unwrap();
        let refused = bench.train(&good, &["--init-adapter", &adapter]).await;
        let said = format!("{name} is damaged");
        refused.failed(&["cannot use the adapter", &adapter, &said]);
        fs::write(&file, sound).unwrap();
    }

    // A tokenizer of another model, whose words this one has no rows for.
    let path = bench.path("model/tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    let words = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    for id in words.values_mut() {
        *id = Value::from(id.as_u64().unwrap() + 1000);
    }
    fs::write(&path, tokenizer.to_string()).unwrap();
    bench.train(&good, &[]).await.failed(&[
        "the model's vocabulary ends at 264",
        "another model; give its folder the tokenizer that came with it",
    ]);
}

#[tokio::test]
async fn curves_of_two_runs_are_one_file_with_the_runs_own_numbers() {
    let bench = Bench::new();
    let data = bench.data(&[GOOD, r#"{"prompt":"c","completion":" no"}"#]);
    let (one, two) = (bench.path("one.jsonl"), bench.path("two.jsonl"));
    let _ = bench.train(&data, &["--metrics", &one]).await.good();
    let _ = bench
        .train(&data, &["--metrics", &two, "--seed", "1"])
        .await
        .good();
    let losses = |path: &str| -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["loss"].clone();
        text.lines().map(line).collect()
    };
    let (svg, again) = (bench.path("both.svg"), bench.path("again.svg"));
    let named = [format!("first={one}"), two.clone()];
    let curves = fedpipe(&["report", &named[0], &named[1], "-o", &svg, "--json"])
        .await
        .json();
    for (place, path) in [&one, &two].into_iter().enumerate() {
        let points = curves[place]["points"].as_array().unwrap();
        let drawn: Vec<Value> = points.iter().map(|point| point[1].clone()).collect();
        assert_eq!(drawn, losses(path));
        assert_eq!(
            (&points[0][0], &points[2][0]),
            (&Value::from(1.0), &Value::from(3.0))
        );
    }
    let _ = fedpipe(&["report", &named[0], &named[1], "-o", &again])
        .await
        .good();
    let text = fs::read_to_string(&svg).unwrap();
    assert_eq!(text, fs::read_to_string(&again).unwrap());
    assert_eq!(text.matches("<polyline").count(), 2);
    assert!(
        text.contains(">first: training loss<") && text.contains("two.jsonl: training loss<"),
        "{text}"
    );

    let wrong = fedpipe(&["report", &one, "-o", &bench.path("both.png")]).await;
    wrong.failed(&["both.png", "*.svg or *.html"]);
    fedpipe(&["report", "nothing", "-o", &svg])
        .await
        .failed(&["cannot draw nothing", "no such file"]);
    fedpipe(&["report", &data, "-o", &svg])
        .await
        .failed(&["train.jsonl", "line 1 has no step"]);
    fedpipe(&["report"]).await.misused(&["<JOB|FILE>"]);
}

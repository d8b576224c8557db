//! Conversations that call tools, through the commands that read them.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;
use tests::command::{Ended, fedpipe};

const TEMPLATE: &str = "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}\
                        {% for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
const CALLING: &str = r#"{"tools": [{"name": "rain"}], "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "rain", "arguments": "{\"at\": 1}"}}]}, {"role": "tool", "content": "no"}, {"role": "assistant", "content": "b"}]}"#;
const PLAIN: &str =
    r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
const BAD: &str = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "rain", "arguments": "at 1"}}]}]}"#;

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(template: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        testkit::model::tiny(&model, 1).unwrap();
        if let Some(template) = template {
            fs::write(model.join("chat_template.jinja"), template).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn run(&self, command: &str, file: (&str, &[&str]), more: &[&str]) -> Ended {
        let (flag, lines) = file;
        let (model, data) = (self.path("model"), self.path("data.jsonl"));
        fs::write(&data, lines.join("\n")).unwrap();
        let words = [command, "--model", &model, flag, &data, "--threads", "1"];
        fedpipe(&[&words[..], more].concat()).await
    }

    async fn train(&self, lines: &[&str]) -> Ended {
        let out = self.path("out");
        let words = [
            "--out",
            &out,
            "--steps",
            "2",
            "--batch",
            "1",
            "--sequence-length",
            "200",
        ];
        self.run("train", ("--data", lines), &words).await
    }
}

#[tokio::test]
async fn calls_are_shown_learned_scored_and_asked_with_their_tools() {
    let bench = Bench::new(Some(TEMPLATE));
    let length = ["--sequence-length", "200"];
    let shown = bench
        .run(
            "train",
            ("--data", &[CALLING]),
            &[&length[..], &["--preview", "--json"]].concat(),
        )
        .await
        .json();
    let text = "{\"name\": \"rain\"}\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n\
                <call>{\"name\": \"rain\", \"arguments\": {\"at\": 1}}</call><|im_end|>\n<|im_start|>tool\nno<|im_end|>\n\
                <|im_start|>assistant\nb<|im_end|>";
    assert_eq!(shown[0]["text"], text);
    let learned = shown[0]["tokens"].as_array().unwrap().iter();
    let learned = learned.filter(|token| token["loss"] == true);
    let learned: String = learned.filter_map(|token| token["text"].as_str()).collect();
    let wanted =
        "<call>{\"name\": \"rain\", \"arguments\": {\"at\": 1}}</call><|im_end|>b<|im_end|>";
    assert_eq!(learned, wanted);

    let _ = bench.train(&[CALLING, PLAIN]).await.good();
    let figures = bench
        .run(
            "eval",
            ("--data", &[CALLING, PLAIN]),
            &[&length[..], &["--json"]].concat(),
        )
        .await
        .json();
    assert_eq!(
        (&figures["records"], &figures["refused"]),
        (&2.into(), &0.into())
    );
    let made = bench
        .run(
            "generate",
            ("--prompts", &[CALLING, PLAIN]),
            &["--tokens", "2", "--json"],
        )
        .await
        .good();
    let lines: Vec<Value> = made
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn a_template_without_tools_and_a_call_in_another_form_are_said_with_what_to_do() {
    // The model's own template knows no tools.
    let bench = Bench::new(None);
    let next = [
        "a tool call of turn 2",
        "chat_template.jinja",
        "as text into the contents",
    ];
    bench.train(&[CALLING]).await.failed(&next);
    let scored = bench
        .run("eval", ("--data", &[CALLING, PLAIN]), &["--json"])
        .await;
    let said = "not evaluated: tools_left_out 1 time (record 0; the model's chat template has no words for tools";
    assert!(scored.err.contains(said), "{scored:?}");
    assert_eq!(scored.json()["refused"], 1);
    let asked = bench
        .run(
            "generate",
            ("--prompts", &[PLAIN, CALLING]),
            &["--tokens", "2"],
        )
        .await;
    asked.failed(&["data.jsonl, line 2", next[0], next[1]]);

    let bench = Bench::new(Some(TEMPLATE));
    let trained = bench.train(&[CALLING, BAD]).await;
    let said = "1 skipped: tool_calls 1 (line 2, turn 2: a call's arguments are an object, or the JSON text of one)";
    assert!(trained.err.contains(said), "{trained:?}");
    let _ = trained.good();
    let asked = bench
        .run("generate", ("--prompts", &[BAD]), &["--tokens", "2"])
        .await;
    asked.failed(&["data.jsonl, line 1", "arguments are an object"]);
}

//! Scores on held-out records while `fedpipe train` goes: early stopping by them, and an encoder's accuracy beside the loss.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::command::{Ended, fedpipe};

/// Steps at most, and scores in a row without improvement.
const STEPS: u64 = 200;
const PATIENCE: usize = 3;

struct Run {
    folder: TempDir,
    model: String,
}

impl Run {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn records(&self, name: &str, records: &[Value]) -> String {
        let path = self.path(name);
        let lines: Vec<String> = records.iter().map(Value::to_string).collect();
        fs::write(&path, lines.join("\n")).unwrap();
        path
    }

    async fn train(&self, out: &str, steps: u64, more: &[&str]) -> Ended {
        let (data, held_out) = (self.path("train.jsonl"), self.path("held.jsonl"));
        let (out, steps) = (self.path(out), steps.to_string());
        let mut words = vec!["train", "--model", &self.model, "--data", &data];
        words.extend(["--held-out", &held_out, "--out", &out, "--steps", &steps]);
        words.extend(["--evaluate-every", "1", "--threads", "1", "--json"]);
        words.extend(more);
        fedpipe(&words).await
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        let line = |line| serde_json::from_str(line).unwrap();
        text.lines().map(line).collect()
    }
}

fn of(lines: &[Value], figure: &str) -> Vec<f64> {
    let found = lines.iter().filter_map(|line| line[figure].as_f64());
    found.collect()
}

/// What is trained on says yes, what is held out says no: after a while each step makes the held-out loss worse.
#[tokio::test]
async fn patience_ends_a_run_that_gets_worse_and_the_best_adapter_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    testkit::model::tiny(&folder.path().join("model"), 1).unwrap();
    let model = folder.path().join("model").display().to_string();
    let run = Run { folder, model };
    let say = |answer: &str| json!({"prompt": "mail: spam?", "completion": answer});
    run.records("train.jsonl", &[say(" yes")]);
    run.records("held.jsonl", &[say(" no")]);
    let (metrics, patience) = (run.path("steps.jsonl"), PATIENCE.to_string());
    let how = ["--batch", "1", "--learning-rate", "1e-2", "--keep", "best"];
    let stop = ["--patience", &patience, "--metrics", &metrics];
    let ended = run
        .train("stopped", STEPS, &[&how[..], &stop].concat())
        .await;
    let said = ended.json();

    let lines = run.lines("steps.jsonl");
    let losses = of(&lines, "held_out_loss");
    // A score before the first step and after each: it ended with the first three in a row that were no better than the best.
    let ended = said["ended_after"].as_u64().unwrap();
    assert!(ended < STEPS, "{losses:?}");
    assert_eq!(losses.len() as u64, ended + 1);
    assert_eq!(of(&lines, "loss").len() as u64, ended);
    let (mut best, mut since) = (0, 0);
    for (place, loss) in losses.iter().enumerate().skip(1) {
        assert!(since < PATIENCE, "it went on: {losses:?}");
        (best, since) = match *loss < losses[best] {
            true => (place, 0),
            false => (best, since + 1),
        };
    }
    assert_eq!(since, PATIENCE, "{losses:?}");
    assert_eq!(said["kept"]["steps"], best);
    assert!(best > 0, "nothing was learned: {losses:?}");

    // The adapter is that of a run that ends there by itself.
    let how = &how[..4];
    let alone = run.train("alone", best as u64, how).await.json();
    assert_eq!(said["sha256"], alone["sha256"]);
    // Without patience the same run goes on.
    let longer = run.train("longer", ended + 1, how).await.json();
    assert_eq!(longer["ended_after"], ended + 1);
}

/// The figures of the last score are those that `fedpipe eval` finds, and the report draws them.
#[tokio::test]
async fn an_encoders_scores_tell_its_accuracy_and_are_drawn() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = tests.join("../libs/engine/tests/reference/encoder");
    let run = Run {
        folder: tempfile::tempdir().unwrap(),
        model: model.canonicalize().unwrap().display().to_string(),
    };
    let record = |number: usize| {
        // Classes of unequal size, so that the two shares differ.
        let (label, word) = match number % 4 {
            0 => ("spam", "money"),
            _ => ("ham", "meeting"),
        };
        let letter = char::from(b'a' + (number % 26) as u8);
        json!({"text": format!("{letter} {word} {word}"), "label": label})
    };
    let records = |from: usize| (from..from + 16).map(record).collect::<Vec<_>>();
    run.records("train.jsonl", &records(0));
    run.records("held.jsonl", &records(16));
    let metrics = run.path("steps.jsonl");
    let how = ["--learning-rate", "2e-2", "--metrics", &metrics];
    let how = [&how[..], &["--sequence-length", "24"]].concat();
    let said = run.train("adapter", 5, &how).await.json();
    let lines = run.lines("steps.jsonl");
    let (accuracy, balanced) = (
        of(&lines, "held_out_accuracy"),
        of(&lines, "held_out_balanced_accuracy"),
    );
    assert_eq!((accuracy.len(), balanced.len()), (6, 6));
    assert!(
        accuracy != balanced && balanced[5] > balanced[0],
        "{balanced:?}"
    );
    assert_eq!(said["held_out"][5]["accuracy"], accuracy[5]);
    let words = ["--choice", "spam", "--choice", "ham"];
    let why = "an encoder tells its labels apart and writes no words: leave out --choice";
    run.train("none", 1, &words).await.failed(&[why]);

    let (held_out, adapter) = (run.path("held.jsonl"), run.path("adapter"));
    let mut words = vec!["eval", "--model", &run.model, "--adapter", &adapter];
    words.extend(["--data", &held_out, "--sequence-length", "24", "--json"]);
    let found = fedpipe(&words).await.json();
    assert_eq!(found["accuracy"], accuracy[5]);
    assert_eq!(found["balanced_accuracy"], balanced[5]);

    let drawn = run.path("run.svg");
    let curves = fedpipe(&["report", &metrics, "-o", &drawn, "--json"]).await;
    let curves = curves.json();
    for (measure, shares) in [("accuracy", accuracy), ("balanced_accuracy", balanced)] {
        let all = curves.as_array().unwrap().iter();
        let curve = all.clone().find(|curve| curve["measure"] == measure);
        let points = curve.unwrap()["points"].as_array().unwrap();
        let figures: Vec<f64> = points.iter().filter_map(|at| at[1].as_f64()).collect();
        assert_eq!(figures, shares, "{measure}");
    }
    let text = fs::read_to_string(&drawn).unwrap();
    assert!(text.contains(">accuracy by step<") && text.contains(">balanced accuracy by step<"));
}

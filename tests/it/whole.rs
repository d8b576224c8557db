//! `fedpipe train --parameters all`: a model's own parameters trained by forward passes, and the model that it leaves.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::wait;

/// Far beyond what the steps of the tiny model take.
const SOON: Duration = Duration::from_secs(120);
/// So many that a run can be seen at work and killed before they are made.
const STEPS: &str = "1000";

fn train(folder: &Path, out: &str, more: &[&str]) -> Command {
    let mut command = Command::new(tests::fleet::binary());
    let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/records.jsonl");
    command
        .args(["train", "--optimizer", "mezo", "--parameters", "all"])
        .arg("--model")
        .arg(folder.join("model"))
        .arg("--data")
        .arg(records)
        .arg("--out")
        .arg(folder.join(out))
        .arg("--metrics")
        .arg(folder.join(format!("{out}.jsonl")))
        .args(["--steps", STEPS, "--perturbations", "2", "--batch", "2"])
        .args(["--learning-rate", "2e-5", "--clip", "100"])
        .args(["--sequence-length", "96", "--threads", "2"])
        .args(more);
    command
}

fn ran(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    output
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn model(folder: &Path, out: &str) -> Vec<u8> {
    fs::read(folder.join(out).join("model.safetensors")).unwrap()
}

fn figures(folder: &Path, out: &str, name: &str) -> Vec<f64> {
    let text = fs::read_to_string(folder.join(format!("{out}.jsonl"))).unwrap();
    let line = |line| serde_json::from_str::<Value>(line).unwrap();
    text.lines()
        .filter_map(|text| line(text)[name].as_f64())
        .collect()
}

/// Kills it, which it cannot notice, once it has made so many steps.
async fn kill_after(folder: &Path, out: &str, child: &mut Child, steps: usize) {
    let metrics = folder.join(format!("{out}.jsonl"));
    wait::until("the run makes its steps", SOON, async || {
        let lines = fs::read_to_string(&metrics).unwrap_or_default();
        lines.lines().count() >= steps
    })
    .await;
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success(), "it had ended before it was killed");
}

/// The files of the base and the scalars are enough: nothing of the model's size is kept.
#[tokio::test]
async fn a_run_that_is_killed_twice_ends_with_the_model_of_an_undisturbed_one() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    testkit::model::tiny(&folder.join("model"), 1).unwrap();
    let scored = ["--held-out-share", "0.25", "--evaluate-every", "50"];
    ran(&mut train(folder, "undisturbed", &scored));

    let saved = [&scored[..], &["--save-every", "7", "--resume"]].concat();
    for steps in [20, 80] {
        let mut command = train(folder, "killed", &saved);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        kill_after(folder, "killed", &mut child, steps).await;
        assert!(!folder.join("killed").exists());
        let kept = fs::metadata(folder.join("killed.checkpoint")).unwrap();
        assert!(kept.len() < 64 << 10, "{} bytes", kept.len());
    }
    let other = [&saved[..], &["--perturbation", "1e-2"]].concat();
    let refused = train(folder, "killed", &other).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("other settings (walk"), "{said}");

    ran(&mut train(folder, "killed", &saved));
    assert!(
        model(folder, "killed") == model(folder, "undisturbed"),
        "other bytes"
    );
    for name in ["loss", "held_out_loss"] {
        let [one, other] = ["killed", "undisturbed"].map(|out| figures(folder, out, name));
        assert_eq!(one, other, "{name}");
    }
    let held_out = figures(folder, "killed", "held_out_loss");
    assert!(held_out.last() < held_out.first(), "{held_out:?}");
    assert!(!folder.join("killed.checkpoint").exists());
}

/// What a run leaves is a model like any other: it is scored as the run scored it, and may be trained further.
#[test]
fn the_best_model_is_that_of_its_step_and_is_used_like_any_other() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    testkit::model::tiny(&folder.join("model"), 1).unwrap();
    // So fast that it is worse in the end than it was in between: by 0.08, while after so few steps one vector unit's losses
    // are within 1e-4 of another's.
    let wild = ["--learning-rate", "5e-3"];
    let scored = ["--held-out-share", "0.25", "--evaluate-every", "5"];
    let plain = |out: &str, more: &[&str]| {
        let mut command = Command::new(tests::fleet::binary());
        let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/records.jsonl");
        command
            .args(["train", "--optimizer", "mezo", "--parameters", "all"])
            .arg("--model")
            .arg(folder.join("model"))
            .arg("--data")
            .arg(records)
            .arg("--out")
            .arg(folder.join(out))
            .args(["--sequence-length", "96", "--threads", "2", "--json"])
            .args(more);
        json(&ran(&mut command))
    };
    let long = [&wild[..], &scored, &["--steps", "30", "--keep", "best"]].concat();
    let best = plain("best", &long);
    let steps = best["kept"]["steps"].as_u64().unwrap();
    assert!(0 < steps && steps < 30, "{best}");
    assert!(best["parameters"].as_u64().unwrap() > 10_000);
    let count = steps.to_string();
    let short = plain(
        "short",
        &[&wild[..], &scored, &["--steps", &count]].concat(),
    );
    assert_eq!(short["parameters_sha256"], best["parameters_sha256"]);
    assert!(model(folder, "short") == model(folder, "best"));
    let mut further = Command::new(tests::fleet::binary());
    let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/records.jsonl");
    further
        .arg("train")
        .arg("--model")
        .arg(folder.join("best"))
        .arg("--data")
        .arg(records)
        .arg("--out")
        .arg(folder.join("adapter"))
        .args(["--steps", "1", "--sequence-length", "96", "--threads", "2"]);
    ran(&mut further);
    assert!(folder.join("adapter/adapter_model.safetensors").is_file());
}

/// What the steps found is not lost with the folder that was to be made of it.
#[tokio::test]
async fn a_model_that_cannot_be_written_is_made_of_its_steps_later() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    testkit::model::tiny(&folder.join("model"), 1).unwrap();
    // No score is better by as much, so it ends with the first after the beginning's; that is long after it was seen at work.
    let patient = [
        &["--held-out-share", "0.25", "--evaluate-every", "400"][..],
        &["--patience", "1", "--min-delta", "10"],
    ]
    .concat();
    ran(&mut train(folder, "undisturbed", &patient));

    let mut command = train(folder, "late", &patient);
    let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let metrics = folder.join("late.jsonl");
    wait::until("the run makes its steps", SOON, async || {
        !fs::read(&metrics).unwrap_or_default().is_empty()
    })
    .await;
    // Somebody else takes the place.
    fs::create_dir(folder.join("late")).unwrap();
    fs::write(folder.join("late/file"), "theirs").unwrap();
    let refused = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("late.checkpoint has its steps"), "{said}");
    assert_eq!(fs::read_dir(folder.join("late")).unwrap().count(), 1);

    fs::remove_dir_all(folder.join("late")).unwrap();
    let again = [&patient[..], &["--resume", "--json"]].concat();
    let again = json(&ran(&mut train(folder, "late", &again)));
    assert_eq!(again["loss"], Value::Null, "a step was made again");
    assert_eq!(again["ended_after"], 400, "{again}");
    assert!(
        model(folder, "late") == model(folder, "undisturbed"),
        "other bytes"
    );
    assert!(!folder.join("late.checkpoint").exists());
}

/// A file that was replaced is another, whatever it is called.
#[tokio::test]
async fn a_checkpoint_is_of_the_files_that_it_was_made_of() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    testkit::model::tiny(&folder.join("model"), 1).unwrap();
    let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/records.jsonl");
    let records = fs::read_to_string(records).unwrap();
    let data = folder.join("records.jsonl");
    fs::write(&data, &records).unwrap();
    let again = || {
        let mut command = Command::new(tests::fleet::binary());
        command
            .args(["train", "--optimizer", "mezo", "--parameters", "all"])
            .arg("--model")
            .arg(folder.join("model"))
            .arg("--data")
            .arg(&data)
            .arg("--out")
            .arg(folder.join("out"))
            .args(["--steps", "400", "--save-every", "1", "--resume"])
            .args(["--sequence-length", "96", "--threads", "2"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    };
    let mut child = again().spawn().unwrap();
    let checkpoint = folder.join("out.checkpoint");
    wait::until("a checkpoint is written", SOON, async || {
        checkpoint.is_file()
    })
    .await;
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it had ended before");

    let refused_of = |key: &str, mut command: Command| {
        let refused = command.output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{key}: {said}");
        assert!(said.contains(&format!("other settings ({key}")), "{said}");
    };
    let refused = |key: &str| refused_of(key, again());
    // As many records, and other words.
    fs::write(&data, records.replace("Answer", "Result")).unwrap();
    refused("data_sha256");
    fs::write(&data, &records).unwrap();
    testkit::model::tiny(&folder.join("model"), 2).unwrap();
    refused("model_sha256");
    testkit::model::tiny(&folder.join("model"), 1).unwrap();
    // The same weights, and other words around them.
    let template = folder.join("model/chat_template.jinja");
    fs::write(&template, "{{ messages[0]['content'] }}").unwrap();
    refused("model_sha256");
    fs::remove_file(&template).unwrap();
    let mut other = again();
    other.args(["--format", "completion"]);
    refused_of("format", other);
}

#[test]
fn what_does_not_go_with_all_parameters_is_refused_with_the_reason() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    testkit::model::tiny(&folder.join("model"), 1).unwrap();
    fs::create_dir(folder.join("mine")).unwrap();
    fs::write(folder.join("mine/file"), "kept").unwrap();
    for (out, more, said) in [
        ("out", &["--most-parameters", "1000"][..], "1000 at most"),
        ("out", &["--base", "nf4"], "in f32"),
        ("out", &["--compute", "bf16"], "in f32"),
        ("out", &["--init-adapter", "x"], "--init-adapter"),
        ("out", &["--label", "a", "--label", "b"], "--label"),
        ("out", &["--checkpoint"], "--checkpoint"),
        ("out", &["--weight-decay", "0.1"], "--weight-decay"),
        ("mine", &[], "there already"),
    ] {
        let refused = train(folder, out, more).output().unwrap();
        let words = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{more:?}: {words}");
        assert!(words.contains(said), "{more:?}: {words}");
        assert!(!folder.join("out").exists());
    }
    // Gradients are of adapters alone, in training as in its benchmark.
    for words in [
        &["train", "--steps", "1", "--data", "d", "--out", "o"][..],
        &["bench", "train"],
    ] {
        let mut command = Command::new(tests::fleet::binary());
        command.args(words).args(["--parameters", "all", "--model"]);
        let refused = command.arg(folder.join("model")).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("mezo's"), "{said}");
    }
}

/// A step takes hardly more memory than a forward pass of the same rows, and is told what it is.
#[test]
fn bench_measures_steps_of_all_parameters() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    testkit::model::tiny(&folder.join("model"), 1).unwrap();
    let mut bench = Command::new(tests::fleet::binary());
    bench
        .args(["bench", "train", "--optimizer", "mezo", "--parameters"])
        .args(["all", "--batch", "2", "--seq", "40", "--json", "--model"])
        .arg(folder.join("model"));
    let told = json(&ran(&mut bench));
    assert_eq!(
        (&told["parameters"], &told["base"]),
        (&"all".into(), &"f32".into())
    );
    let parameters = told["parameters_trained"].as_f64().unwrap();
    assert_eq!(told["base_bytes"].as_f64(), Some(4.0 * parameters));
    assert!(told["tokens_per_second"].as_f64().unwrap() > 0.0);
    assert!(told["loss"].as_f64().unwrap().is_finite());
}

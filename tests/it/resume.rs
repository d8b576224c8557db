//! `fedpipe train` killed in the middle and started again.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::wait;

/// Far beyond what two hundred steps of the tiny model take.
const SOON: Duration = Duration::from_secs(120);
const STEPS: &str = "200";

fn train(folder: &Path, out: &str, more: &[&str]) -> Command {
    let mut command = Command::new(tests::fleet::binary());
    let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/records.jsonl");
    command
        .arg("train")
        .arg("--model")
        .arg(folder.join("model"))
        .arg("--data")
        .arg(records)
        .arg("--out")
        .arg(folder.join(out))
        .arg("--metrics")
        .arg(folder.join(format!("{out}.jsonl")))
        .args(["--steps", STEPS, "--accumulate", "2"])
        .args(["--schedule", "cosine", "--warmup", "10", "--dropout", "0.1"])
        .args([
            "--weight-decay",
            "0.01",
            "--sequence-length",
            "96",
            "--threads",
            "2",
        ])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Zeroth-order steps of an adapter.
fn walk(folder: &Path, out: &str, steps: &str, more: &[&str]) -> Command {
    let mut command = Command::new(tests::fleet::binary());
    let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/records.jsonl");
    command
        .args(["train", "--optimizer", "mezo", "--model"])
        .arg(folder.join("model"))
        .arg("--data")
        .arg(records)
        .arg("--out")
        .arg(folder.join(out))
        .arg("--metrics")
        .arg(folder.join(format!("{out}.jsonl")))
        .args(["--steps", steps, "--perturbations", "4", "--batch", "2"])
        .args(["--learning-rate", "1e-3", "--clip", "50"])
        .args(["--sequence-length", "96", "--threads", "2"])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// What is said by a run that does not begin.
fn refused(command: &mut Command) -> String {
    let refused = command.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    said
}

fn adapter(folder: &Path, out: &str) -> Vec<u8> {
    fs::read(folder.join(out).join("adapter_model.safetensors")).unwrap()
}

fn losses(folder: &Path, out: &str) -> Vec<(u64, f64)> {
    let lines = fs::read_to_string(folder.join(format!("{out}.jsonl"))).unwrap();
    let line = |line: &str| -> (u64, f64) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let loss = line["loss"].as_f64();
        let loss = loss.or_else(|| line["held_out_loss"].as_f64());
        (line["step"].as_u64().unwrap(), loss.unwrap())
    };
    lines.lines().map(line).collect()
}

/// Waits until the run has made so many steps, and kills it.
async fn kill_after(folder: &Path, out: &str, child: &mut Child, steps: usize) {
    let metrics = folder.join(format!("{out}.jsonl"));
    wait::until("the run makes its steps", SOON, async || {
        let lines = fs::read_to_string(&metrics).unwrap_or_default();
        lines.lines().count() >= steps
    })
    .await;
    // SIGKILL: the process has no chance to tidy up.
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success(), "it had ended before it was killed");
}

#[tokio::test]
async fn a_run_that_is_killed_twice_ends_with_the_adapter_of_an_undisturbed_one() {
    for optimizer in [
        &["--optimizer", "adamw", "--batch", "2"][..],
        &["--optimizer", "sgd", "--momentum", "0.9", "--batch", "2"],
        &[
            "--batch-tokens",
            "192",
            "--held-out-share",
            "0.25",
            "--evaluate-every",
            "10",
            "--keep",
            "best",
        ],
    ] {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path();
        testkit::model::tiny(&folder.join("model"), 1).unwrap();
        let undisturbed = train(folder, "undisturbed", optimizer).status().unwrap();
        assert!(undisturbed.success());

        let saved = [optimizer, &["--save-every", "7", "--resume"]].concat();
        for steps in [20, 60] {
            let mut child = train(folder, "killed", &saved).spawn().unwrap();
            kill_after(folder, "killed", &mut child, steps).await;
            assert!(!folder.join("killed").exists());
            assert!(folder.join("killed.checkpoint").is_file());
        }
        let other = [&saved[..], &["--seed", "9"]].concat();
        let refused = train(folder, "killed", &other)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1));
        assert!(said.contains("seed: 0 then, 9 now"), "{said}");

        let ended = train(folder, "killed", &saved).status().unwrap();
        assert!(ended.success());
        assert!(
            adapter(folder, "killed") == adapter(folder, "undisturbed"),
            "other bytes"
        );
        assert_eq!(losses(folder, "killed"), losses(folder, "undisturbed"));
        assert!(!folder.join("killed.checkpoint").exists());
        assert!(!folder.join("killed.best").exists());
    }
}

/// The adapter that it began with and the scalars are enough.
#[tokio::test]
async fn a_walk_that_is_killed_twice_ends_with_the_adapter_of_an_undisturbed_one() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    testkit::model::tiny(&folder.join("model"), 1).unwrap();
    let begun = walk(folder, "start", "5", &[]).status().unwrap();
    assert!(begun.success());
    let start = folder.join("start");
    let mut flags = vec!["--init-adapter", start.to_str().unwrap()];
    flags.extend(["--held-out-share", "0.25", "--evaluate-every", "50"]);
    let undisturbed = walk(folder, "undisturbed", "400", &flags).status().unwrap();
    assert!(undisturbed.success());

    let saved = [&flags[..], &["--save-every", "7", "--resume"]].concat();
    for steps in [20, 100] {
        let mut child = walk(folder, "killed", "400", &saved).spawn().unwrap();
        kill_after(folder, "killed", &mut child, steps).await;
        assert!(!folder.join("killed").exists());
        // Neither factors nor moments.
        let kept = fs::metadata(folder.join("killed.checkpoint")).unwrap();
        assert!(kept.len() < 64 << 10, "{} bytes", kept.len());
    }
    let other = [&saved[..], &["--perturbation", "5e-3"]].concat();
    let said = refused(&mut walk(folder, "killed", "400", &other));
    assert!(said.contains("other settings (walk"), "{said}");
    // Another adapter under the same name would end elsewhere.
    let file = start.join("adapter_model.safetensors");
    let own = fs::read(&file).unwrap();
    fs::write(&file, adapter(folder, "undisturbed")).unwrap();
    let said = refused(&mut walk(folder, "killed", "400", &saved));
    assert!(said.contains("other settings (start"), "{said}");
    fs::write(&file, own).unwrap();
    // Whose steps a checkpoint could not hold is told so before the first.
    let long = [&flags[..], &["--save-every", "7"]].concat();
    let said = refused(&mut walk(folder, "long", "9000000", &long));
    assert!(said.contains("a checkpoint has 67108864 at most"), "{said}");

    let ended = walk(folder, "killed", "400", &saved).status().unwrap();
    assert!(ended.success());
    assert!(
        adapter(folder, "killed") == adapter(folder, "undisturbed"),
        "other bytes"
    );
    assert!(adapter(folder, "killed") != adapter(folder, "start"));
    assert_eq!(losses(folder, "killed"), losses(folder, "undisturbed"));
    assert!(!folder.join("killed.checkpoint").exists());
}

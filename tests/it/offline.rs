//! The commands that use the engine without services: `fedpipe train` and `fedpipe bench`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use serde_json::{Value, json};

/// What every `fedpipe train` of these tests has in common.
const PLAIN: [&str; 10] = [
    "--order",
    "file",
    "--schedule",
    "constant",
    "--clip-norm",
    "0",
    "--weight-decay",
    "0",
    "--threads",
    "2",
];

/// Runs fedpipe.
fn fedpipe(words: &[&str]) -> Output {
    let mut command = Command::new(tests::fleet::binary());
    command.args(words).output().unwrap()
}

fn succeeded(output: &Output) -> &Output {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    output
}

fn tiny(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    testkit::model::tiny(&model, 1).unwrap();
    model
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("reference")
        .join(name)
}

fn steps(metrics: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(metrics).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// `losses.json`, made by `make_losses.py` beside it.
#[derive(Deserialize)]
struct Losses {
    learning_rate: f64,
    sequence_length: usize,
    batch: usize,
    losses: Vec<f64>,
}

/// Both sides compute in f32 and sum in another order; over ten steps that stays far below this.
const LOSS: f64 = 1e-3;

#[test]
fn ten_steps_of_fedpipe_train_on_smollm2_have_pytorchs_losses() {
    let Some(model) = testkit::model::real("FEDPIPE_SMOLLM2") else {
        return;
    };
    let want: Losses =
        serde_json::from_slice(&fs::read(reference("losses.json")).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    formula_adapter(&path("start"));
    let numbers = [
        want.losses.len().to_string(),
        want.learning_rate.to_string(),
        want.sequence_length.to_string(),
        want.batch.to_string(),
    ];
    let (data, start, out) = (reference("records.jsonl"), path("start"), path("out"));
    let metrics = path("metrics.jsonl");
    let mut words = vec!["train", "--model", text(&model), "--base", "f32"];
    words.extend(["--init-adapter", text(&start), "--data", text(&data)]);
    words.extend(["--out", text(&out), "--metrics", text(&metrics)]);
    let flags = ["--steps", "--learning-rate", "--sequence-length", "--batch"];
    for (flag, number) in flags.into_iter().zip(&numbers) {
        words.extend([flag, number.as_str()]);
    }
    words.extend(PLAIN);
    succeeded(&fedpipe(&words));
    let got = steps(&metrics);
    assert_eq!(got.len(), want.losses.len());
    for (step, (line, want)) in got.iter().zip(&want.losses).enumerate() {
        assert_eq!(line["step"], step);
        let loss = line["loss"].as_f64().unwrap();
        assert!(
            (loss - want).abs() <= LOSS * want,
            "step {step}: {loss}, PyTorch {want}"
        );
    }
    assert!(out.join("adapter_model.safetensors").is_file());
}

/// An adapter of SmolLM2-135M as PEFT would save it: rank 8, alpha 16, every value from a formula.
fn formula_adapter(folder: &Path) {
    const RANK: usize = 8;
    let (hidden, inner, keys) = (576, 1536, 192);
    let shapes = [
        ("self_attn.q_proj", hidden, hidden),
        ("self_attn.k_proj", keys, hidden),
        ("self_attn.v_proj", keys, hidden),
        ("self_attn.o_proj", hidden, hidden),
        ("mlp.gate_proj", inner, hidden),
        ("mlp.up_proj", inner, hidden),
        ("mlp.down_proj", hidden, inner),
    ];
    let wave = |len: usize, f: fn(f64) -> f64| -> Vec<u8> {
        let value = |i: usize| (0.02 * f(0.37 * i as f64)) as f32;
        (0..len).flat_map(|i| value(i).to_le_bytes()).collect()
    };
    let mut tensors = Vec::new();
    for layer in 0..30 {
        for (module, out, inp) in shapes {
            let key = format!("base_model.model.model.layers.{layer}.{module}");
            let (a, b) = (wave(RANK * inp, f64::sin), wave(out * RANK, f64::cos));
            tensors.push((format!("{key}.lora_A.weight"), vec![RANK, inp], a));
            tensors.push((format!("{key}.lora_B.weight"), vec![out, RANK], b));
        }
    }
    let views = tensors.iter().map(|(key, shape, data)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), data).unwrap();
        (key, view)
    });
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(about)).unwrap();
    let modules: Vec<&str> = shapes
        .iter()
        .filter_map(|(module, ..)| module.split('.').next_back())
        .collect();
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 16,
        "lora_dropout": 0.0, "bias": "none", "target_modules": modules,
    });
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("adapter_model.safetensors"), bytes).unwrap();
    fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
}

#[test]
fn a_loss_that_is_no_number_names_the_step_and_the_records() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (tiny(folder.path()), folder.path().join("out"));
    let data = reference("records.jsonl");
    let mut words = vec!["train", "--model", text(&model), "--data", text(&data)];
    words.extend(["--out", text(&out), "--steps", "9", "--batch", "2"]);
    words.extend(["--learning-rate", "1e30", "--sequence-length", "128"]);
    words.extend(PLAIN);
    let output = fedpipe(&words);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    let (step, records) = (
        said.contains("of step 1 is not finite"),
        said.contains("records [2, 3]"),
    );
    assert!(step && records, "{said}");
    assert!(!out.exists(), "nothing was saved");
}

/// A limit of the process holds as one of its container would; `ulimit -d` is in KiB.
#[test]
fn what_would_not_fit_is_refused_before_it_is_begun_with_what_would() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (tiny(folder.path()), reference("records.jsonl"));
    let out = folder.path().join("out");
    let limited = |words: &[&str]| -> Output {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -d 400000; exec \"$0\" \"$@\""]);
        command.arg(tests::fleet::binary()).args(words);
        command.output().unwrap()
    };
    let path = text(&model);
    let bench = [
        "bench", "train", "--model", path, "--batch", "5000", "--seq", "200",
    ];
    let mut train = vec![
        "train",
        "--model",
        path,
        "--data",
        text(&data),
        "--out",
        text(&out),
    ];
    train.extend([
        "--steps",
        "1",
        "--batch",
        "5000",
        "--sequence-length",
        "200",
    ]);
    for words in [&bench[..], &train[..]] {
        let output = limited(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("this would not fit; --ignore-memory"),
            "{said}"
        );
        assert!(
            said.contains(" MiB are needed and 391 MiB allowed"),
            "{said}"
        );
        assert!(
            said.contains("enough would be") && said.contains("batch "),
            "{said}"
        );
    }
    assert!(!out.exists(), "nothing was begun");
    let small = [
        "bench", "train", "--model", path, "--batch", "2", "--seq", "40", "--steps", "1",
    ];
    succeeded(&limited(&small));
}

#[test]
fn bench_prints_one_json_object_with_every_figure() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    let measure = |words: &[&str]| -> Value {
        let mut all = vec!["bench", words[0], "--model", text(&model), "--base", "f32"];
        all.extend([
            "--batch",
            "2",
            "--seq",
            "40",
            "--steps",
            "1",
            "--threads",
            "2",
            "--json",
        ]);
        all.extend(&words[1..]);
        let output = fedpipe(&all);
        serde_json::from_slice(&succeeded(&output).stdout).unwrap()
    };
    let adapter = ["--rank", "4", "--targets", "all-linear"];
    for words in [
        vec!["forward"],
        [&["train", "--checkpoint"][..], &adapter].concat(),
        [&["train", "--optimizer", "mezo"][..], &adapter].concat(),
        [&["train", "--optimizer", "adamw"][..], &adapter].concat(),
    ] {
        let figures = measure(&words);
        for key in [
            "tokens_per_second",
            "peak_mib",
            "loss",
            "achieved_gflops",
            "roofline_gflops",
            "fraction_of_roofline",
            "threads",
        ] {
            let value = figures[key].as_f64();
            assert!(
                value.is_some_and(|value| value > 0.0),
                "{words:?}: {key} in {figures}"
            );
        }
        assert_eq!(
            (&figures["base"], &figures["compute"]),
            (&json!("f32"), &json!("f32"))
        );
        assert!(
            figures["kernel"]
                .as_str()
                .is_some_and(|id| id.contains("f32")),
            "{figures}"
        );
        let (achieved, roofline) = (&figures["achieved_gflops"], &figures["roofline_gflops"]);
        let fraction = achieved.as_f64().unwrap() / roofline.as_f64().unwrap();
        let said = figures["fraction_of_roofline"].as_f64().unwrap();
        assert!((fraction - said).abs() < 1e-9, "{figures}");
    }
}

/// Records that the tiny model can read.
fn records(path: &Path) {
    let line = |number: usize| {
        let answer = if number.is_multiple_of(2) {
            " yes"
        } else {
            " no"
        };
        json!({"prompt": format!("mail {number}: spam?"), "completion": answer}).to_string()
    };
    let lines: Vec<String> = (0..16).map(line).collect();
    fs::write(path, lines.join("\n")).unwrap();
}

#[test]
fn zeroth_order_training_on_one_machine_is_the_same_for_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    let path = |name: &str| folder.path().join(name);
    records(&path("data.jsonl"));
    let train = |more: &[&str]| {
        let (data, out) = (path("data.jsonl"), path("out"));
        let mut words = vec!["train", "--model", text(&model), "--data", text(&data)];
        words.extend([
            "--out",
            text(&out),
            "--steps",
            "40",
            "--batch",
            "8",
            "--json",
        ]);
        words.extend(["--rank", "4", "--optimizer", "mezo"]);
        words.extend(more);
        fedpipe(&words)
    };
    let said =
        |output: Output| -> Value { serde_json::from_slice(&succeeded(&output).stdout).unwrap() };
    let two = [
        "--perturbations",
        "2",
        "--clip",
        "50",
        "--learning-rate",
        "1e-3",
    ];
    let one = said(train(&[&two[..], &["--threads", "1"]].concat()));
    let other = said(train(&[&two[..], &["--threads", "2"]].concat()));
    assert_eq!(one["sha256"], other["sha256"]);
    assert_eq!(one["skipped_steps"], 0);
    let signs = said(train(
        &[&two[..], &["--distribution", "rademacher"]].concat(),
    ));
    assert_ne!(signs["sha256"], one["sha256"]);
    let metrics = path("steps.jsonl");
    succeeded(&train(&[
        "--learning-rate",
        "1e-3",
        "--metrics",
        text(&metrics),
    ]));
    let losses: Vec<f64> = steps(&metrics)
        .iter()
        .map(|step| step["loss"].as_f64().unwrap())
        .collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&losses[..8]), mean(&losses[32..]));
    assert!(last < first, "{first} to {last}");
    for wrong in [
        &["--checkpoint"][..],
        &["--schedule", "linear"],
        &["--weight-decay", "0.1"],
        &["--perturbations", "0"],
        &["--compute", "bf16"],
        &["--compute", "int8"],
    ] {
        let refused = train(wrong);
        assert_eq!(refused.status.code(), Some(1), "{wrong:?}");
        let why = String::from_utf8_lossy(&refused.stderr);
        assert!(
            why.contains("mezo") || why.contains("--perturbations"),
            "{why}"
        );
        let gate = why.contains("fedpipe bench zo-agreement");
        assert_eq!(gate, wrong[0] == "--compute", "{why}");
    }
}

#[test]
fn training_among_choices_learns_which_of_them_follows_and_scores_by_them() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    let path = |name: &str| folder.path().join(name);
    records(&path("data.jsonl"));
    let train = |more: &[&str]| {
        let (data, out) = (path("data.jsonl"), path("out"));
        let mut words = vec!["train", "--model", text(&model), "--data", text(&data)];
        words.extend(["--out", text(&out), "--rank", "4", "--json"]);
        words.extend(more);
        fedpipe(&words)
    };
    let pair = ["--choice", " yes", "--choice", " no"];
    let held_out = path("data.jsonl");
    let metrics = path("steps.jsonl");
    let learn = [
        "--steps",
        "30",
        "--learning-rate",
        "1e-2",
        "--metrics",
        text(&metrics),
    ];
    let score = ["--held-out", text(&held_out), "--evaluate-every", "30"];
    let said = train(&[&pair[..], &learn, &score].concat());
    let said = String::from_utf8_lossy(&succeeded(&said).stdout).into_owned();
    assert!(said.contains("balanced_accuracy"), "{said}");
    // What was kept says the same of the same records when it is asked for its choices.
    let said: Value = serde_json::from_str(&said).unwrap();
    let scored = &said["held_out"][1]["loss"];
    let (data, out) = (path("data.jsonl"), path("out"));
    let mut ask = vec!["eval", "--model", text(&model), "--data", text(&data)];
    ask.extend(["--adapter", text(&out), "--json"]);
    ask.extend(pair);
    let asked: Value = serde_json::from_slice(&succeeded(&fedpipe(&ask)).stdout).unwrap();
    let of_choices = asked["loss_among_choices"].as_f64().unwrap();
    let apart = (of_choices - scored.as_f64().unwrap()).abs();
    assert!(apart < 1e-5, "{asked} and {said}");
    let told = steps(&metrics);
    let losses: Vec<f64> = told
        .iter()
        .filter_map(|step| step["loss"].as_f64())
        .collect();
    // To know nothing of all words would be more than 5.
    let sum = |part: &[f64]| part.iter().sum::<f64>();
    assert!(losses[0] < 3.0, "{losses:?}");
    assert!(sum(&losses[25..]) < sum(&losses[..5]), "{losses:?}");
    let shown = train(&[&pair[..], &["--preview", "1"]].concat());
    let shown = String::from_utf8_lossy(&succeeded(&shown).stdout).into_owned();
    assert!(shown.contains(" yes") || shown.contains(" no"), "{shown}");
    let alone = train(&["--choice", " yes", "--steps", "1"]);
    let why = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert_eq!(alone.status.code(), Some(1), "{why}");
    assert!(why.contains("give two or more"), "{why}");
}

#[test]
fn bench_says_whether_slopes_in_a_faster_arithmetic_mean_what_they_mean_in_f32() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    let data = folder.path().join("data.jsonl");
    records(&data);
    let compare = |compute: &str, more: &[&str]| -> Value {
        let mut words = vec!["bench", "zo-agreement", "--model", text(&model)];
        words.extend(["--base", "f32", "--compute", compute, "--rank", "4"]);
        words.extend(["--seq", "40", "--threads", "2", "--json"]);
        words.extend(more);
        serde_json::from_slice(&succeeded(&fedpipe(&words)).stdout).unwrap()
    };
    let figure = |said: &Value, name: &str| said[name].as_f64().unwrap();
    for more in [&[][..], &["--data", text(&data)]] {
        let same = compare("f32", more);
        assert_eq!(same["passes"], true, "{same}");
        assert_eq!(
            (figure(&same, "signs"), figure(&same, "difference")),
            (1.0, 0.0)
        );
        let coarse = compare("int8", more);
        assert_eq!(coarse["pairs"], 64);
        assert!(figure(&coarse, "difference") > 0.02, "{coarse}");
        let passes = figure(&coarse, "signs") >= figure(&coarse, "least_signs")
            && figure(&coarse, "difference") <= figure(&coarse, "most_difference");
        assert_eq!(coarse["passes"], passes, "{coarse}");
        assert_ne!(coarse["kernel"], coarse["exact_kernel"]);
        // Records of a file are labelled as they are.
        let labelled = more.is_empty().then_some(40);
        assert_eq!(coarse["labelled"].as_u64(), labelled, "{coarse}");
    }
    // The loss of other tokens has other slopes.
    let (all, few) = (compare("int8", &[]), compare("int8", &["--labelled", "8"]));
    assert_eq!(few["labelled"], 8);
    assert_ne!(few["difference"], all["difference"]);
    for (wrong, because) in [
        (&["--perturbation", "0"][..], "--perturbation"),
        (&["--labelled", "0"][..], "--labelled"),
        (&["--labelled", "41", "--seq", "40"][..], "--labelled"),
    ] {
        let mut words = vec!["bench", "zo-agreement", "--model", text(&model)];
        words.extend(wrong);
        let refused = fedpipe(&words);
        assert_eq!(refused.status.code(), Some(1), "{wrong:?}");
        let why = String::from_utf8_lossy(&refused.stderr);
        assert!(why.contains(because), "{why}");
    }
    let mut both = vec!["bench", "zo-agreement", "--model", text(&model)];
    both.extend(["--data", text(&data), "--labelled", "8"]);
    assert!(!fedpipe(&both).status.success());
}

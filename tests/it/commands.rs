//! The command line without a terminal: lines, JSON, and exit codes 0, 1 and 2.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::command::{Ended, fedpipe};
use tests::job::{job, scored, with};
use tests::{Fleet, Setup, Site};

/// A folder with the tiny model and mails.
struct Bench {
    folder: TempDir,
    mails: testkit::data::Mails,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        testkit::model::tiny(&folder.path().join("model"), 1).unwrap();
        let mails = testkit::data::mails(folder.path(), "a", 24, 1).unwrap();
        Self { folder, mails }
    }

    fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name))
    }

    async fn run(&self, command: &str, more: &[&str]) -> Ended {
        let model = self.path("model");
        let mut arguments = vec![command, "--model", &model, "--threads", "1"];
        arguments.extend(more);
        fedpipe(&arguments).await
    }

    async fn train(&self, out: &str, more: &[&str]) -> Ended {
        let (data, out) = (text(&self.mails.train), self.path(out));
        let mut all = vec!["--data", &data, "--out", &out, "--steps", "4"];
        all.extend(["--sequence-length", "96", "--learning-rate", "1e-2"]);
        all.extend(more);
        self.run("train", &all).await
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Half of the real model: its header is whole, its weights are not.
fn cut_gguf(folder: &Path) -> PathBuf {
    let of_setup = "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf";
    let whole = std::env::var_os("FEDPIPE_SMOLLM2")
        .map_or_else(|| testkit::tool::folder().join(of_setup), PathBuf::from);
    // `./run setup smollm2` puts it there.
    let bytes = fs::read(&whole).unwrap();
    let cut = folder.join("cut.gguf");
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    cut
}

#[tokio::test]
async fn training_scoring_and_generating_need_no_services_and_repeat_to_the_byte() {
    let bench = Bench::new();
    let said = bench.train("one", &[]).await.good();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}");
    assert!(lines[0].starts_with("step 1/4  loss "), "{said}");
    assert!(lines[4].contains("adapter sha256:"), "{said}");
    let again = bench.train("two", &["--json"]).await.json();
    let sha256 = again["sha256"].as_str().unwrap();
    assert!(lines[4].ends_with(sha256), "{said} and {again}");
    let bytes = fs::read(bench.path("two/adapter_model.safetensors")).unwrap();
    assert_eq!(tests::archive::digest(&bytes), sha256);
    let other = bench.train("three", &["--json", "--seed", "1"]).await;
    assert_ne!(other.json()["sha256"], sha256);

    let data = text(&bench.mails.held_out);
    let ask = ["--data", &data, "--sequence-length", "96"];
    let before = bench.run("eval", &[&ask[..], &["--json"]].concat()).await;
    let before = before.json();
    let adapter = bench.path("one");
    let with_adapter = [&ask[..], &["--adapter", &adapter, "--json"]].concat();
    let after = bench.run("eval", &with_adapter).await.json();
    let loss = |figures: &Value| figures["loss"].as_f64().unwrap();
    assert!(loss(&after) < loss(&before), "{before} and {after}");
    assert_eq!(
        (&after["records"], &after["refused"]),
        (&json!(8), &json!(0))
    );
    let choices = ["--choice", " yes", "--choice", " no"];
    let words = bench.run("eval", &[&ask[..], &choices].concat()).await;
    let words = words.good();
    assert!(words.contains("balanced accuracy: 0."), "{words}");
    assert!(words.contains("records: 8 (0 refused)"), "{words}");

    let prompt = ["--prompt", "a 1: cash", "--tokens", "5"];
    let as_json = [&prompt[..], &["--json"]].concat();
    let made = bench.run("generate", &as_json).await.json();
    assert!(made["tokens"].as_u64().unwrap() <= 5, "{made}");
    let shown = bench.run("generate", &prompt).await.good();
    assert_eq!(shown.trim_end_matches('\n'), made["text"].as_str().unwrap());
}

#[tokio::test]
async fn unreadable_records_are_skipped_counted_and_said() {
    let bench = Bench::new();
    let mut records = fs::read_to_string(&bench.mails.train).unwrap();
    let clean = bench.train("clean", &["--json"]).await;
    assert_eq!(clean.err, "");
    records.push_str("{\"prompt\": \"cut\nnot json\n{\"other\": 1}\n");
    fs::write(&bench.mails.train, records).unwrap();
    let trained = bench.train("dirty", &["--json"]).await;
    assert!(trained.err.contains("3 skipped: "), "{trained:?}");
    assert_eq!(trained.json()["sha256"], clean.json()["sha256"]);
}

#[tokio::test]
async fn what_cannot_be_used_is_named_and_is_no_success() {
    let bench = Bench::new();
    let (data, out) = (text(&bench.mails.train), bench.path("out"));
    let missing = bench.path("nowhere");
    let cut = text(&cut_gguf(bench.folder.path()));
    let magic = bench.path("other.gguf");
    fs::write(&magic, vec![b'x'; 4096]).unwrap();
    let empty = bench.path("empty.jsonl");
    fs::write(&empty, "").unwrap();
    for (model, words) in [
        (&missing, ["nowhere", "model"]),
        (&cut, ["cut.gguf", "model"]),
        (&magic, ["other.gguf", "begins with the wrong bytes"]),
    ] {
        let train = ["train", "--model", model, "--data", &data, "--out", &out];
        let train = fedpipe(&[&train[..], &["--steps", "1"]].concat()).await;
        train.failed(&words);
        let eval = fedpipe(&["eval", "--model", model, "--data", &data]).await;
        eval.failed(&words);
        let made = fedpipe(&["generate", "--model", model, "--prompt", "x"]).await;
        made.failed(&words);
        assert_eq!(train.err.lines().count(), 1, "{train:?}");
    }
    assert!(!Path::new(&out).exists(), "an adapter of nothing");
    let at = |path| ["--data", path, "--out", out.as_str(), "--steps", "1"];
    bench.run("train", &at(&missing)).await.failed(&["nowhere"]);
    bench
        .run("train", &at(&empty))
        .await
        .failed(&["empty.jsonl"]);
    let adapter = ["--data", &data, "--adapter", &missing];
    bench
        .run("eval", &adapter)
        .await
        .failed(&["adapter", "nowhere"]);
    let one = ["--data", &data, "--choice", " yes"];
    bench.run("eval", &one).await.failed(&["two or more"]);
}

#[tokio::test]
async fn wrong_usage_has_an_exit_code_of_its_own() {
    for (arguments, word) in [
        (&["train", "--steps", "1"][..], "--model"),
        (
            &["eval", "--model", "m", "--data", "d", "--colour"],
            "--colour",
        ),
        (&["generate", "--model", "m"], "--prompt"),
        (
            &[
                "train", "--model", "m", "--data", "d", "--out", "o", "--steps", "x",
            ],
            "--steps",
        ),
        (
            &["eval", "--model", "m", "--data", "d", "--format", "xml"],
            "--format",
        ),
        (&["plan", "--model", "m"], "--fleet"),
        (&["job", "submit"], "--file"),
        (&["job", "get", "job_x"], "ID"),
        (&["dance"], "dance"),
    ] {
        fedpipe(arguments).await.misused(&[word]);
    }
    for arguments in [
        &["--help"][..],
        &["job", "submit", "--help"],
        &["--version"],
    ] {
        assert!(!fedpipe(arguments).await.good().is_empty());
    }
}

#[tokio::test]
async fn a_plan_is_made_without_a_deployment_and_leaves_nothing() {
    let bench = Bench::new();
    let fleet = bench.path("fleet.toml");
    let (train, held_out) = (text(&bench.mails.train), text(&bench.mails.held_out));
    let site = |name: &str| {
        format!(
            "[[workers]]\nname = \"{name}\"\nthreads = 1\n[workers.datasets.mail]\ntrain = \"{train}\"\nheld_out = \"{held_out}\"\n"
        )
    };
    fs::write(&fleet, site("a") + &site("b")).unwrap();
    let file = bench.path("job.json");
    let asked = job(Path::new("/elsewhere"));
    fs::write(&file, asked.to_string()).unwrap();
    let model = bench.path("model");
    let ask = ["plan", "--model", &model, "--fleet", &fleet, "--job", &file];
    let plan = fedpipe(&[&ask[..], &["--json"]].concat()).await.json();
    let workers = plan["workers"].as_object().unwrap();
    assert_eq!(workers.keys().collect::<Vec<_>>(), ["a", "b"]);
    for worker in workers.values() {
        assert!(!worker["why"]["text"].as_str().unwrap().is_empty());
    }
    let left = fs::read_dir(bench.folder.path()).unwrap().count();
    assert_eq!(left, 5, "model, records, fleet and job: nothing more");

    let nobody = with(asked.clone(), "data", json!({"dataset": "letters"}));
    fs::write(
        &file,
        with(nobody, "deadline_seconds", json!(3)).to_string(),
    )
    .unwrap();
    fedpipe(&ask).await.failed(&["there is no plan", "letters"]);
    fs::write(&file, "{\"name\": \"x\"}").unwrap();
    fedpipe(&ask).await.failed(&["job.json", "missing field"]);
    let missing = bench.path("nowhere");
    let nowhere = [
        "plan", "--model", &missing, "--fleet", &fleet, "--job", &file,
    ];
    fedpipe(&nowhere).await.failed(&["no model", "nowhere"]);
    fs::write(&file, asked.to_string()).unwrap();
    fs::write(&fleet, "[[workers]]\nnaem = \"a\"\n").unwrap();
    fedpipe(&ask).await.failed(&["name"]);
}

/// Submits and watches; its lines carry no sign that a terminal would take for an order.
async fn watch(fleet: &Fleet, job: &Value, more: &[&str]) -> Ended {
    let address = fs::read_to_string(fleet.state().join("run/api.address")).unwrap();
    let api = format!("http://{}", address.trim());
    let file = text(&fleet.folder().join("job.json"));
    fs::write(&file, job.to_string()).unwrap();
    let ask = ["job", "submit", "-f", &file, "--watch", "--api", &api];
    let ended = fedpipe(&[&ask[..], more].concat()).await;
    for said in [&ended.out, &ended.err] {
        let orders = said.chars().any(|c| c.is_control() && c != '\n');
        assert!(!orders, "{ended:?}");
    }
    ended
}

#[tokio::test]
async fn a_job_that_is_watched_without_a_terminal_is_told_in_lines() {
    let mut setup = Setup::sites(2);
    setup.sites[1] = Site::new("b").line("[workers.policy]\nallow_submitters = [\"local\"]");
    let fleet = Fleet::start(&setup).await;
    let watched = watch(&fleet, &scored(&fleet.model()), &[]).await;
    let out = watched.good();
    for word in [
        " submitted\n",
        "round 1 opened\n",
        "round 1 closed with 2 updates\n",
        "round 1 merged\n",
        "before training: balanced accuracy ",
        "round 2: balanced accuracy ",
        "\n  a: ",
        "succeeded: adapter sha256:",
    ] {
        assert!(out.contains(word), "{word:?} is not said:\n{out}");
    }

    let refused = watch(&fleet, &job(&fleet.model()), &["--submitter", "eve"]).await;
    refused.failed(&["failed: quorum_lost", "b: policy_refused", "Next:"]);
    let illegal = with(job(&fleet.model()), "rounds", json!({"count": 0}));
    watch(&fleet, &illegal, &[]).await.failed(&["rounds.count"]);
    let unknown = with(job(&fleet.model()), "colour", json!(1));
    watch(&fleet, &unknown, &[])
        .await
        .failed(&["job.json", "colour"]);
    let list = ["job", "list", "--api", "http://127.0.0.1:1"];
    fedpipe(&list).await.failed(&["does not answer", "Next:"]);
}

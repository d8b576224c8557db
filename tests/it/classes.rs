//! Sequence classification through the real services: an encoder, labels from the job, a head that every site trains in full,
//! that the aggregator averages, that scores are counted by, and that is published beside the adapter as PEFT has it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use artifacts::Transfer;
use domain::artifact::ArtifactRef;
use reqwest::Method;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tests::command::fedpipe;
use tests::job::{job, with};
use tests::{Fleet, Setup, Wire, archive};

const END: Duration = Duration::from_secs(120);
/// Largest adapter file here.
const LIMIT: u64 = 16 << 20;
const LABELS: [&str; 3] = ["ham", "sport", "spam"];
/// What each label's records are made of.
const WORDS: [&str; 3] = ["meeting", "goal", "money"];
const HEAD: [&str; 2] = [
    "base_model.model.classifier.bias",
    "base_model.model.classifier.weight",
];

/// A tiny random BERT with its words, as transformers saves it.
fn model() -> PathBuf {
    reference("encoder")
}

fn reference(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let engine = tests.join("../libs/engine/tests/reference").join(name);
    engine.canonicalize().unwrap()
}

/// Records of all labels, each a few of its words among letters, and one of a label that no job asks for.
fn records(path: &Path, count: usize, shift: usize) {
    let mut lines = String::new();
    for number in 0..count {
        let (class, letter) = (number % 3, char::from(b'a' + ((number + shift) % 26) as u8));
        let word = WORDS[class];
        let record =
            json!({"text": format!("{letter} {word} {word} {letter}!"), "label": LABELS[class]});
        writeln!(lines, "{record}").unwrap();
    }
    writeln!(lines, "{}", json!({"text": "a b", "label": "other"})).unwrap();
    std::fs::write(path, lines).unwrap();
}

/// Two sites of unequal size.
fn setup(folder: &Path) -> Setup {
    let mut setup = Setup::sites(2);
    for (site, (count, shift)) in setup.sites.iter_mut().zip([(36, 0), (18, 7)]) {
        let [train, held_out] =
            ["train", "held"].map(|part| folder.join(format!("{}.{part}.jsonl", site.name)));
        records(&train, count, shift);
        records(&held_out, 24, shift + 3);
        (site.train, site.held_out) = (Some(train), Some(held_out));
    }
    setup
}

fn asked() -> Value {
    asked_of(&model())
}

fn asked_of(model: &Path) -> Value {
    let training = json!({
        "labels": LABELS, "optimizer": "auto", "local_steps": 24, "batch": 6, "sequence_length": 24, "learning_rate": 2e-2, "seed": 7,
    });
    let adapter = json!({"targets": "auto", "rank": "auto", "rank_max": 4, "alpha": 8.0});
    let asked = with(job(model), "training", training);
    let asked = with(asked, "adapter", adapter);
    let asked = with(asked, "evaluation", json!({}));
    with(asked, "retention", json!({"keep_updates": true}))
}

type Tensors = BTreeMap<String, Vec<f32>>;

fn tensors(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let read = |four: &[u8]| f32::from_le_bytes(four.try_into().unwrap());
    let all = file.tensors().into_iter();
    all.map(|(name, tensor)| (name, tensor.data().chunks_exact(4).map(read).collect()))
        .collect()
}

async fn stored(fleet: &Fleet, reference: &Value) -> Tensors {
    let reference: ArtifactRef = serde_json::from_value(reference.clone()).unwrap();
    let (store, transfer) = (fleet.objects(), Transfer::default());
    let bytes = store.get_bytes(&reference, LIMIT, &transfer).await;
    tensors(&bytes.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_trained_averaged_scored_and_published() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::start(&setup(folder.path())).await;
    let wire = Wire::tap(&fleet).await;
    let id = fleet.api().submit(&asked()).await;
    fleet.api().succeeded(&id, END).await;

    // Every update carries the head; the merged one is their mean by records.
    for round in 1..=2 {
        let key = format!("{id}.round.{round}");
        let summary = wire.value("fedpipe_jobs", &key).await;
        let merged = stored(&fleet, &summary["global"]).await;
        let mut mean: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let workers = summary["workers"].as_array().unwrap();
        assert_eq!(workers.len(), 2);
        for worker in workers {
            let sent = stored(&fleet, &worker["update"]).await;
            let share = worker["weight"].as_f64().unwrap();
            for key in HEAD {
                let sum = mean
                    .entry(key)
                    .or_insert_with(|| vec![0.0; sent[key].len()]);
                let both = sum.iter_mut().zip(&sent[key]);
                both.for_each(|(sum, value)| *sum += share * f64::from(*value));
            }
        }
        for key in HEAD {
            let largest = mean[key].iter().fold(0f64, |most, v| most.max(v.abs()));
            assert!(largest > 1e-4, "{key} was not trained");
            for (merged, mean) in merged[key].iter().zip(&mean[key]) {
                assert!((f64::from(*merged) - mean).abs() < 1e-6, "{key}");
            }
        }
    }

    // Scores: every held-out record of a known label once, by the labels in the job's order.
    let report = fleet.api().report(&id).await;
    let scores = report["evaluations"].as_array().unwrap();
    let (first, last) = (&scores[0], scores.last().unwrap());
    assert_eq!(last["records"], 48);
    let confusion = &last["detail"]["score"]["confusion"];
    let rows = confusion.as_array().unwrap().iter();
    let sums = rows.map(|row| {
        row.as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_u64)
            .sum()
    });
    assert_eq!(sums.collect::<Vec<u64>>(), [16, 16, 16]);
    let of = |score: &Value| score["balanced_accuracy"].as_f64().unwrap();
    assert!(of(last) > 0.9 && of(last) > of(first), "{scores:?}");

    // The published adapter has the names of BERT and PEFT's settings for a head.
    let path = format!("/v1/jobs/{id}/adapter");
    let (status, bytes) = fleet.api().bytes(Method::GET, &path, None).await.unwrap();
    assert_eq!(status, 200);
    let files = archive::files(&bytes);
    let own = tensors(&files["adapter_model.safetensors"]);
    let mut others = own.keys().filter(|key| !HEAD.contains(&key.as_str()));
    let layers = "base_model.model.bert.encoder.layer.";
    assert!(
        others.all(|key| key.starts_with(layers)),
        "{:?}",
        own.keys()
    );
    assert_eq!(own.len(), 2 + 2 * 6 * 2);
    let config: Value = serde_json::from_slice(&files["adapter_config.json"]).unwrap();
    assert_eq!(config["task_type"], "SEQ_CLS");
    assert_eq!(config["modules_to_save"], json!(["classifier"]));

    // One machine alone comes to the same answers with it.
    let place = folder.path().join("adapter");
    std::fs::create_dir_all(&place).unwrap();
    for (name, content) in &files {
        std::fs::write(place.join(name), content).unwrap();
    }
    let held_out = folder.path().join("both.jsonl");
    let both = ["a", "b"].map(|site| folder.path().join(format!("{site}.held.jsonl")));
    let both = both.map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&held_out, both.concat()).unwrap();
    let paths = [model(), place, held_out].map(|path| path.display().to_string());
    let [model, adapter, data] = &paths;
    let words = format!(
        "eval --model {model} --adapter {adapter} --data {data} --label=ham --label=sport --label=spam \
         --sequence-length=24 --json"
    );
    let words: Vec<&str> = words.split(' ').collect();
    let found = fedpipe(&words).await.json();
    assert_eq!(&found["confusion"], confusion);
    assert_eq!(
        (&found["records"], &found["refused"]),
        (&json!(48), &json!(2))
    );
    let (alone, fleets) = (found["loss"].as_f64(), last["loss"].as_f64());
    assert!((alone.unwrap() - fleets.unwrap()).abs() < 1e-4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_go_with_a_head_is_refused_with_what_would() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::start(&setup(folder.path())).await;
    let mut mezo = asked();
    mezo["training"]["optimizer"] = json!("mezo");
    mezo["aggregation"] = json!({"strategy": "sum"});
    let refused = fleet.api().try_submit(&mezo, "mezo").await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    let said = refused.body.to_string();
    assert!(
        said.contains("training.optimizer") && said.contains("use adamw or auto"),
        "{said}"
    );

    // The job does not say what the encoder is to tell apart; no site can make words of it.
    let mut words = asked();
    let training = words["training"].as_object_mut().unwrap();
    training.remove("labels");
    let id = fleet.api().submit(&words).await;
    let ended = fleet.api().ended(&id, END).await.to_string();
    assert!(
        ended.contains("failed") && ended.contains("give training.labels"),
        "{ended}"
    );

    // The other way round: labels of a decoder.
    let mut decoder = asked();
    decoder["model"] = json!({"source": format!("file://{}", fleet.model().display())});
    let id = fleet.api().submit(&decoder).await;
    let ended = fleet.api().ended(&id, END).await.to_string();
    assert!(
        ended.contains("failed") && ended.contains("evaluation.choices"),
        "{ended}"
    );
    // Played, either is said by every site too.
    let sites = fleet.folder().join("fleet.toml").display().to_string();
    let file = folder.path().join("job.json").display().to_string();
    for (job, said) in [
        (&words, "give training.labels"),
        (&decoder, "evaluation.choices"),
    ] {
        std::fs::write(&file, job.to_string()).unwrap();
        let play = ["simulate", "--fleet", &sites, "--job", &file, "--plan-only"];
        fedpipe(&play).await.failed(&["0 of 2 sites", said]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_played_job_with_a_head_ends_in_the_running_services_adapter_which_becomes_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::start(&setup(folder.path())).await;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut fixed = asked();
    // Fixed, because what a plan leaves open follows from speeds that no two measurements share.
    fixed["adapter"]["rank"] = json!(4);
    // In storage, so that the API sees it.
    let (store, transfer, place) = (fleet.objects(), Transfer::default(), model());
    let pushed = store.push_model(&place, &transfer).await.unwrap();
    fixed["model"] = json!({"digest": pushed.digest});
    let id = fleet.api().submit(&fixed).await;
    let digest = fleet.api().succeeded(&id, END).await;

    let (file, played) = (path("job.json"), path("played"));
    std::fs::write(&file, fixed.to_string()).unwrap();
    let sites = fleet.folder().join("fleet.toml").display().to_string();
    let base = model().display().to_string();
    let words = ["simulate", "--fleet", &sites, "--job", &file];
    let words = [
        &words[..],
        &["--model", &base],
        &["--out", &played, "--quantized-cache", "none"],
    ]
    .concat();
    let report = fedpipe(&[&words[..], &["--json"]].concat()).await.json();
    assert_eq!(report["run"]["adapter"]["sha256"], digest);
    let rounds = fleet.api().rounds(&id).await;
    let scores = report["run"]["rounds"].as_array().unwrap();
    assert_eq!(scores.len() + 1, rounds.len());
    for (round, real) in scores.iter().zip(&rounds[1..]) {
        assert_eq!(round["global"], real["adapter"]["sha256"]);
        for figure in ["records", "loss", "balanced_accuracy"] {
            let (own, real) = (&round["score"][figure], &real["evaluation"][figure]);
            assert_eq!(own, real, "{figure}");
        }
    }

    // Below the rounds stands what the scores count, by the names of the job.
    let address = std::fs::read_to_string(fleet.state().join("run/api.address")).unwrap();
    let api = format!("http://{}", address.trim());
    let shown = fedpipe(&["job", "rounds", &id, "--api", &api]).await.good();
    for part in ["who was taken for whom:", "taken for \"sport\""] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }

    // What is fetched is what was played, with the names of its classes beside it.
    let fetched = path("fetched");
    let fetch = ["job", "adapter", &id, "-o", &fetched, "--api", &api];
    let _ = fedpipe(&fetch).await.good();
    let same = |name: &str| {
        let read = |place: &str| std::fs::read(Path::new(place).join(name)).unwrap();
        assert_eq!(read(&played), read(&fetched), "{name}");
    };
    same("adapter_model.safetensors");
    same("labels.json");

    // And one model of both says what the base says with the adapter beside it.
    let merged = path("merged");
    let export = ["export", "--adapter", &fetched, "--model", &base];
    let export = [&export[..], &["--to", "merged", "-o", &merged, "--json"]].concat();
    let exported = fedpipe(&export).await.json();
    assert!(
        exported["logits_off"].as_f64().unwrap() < 1e-5,
        "{exported}"
    );
    let config = std::fs::read(Path::new(&merged).join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let names = json!({"0": LABELS[0], "1": LABELS[1], "2": LABELS[2]});
    assert_eq!(config["id2label"], names);
    let held_out = path("a.held.jsonl");
    let score = async |of: &[&str]| {
        let eval = [
            "eval",
            "--data",
            &held_out,
            "--sequence-length",
            "24",
            "--json",
        ];
        fedpipe(&[&eval[..], of].concat()).await.json()
    };
    let beside = score(&["--model", &base, "--adapter", &fetched]).await;
    // Neither is told the labels, whose order is not that of their text.
    let of_api = path("of_api");
    let fetch = ["job", "adapter", &id, "-o", &of_api, "--api", &api];
    let whole = [&fetch[..], &["--format", "merged"]].concat();
    let _ = fedpipe(&whole).await.good();
    let loss = |of: &Value| of["loss"].as_f64().unwrap();
    for place in [&merged, &of_api] {
        let whole = score(&["--model", place]).await;
        assert_eq!(whole["confusion"], beside["confusion"], "{place}");
        assert!((loss(&whole) - loss(&beside)).abs() < 1e-5, "{place}");
    }
    let gguf = [&fetch[..], &["--format", "gguf"]].concat();
    fedpipe(&gguf).await.failed(&["exported as peft or merged"]);
}

/// Its dense layer lies before the factors in the files of a job and behind them in PEFT's; the sites say whose head it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_distilbert_is_trained_by_a_fleet_and_published_under_its_own_names() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::start(&setup(folder.path())).await;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let base = reference("encoders/distilbert");
    let mut fixed = asked_of(&base);
    fixed["adapter"]["rank"] = json!(4);
    let id = fleet.api().submit(&fixed).await;
    let digest = fleet.api().succeeded(&id, END).await;
    let report = fleet.api().report(&id).await;
    let scores = report["evaluations"].as_array().unwrap();
    let loss = |score: &Value| score["loss"].as_f64().unwrap();
    let last = scores.last().unwrap();
    assert!(loss(last) < 0.8 * loss(&scores[0]), "{scores:?}");

    let (status, bytes) = {
        let of = format!("/v1/jobs/{id}/adapter");
        fleet.api().bytes(Method::GET, &of, None).await.unwrap()
    };
    assert_eq!(status, 200);
    let files = archive::files(&bytes);
    let own = tensors(&files["adapter_model.safetensors"]);
    let layers = "base_model.model.distilbert.transformer.layer.";
    let (factors, head): (Vec<&String>, Vec<_>) =
        own.keys().partition(|key| key.starts_with(layers));
    assert_eq!(factors.len(), 2 * 6 * 2);
    let modules = ["classifier", "pre_classifier"];
    let keys = modules.iter().flat_map(|module| {
        let key = |part| format!("base_model.model.{module}.{part}");
        ["bias", "weight"].map(key)
    });
    assert_eq!(head, keys.collect::<Vec<_>>().iter().collect::<Vec<_>>());
    let dense = &own["base_model.model.pre_classifier.bias"];
    assert!(
        dense.iter().any(|value| *value != 0.0),
        "it was not trained"
    );
    let config: Value = serde_json::from_slice(&files["adapter_config.json"]).unwrap();
    let saved = json!(["pre_classifier", "classifier"]);
    assert_eq!(config["modules_to_save"], saved);

    // One machine alone comes to the same answers with it, and plays the job to the same bytes.
    let place = path("adapter");
    std::fs::create_dir_all(&place).unwrap();
    for (name, content) in &files {
        std::fs::write(Path::new(&place).join(name), content).unwrap();
    }
    let both = ["a", "b"].map(|site| path(&format!("{site}.held.jsonl")));
    let both = both.map(|path| std::fs::read_to_string(path).unwrap());
    let held_out = path("both.jsonl");
    std::fs::write(&held_out, both.concat()).unwrap();
    let base = base.display().to_string();
    let words = format!(
        "eval --model {base} --adapter {place} --data {held_out} --label=ham --label=sport --label=spam \
         --sequence-length=24 --json"
    );
    let words: Vec<&str> = words.split(' ').collect();
    let found = fedpipe(&words).await.json();
    assert!((loss(&found) - loss(last)).abs() < 1e-4, "{found}");
    let (file, sites) = (path("job.json"), fleet.folder().join("fleet.toml"));
    std::fs::write(&file, fixed.to_string()).unwrap();
    let sites = sites.display().to_string();
    let play = ["simulate", "--fleet", &sites, "--job", &file, "--json"];
    let cache = ["--quantized-cache", "none"];
    let played = fedpipe(&[&play[..], &cache].concat()).await.json();
    assert_eq!(played["run"]["adapter"]["sha256"], digest);
}

/// As many classes as 20 Newsgroups has: nobody has to name them.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_labels_are_those_of_the_records_balanced_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [base, data, out] = [
        model().display().to_string(),
        path("data.jsonl"),
        path("out"),
    ];
    let names: Vec<String> = (0..20).map(|class| format!("group {class:02}")).collect();
    let mut lines = String::new();
    for number in 0..40 {
        let letter = char::from(b'a' + (number % 20) as u8);
        let record = json!({"text": format!("{letter} {letter}"), "label": names[number % 20]});
        writeln!(lines, "{record}").unwrap();
    }
    std::fs::write(&data, lines).unwrap();
    for order in ["shuffle", "balanced"] {
        let train = ["train", "--model", &base, "--data", &data, "--out", &out];
        let steps = ["--steps", "2", "--batch", "20", "--sequence-length", "16"];
        let drawn = ["--order", order, "--targets", "all-linear", "--json"];
        let trained = fedpipe(&[&train[..], &steps, &drawn].concat()).await.json();
        assert_eq!(trained["steps"], 2, "{trained}");
        let kept = std::fs::read(Path::new(&out).join("labels.json")).unwrap();
        let kept: Vec<String> = serde_json::from_slice(&kept).unwrap();
        assert_eq!(kept, names);
    }
    let eval = ["eval", "--model", &base, "--adapter", &out, "--data", &data];
    let eval = [&eval[..], &["--sequence-length", "16", "--json"]].concat();
    let found = fedpipe(&eval).await.json();
    let rows = found["confusion"].as_array().unwrap().iter();
    let sums = rows.map(|row| {
        row.as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_u64)
            .sum()
    });
    assert_eq!(sums.collect::<Vec<u64>>(), [2; 20]);
}

#[tokio::test]
async fn a_preview_of_an_encoders_records_shows_their_classes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [base, data] = [model().display().to_string(), path("data.jsonl")];
    let record = |text: &str, label: &str| json!({"text": text, "label": label}).to_string();
    let lines = [
        record("a b", "ham"),
        record("c d e", "spam"),
        record("a", "other"),
    ];
    std::fs::write(&data, lines.join("\n")).unwrap();
    let preview = ["train", "--preview", "--model", &base, "--data", &data];
    let labels = [
        "--label",
        "spam",
        "--label",
        "ham",
        "--sequence-length",
        "24",
    ];
    let preview = [&preview[..], &labels].concat();
    let shown = fedpipe(&preview).await.good();
    for part in [
        "4 tokens, class \"ham\"",
        "5 tokens, class \"spam\"",
        "cannot be learned: other_label",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(!shown.contains("carry loss"), "{shown}");
    let shown = fedpipe(&[&preview[..], &["--json"]].concat()).await.json();
    assert_eq!(
        (&shown[0]["class"], &shown[1]["class"]),
        (&json!("ham"), &json!("spam"))
    );
    assert_eq!(shown[2]["refused"], "other_label");
}

use std::collections::BTreeMap;

use domain::profile::Measurement;
use serde_json::{Value, json};

use super::*;

const REUSE_MS: u64 = 1000;
const MEASURED: UnixMillis = UnixMillis(5000);

fn spec(change: impl Fn(&mut Value)) -> Spec {
    let mut text = json!({
        "name": "j",
        "model": {"source": "file:///m"},
        "data": {"dataset": "mail"},
        "adapter": {},
        "training": {},
        "precision": {},
        "aggregation": {},
    });
    change(&mut text);
    serde_json::from_value(text).expect("legal")
}

fn registration() -> Registration {
    let summary = DatasetSummary {
        records: 100,
        held_out: 10,
        skipped: 0,
    };
    Registration {
        worker: "w".parse().expect("legal"),
        version: "1.0.0+0a1b2c3d".to_owned(),
        host: "h".to_owned(),
        started_at: UnixMillis(1),
        memory_limit_bytes: 1 << 30,
        threads: 2,
        datasets: BTreeMap::from([("mail".parse().expect("legal"), summary)]),
        policy: String::new(),
        beat_ms: 3000,
    }
}

fn kept() -> Kept {
    let question = Question::of(&registration(), &spec(|_| {})).expect("it has the data");
    let measurement: Measurement = serde_json::from_value(json!({
        "model": null, "weights": [], "layers": 0, "memory_limit_bytes": 0, "threads": 0, "modes": [],
        "noise": null, "importance": null, "forward_tokens_per_second": 0.0,
        "upload_bytes_per_second": 0.0, "download_bytes_per_second": 0.0, "round_trip_ms": 0.0,
        "records": 0, "held_out": 0, "skipped": 0, "mean_tokens": 0.0, "mean_squares": 0.0,
    }))
    .expect("a measurement");
    Kept {
        question,
        measured_at: MEASURED,
        job: JobId::from_bits(1),
        profile: Profile {
            worker: "w".parse().expect("legal"),
            measurement,
            modes: Vec::new(),
            refined_to: 0,
            settled_to: 0,
            weighed_to: 0,
        },
    }
}

/// Whether what was kept answers another job at a worker.
fn answers(registration: &Registration, spec: &Spec) -> bool {
    let question = Question::of(registration, spec);
    kept().holds(question.as_ref(), MEASURED, REUSE_MS)
}

#[test]
fn what_was_kept_before_passes_could_be_computed_as_one_answers_whoever_computes_each_by_itself() {
    let mut stored = serde_json::to_value(kept()).expect("serializes");
    let question = stored["question"].as_object_mut().expect("an object");
    assert!(question.remove("abreast").is_some());
    let stored: Kept = serde_json::from_value(stored).expect("readable");
    assert_eq!(stored, kept());
}

#[test]
fn a_profile_expires() {
    let question = Question::of(&registration(), &spec(|_| {}));
    let holds = |now| kept().holds(question.as_ref(), UnixMillis(now), REUSE_MS);
    assert!(holds(MEASURED.0) && holds(MEASURED.0 + REUSE_MS - 1));
    assert!(!holds(MEASURED.0 + REUSE_MS));
    assert!(!kept().holds(question.as_ref(), MEASURED, 0), "turned off");
    assert!(!kept().holds(None, MEASURED, REUSE_MS), "the data is gone");
}

#[test]
fn another_program_machine_or_data_is_measured_again() {
    let check = |what: &str, change: &dyn Fn(&mut Registration)| {
        let mut other = registration();
        change(&mut other);
        assert!(!answers(&other, &spec(|_| {})), "{what}");
    };
    check("program", &|one| one.version = "1.0.1+0a1b2c3d".to_owned());
    check("engine of the same release", &|one| {
        one.version = "1.0.0+0a1b2c3e".to_owned();
    });
    check("threads", &|one| one.threads = 4);
    check("memory", &|one| one.memory_limit_bytes /= 2);
    check("records", &|one| {
        one.datasets.values_mut().for_each(|data| data.records += 1);
    });
    check("no data", &|one| one.datasets.clear());
    // What says nothing of the machine does not matter.
    let mut again = registration();
    again.started_at = UnixMillis(9);
    again.policy = "other".to_owned();
    assert!(answers(&again, &spec(|_| {})));
}

#[test]
fn whoever_asks_something_else_is_not_answered_by_what_was_measured() {
    let check = |path: [&str; 2], value: Value| {
        let asked = spec(|spec| spec[path[0]][path[1]] = value.clone());
        assert!(!answers(&registration(), &asked), "{path:?}: {value}");
    };
    check(["adapter", "targets"], json!(["q"]));
    check(["adapter", "rank_max"], json!(8));
    check(["adapter", "importance"], json!("adalora"));
    check(["training", "sequence_length"], json!(64));
    check(["training", "batch"], json!(4));
    check(["training", "optimizer"], json!("adamw"));
    check(["training", "dropout"], json!(0.1));
    check(["training", "momentum"], json!(0.9));
    check(["training", "order"], json!("balanced"));
    check(["training", "labels"], json!(["ham", "spam"]));
    check(["training", "choices"], json!([" ham", " spam"]));
    check(["training", "mezo"], json!({"perturbations": 2}));
    check(["training", "mezo"], json!({"abreast": 2}));
    check(["training", "mezo"], json!({"wire": "tensors"}));
    check(["training", "mezo"], json!({"mask": {"share": 0.5}}));
    check(["precision", "base"], json!("nf4"));
    check(["precision", "compute"], json!("f32"));
    check(["aggregation", "strategy"], json!("stack"));
    // What changes no measurement does not matter.
    for (path, value) in [
        (["training", "seed"], json!(9)),
        (["training", "local_steps"], json!(9)),
        (["training", "local_steps"], json!("auto")),
        // All directions are measured, and its rounds teach nothing of fewer.
        (["training", "mezo"], json!({"variance": 0.5})),
        (["aggregation", "weights"], json!("equal")),
    ] {
        let asked = spec(|spec| spec[path[0]][path[1]] = value.clone());
        assert!(answers(&registration(), &asked), "{path:?}: {value}");
    }
}

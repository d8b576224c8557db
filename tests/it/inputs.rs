//! Bad input gets a clear answer, and nothing else stops.

use std::path::Path;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::job::{job, with};
use tests::{Fleet, Setup, Site};

const END: Duration = Duration::from_secs(40);

#[tokio::test]
async fn a_job_that_cannot_be_is_refused_by_name() {
    let fleet = Fleet::start(&Setup::sites(1)).await;
    let good = job(&fleet.model());
    let nobody = format!("sha256:{}", "0".repeat(64));
    let rank = |rank: u32| json!({"rank": rank, "rank_max": 8});
    let cases = [
        (with(good.clone(), "colour", json!(1)), "colour"),
        (with(good.clone(), "adapter", rank(0)), "adapter.rank"),
        (with(good.clone(), "adapter", rank(9)), "adapter.rank"),
        (
            with(good.clone(), "adapter", json!({"rank_max": 100_000})),
            "adapter.rank_max",
        ),
        (
            with(good.clone(), "model", json!({"digest": nobody})),
            "model",
        ),
        (
            with(good.clone(), "model", json!({"source": "file:///a/../b"})),
            "model.source",
        ),
        (
            with(good.clone(), "model", json!({"source": "relative"})),
            "model.source",
        ),
        (
            with(good.clone(), "plan_from", json!("job_0000000000000000")),
            "plan_from",
        ),
        (
            with(good.clone(), "rounds", json!({"quorum": 0})),
            "rounds.quorum",
        ),
        (
            with(good.clone(), "data", json!({"dataset": "../mail"})),
            "dataset",
        ),
    ];
    for (number, (bad, field)) in cases.iter().enumerate() {
        let answer = fleet.api().try_submit(bad, &format!("bad-{number}")).await;
        assert!(answer.status.is_client_error(), "{field}: {answer:?}");
        let kind = answer.body["type"].as_str().unwrap_or_default();
        assert!(
            kind.starts_with("urn:fedpipe:problem:"),
            "{field}: {answer:?}"
        );
        assert!(
            answer.body.to_string().contains(field),
            "{field}: {answer:?}"
        );
    }
    let large = with(good.clone(), "name", json!("x".repeat(2 << 20)));
    let answer = fleet.api().try_submit(&large, "large").await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{answer:?}");
    let api = fleet.api();
    for body in ["", "{", "[]", "null"] {
        let answer = api.ask(Method::POST, "/v1/jobs", Some(body)).await.unwrap();
        assert!(answer.status.is_client_error(), "{body}: {answer:?}");
    }
    for path in [
        "/v1/jobs/..%2f..%2fetc",
        "/v1/jobs/job_x",
        "/v1/models/../../etc/passwd",
    ] {
        let answer = api.ask(Method::GET, path, None).await.unwrap();
        assert!(answer.status.is_client_error(), "{path}: {answer:?}");
    }
    let id = api.submit(&good).await;
    api.succeeded(&id, END).await;
}

/// A copy of the model with one file changed.
fn damaged(fleet: &Fleet, name: &str, damage: impl Fn(&Path)) -> Value {
    let folder = fleet.folder().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(fleet.model()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    damage(&folder);
    job(&folder)
}

#[tokio::test]
async fn a_model_that_cannot_be_read_is_the_sites_own_cause() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let cut = damaged(&fleet, "cut", |folder| {
        let file = folder.join("model.safetensors");
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    });
    let magic = damaged(&fleet, "magic", |folder| {
        std::fs::remove_file(folder.join("model.safetensors")).unwrap();
        std::fs::write(folder.join("model.gguf"), vec![b'x'; 4096]).unwrap();
    });
    let missing = job(&fleet.folder().join("nowhere"));
    for (what, bad) in [("cut", cut), ("magic", magic), ("missing", missing)] {
        let id = fleet.api().submit(&bad).await;
        let ended = fleet.api().ended(&id, END).await;
        assert_eq!(ended["phase"], "failed", "{what}: {ended:#}");
        let sites = ended["cause"]["sites"].as_array().unwrap();
        assert_eq!(sites.len(), 2, "{what}: {ended:#}");
        for site in sites {
            assert_eq!(site["trouble"], "model_unusable", "{what}: {ended:#}");
            assert!(!site["detail"].as_str().unwrap().is_empty());
        }
    }
    let id = fleet.api().submit(&job(&fleet.model())).await;
    fleet.api().succeeded(&id, END).await;
}

#[tokio::test]
async fn unreadable_records_are_skipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mails = testkit::data::mails(folder.path(), "b", 24, 3).unwrap();
    let mut text = std::fs::read_to_string(&mails.train).unwrap();
    text.push_str("{\"prompt\": \"cut\nnot json\n{\"other\": 1}\n");
    std::fs::write(&mails.train, text).unwrap();
    let mut setup = Setup::sites(2);
    setup.sites[1] = Site {
        train: Some(mails.train),
        ..Site::new("b")
    };
    let fleet = Fleet::start(&setup).await;
    let id = fleet.api().submit(&job(&fleet.model())).await;
    fleet.api().succeeded(&id, END).await;
    let workers = fleet.api().get("/v1/workers").await.body;
    let items = workers["items"].as_array().unwrap();
    let of = |name: &str| &items.iter().find(|w| w["worker"] == name).unwrap()["datasets"]["mail"];
    assert_eq!(
        (&of("a")["records"], &of("a")["skipped"]),
        (&json!(24), &json!(0))
    );
    assert_eq!(
        (&of("b")["records"], &of("b")["skipped"]),
        (&json!(24), &json!(3))
    );
}

#[tokio::test]
async fn a_site_that_refuses_the_submitter_says_so_at_once() {
    let mut setup = Setup::sites(2);
    setup.sites[1] = Site::new("b").line("[workers.policy]\nallow_submitters = [\"alice\"]");
    let fleet = Fleet::start(&setup).await;
    let id = fleet.api().submit(&job(&fleet.model())).await;
    let ended = fleet.api().ended(&id, Duration::from_secs(10)).await;
    assert_eq!(ended["phase"], "failed", "{ended:#}");
    let site = &ended["cause"]["sites"][0];
    assert_eq!(
        (&site["worker"], &site["trouble"]),
        (&json!("b"), &json!("policy_refused"))
    );
}

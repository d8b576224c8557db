//! Submission: once per key, over crashes and processes; what it refers to must be there.

use reqwest::Method;
use serde_json::{Value, json};
use testkit::wait;

use crate::service::{SOON, Service, json_of, spec};

async fn submit(service: &Service, key: &str, body: &Value) -> (u16, Value) {
    let request = service
        .request(Method::POST, "/v1/jobs")
        .header("Idempotency-Key", key);
    json_of(request.json(body)).await
}

#[tokio::test]
async fn the_same_key_and_body_are_one_job_and_another_body_is_refused() {
    let service = Service::start().await;
    let (status, first) = submit(&service, "k1", &spec()).await;
    assert_eq!(
        (status, &first["phase"]),
        (201, &json!("queued")),
        "{first}"
    );
    let (status, again) = submit(&service, "k1", &spec()).await;
    assert_eq!((status, &again["id"]), (200, &first["id"]));
    let mut other = spec();
    other["name"] = json!("other");
    let (status, problem) = submit(&service, "k1", &other).await;
    assert_eq!(status, 422);
    assert_eq!(
        problem["type"],
        "urn:fedpipe:problem:idempotency-key-reused"
    );
    let (status, fresh) = submit(&service, "k2", &spec()).await;
    assert_eq!(status, 201);
    assert_ne!(fresh["id"], first["id"]);
}

#[tokio::test]
async fn one_key_sent_to_two_processes_at_once_is_one_job() {
    let service = Service::start().await;
    let second = service.second().await;
    let here = service
        .request(Method::POST, "/v1/jobs")
        .header("Idempotency-Key", "k")
        .json(&spec());
    let there = second
        .request(Method::POST, "/v1/jobs")
        .header("Idempotency-Key", "k")
        .json(&spec());
    let (here, there) = futures::join!(json_of(here), json_of(there));
    assert_eq!(here.1["id"], there.1["id"]);
    let mut statuses = [here.0, there.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201]);
}

#[tokio::test]
async fn a_submission_that_was_stored_and_never_said_is_said_when_it_is_sent_again() {
    let service = Service::start().await;
    let (_, job) = submit(&service, "k", &spec()).await;
    let id: domain::id::JobId = job["id"].as_str().expect("an id").parse().expect("an id");
    let bus = service.bus(&contract::permission::Role::Aggregator).await;
    // As after a crash between the two effects.
    bus.forget(&id).await.expect("forgotten");
    let mut events = bus.events(Some(&id), 0);
    // Again and again: for a moment the server itself still remembers what was forgotten.
    let said = wait::some("it is said", SOON, async || {
        let (status, _) = submit(&service, "k", &spec()).await;
        assert_eq!(status, 200);
        events.try_recv().ok()
    });
    assert_eq!(said.await.1.event.name(), "submitted");
}

#[tokio::test]
async fn two_submissions_without_a_key_are_two_jobs() {
    let service = Service::start().await;
    assert_ne!(service.submit().await, service.submit().await);
    wait::until("both are listed", SOON, async || {
        let (_, page) = service.get("/v1/jobs").await;
        page["items"]
            .as_array()
            .is_some_and(|items| items.len() == 2)
    })
    .await;
}

#[tokio::test]
async fn a_model_that_was_not_pushed_is_refused_and_a_pushed_one_is_taken() {
    let service = Service::start().await;
    let mut body = spec();
    body["model"] = json!({ "digest": format!("sha256:{}", "ab".repeat(32)) });
    let (status, problem) = submit(&service, "k", &body).await;
    assert_eq!(
        (status, &problem["errors"][0]["field"]),
        (422, &json!("model.digest"))
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tiny.gguf");
    std::fs::write(&file, b"GGUF").expect("written");
    let model = service
        .objects
        .push_model(&file, &artifacts::Transfer::default())
        .await;
    let model = model.expect("pushed");
    body["model"] = json!({ "digest": model.digest });
    let (status, job) = submit(&service, "k", &body).await;
    assert_eq!(status, 201, "{job}");
    let (status, page) = service.get("/v1/models").await;
    assert_eq!((status, &page["items"][0]["bytes"]), (200, &json!(4)));
    let (status, detail) = service.get(&format!("/v1/models/{}", model.digest)).await;
    assert_eq!(
        (status, &detail["files"][0]["path"]),
        (200, &json!("tiny.gguf"))
    );
}

#[tokio::test]
async fn labels_and_the_kind_of_a_pushed_model_must_go_together() {
    let service = Service::start().await;
    let reference =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../libs/engine/tests/reference");
    let mut bodies = Vec::new();
    for (model, encodes) in [("encoder", true), ("tiny", false), ("tiny.gguf", false)] {
        let transfer = artifacts::Transfer::default();
        let pushed = service
            .objects
            .push_model(&reference.join(model), &transfer)
            .await;
        let digest = pushed.expect("pushed").digest;
        for classifies in [true, false] {
            let mut body = spec();
            body["model"] = json!({ "digest": digest });
            if classifies {
                body["training"] = json!({ "labels": ["ham", "spam"] });
            }
            bodies.push((model, body, encodes, classifies));
        }
    }
    for (place, (model, body, encodes, classifies)) in bodies.iter().enumerate() {
        let (status, answer) = submit(&service, &format!("k{place}"), body).await;
        if encodes == classifies {
            assert_eq!(status, 201, "{model}: {answer}");
            continue;
        }
        assert_eq!(status, 422, "{model}: {answer}");
        let error = &answer["errors"][0];
        assert_eq!(error["field"], "training.labels", "{model}");
        let words = if *encodes {
            "give the classes"
        } else {
            "evaluation.choices"
        };
        let said = error["problem"].as_str().expect("text");
        assert!(said.contains(words), "{model}: {said}");
    }
}

#[tokio::test]
async fn labels_and_the_kind_of_a_model_of_the_hub_must_go_together() {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let encoder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../libs/engine/tests/reference/encoder");
    let hub = testkit::hub::Hub::serve("org/encoder", COMMIT, &encoder)
        .await
        .expect("serves");
    let service = Service::start_with(|config| config.hub.endpoint = Some(hub.url())).await;
    let mut body = spec();
    body["model"] = json!({ "source": "hf://org/encoder" });
    let (status, problem) = submit(&service, "k1", &body).await;
    assert_eq!(
        (status, &problem["errors"][0]["field"]),
        (422, &json!("training.labels")),
        "{problem}"
    );
    // By its commit nothing is asked: a site will say it.
    let asked = hub.asked().len();
    let mut pinned = body.clone();
    pinned["model"] = json!({ "source": format!("hf://org/encoder@{COMMIT}") });
    assert_eq!(submit(&service, "k2", &pinned).await.0, 201);
    assert_eq!(hub.asked().len(), asked);
    body["training"] = json!({ "labels": ["ham", "spam"] });
    let (status, job) = submit(&service, "k3", &body).await;
    assert_eq!(status, 201, "{job}");
}

#[tokio::test]
async fn a_storage_that_is_away_is_a_503_and_jobs_without_a_pushed_model_are_taken() {
    let service = Service::start_without_storage().await;
    let mut body = spec();
    body["model"] = json!({ "digest": format!("sha256:{}", "ab".repeat(32)) });
    let (status, problem) = submit(&service, "k", &body).await;
    assert_eq!(
        (status, &problem["type"]),
        (503, &json!("urn:fedpipe:problem:unavailable"))
    );
    assert!(service.readiness.reasons().contains_key("storage"));
    assert_eq!(submit(&service, "k", &spec()).await.0, 201);
}

#[tokio::test]
async fn plans_are_replayed_only_from_a_job_that_has_some() {
    let service = Service::start().await;
    let planned = service.submit().await;
    let mut body = spec();
    for (other, words) in [
        ("job_00000000000000ff", "there is no job"),
        (planned.as_str(), "has no plan"),
    ] {
        body["plan_from"] = json!(other);
        let (status, problem) = submit(&service, "k", &body).await;
        assert_eq!(
            (status, &problem["errors"][0]["field"]),
            (422, &json!("plan_from"))
        );
        let says = problem["errors"][0]["problem"].as_str().expect("text");
        assert!(says.contains(words), "{says}");
    }
    service
        .change(&planned, |job| {
            job.plan = Some(domain::plan::PlanVersion(1))
        })
        .await;
    body["plan_from"] = json!(planned);
    body["data"]["sites"] = json!([]);
    let (status, job) = submit(&service, "k", &body).await;
    assert_eq!(status, 201, "{job}");
}

#[tokio::test]
async fn a_job_of_two_megabytes_is_refused_and_the_next_request_is_served() {
    let service = Service::start().await;
    let mut body = spec();
    body["name"] = json!("x".repeat(2 << 20));
    let (status, problem) = submit(&service, "k", &body).await;
    assert_eq!(
        (status, &problem["type"]),
        (413, &json!("urn:fedpipe:problem:too-large"))
    );
    assert_eq!(service.get("/v1/jobs").await.0, 200);
}

#[tokio::test]
async fn a_server_that_is_killed_is_a_503_and_its_return_is_noticed() {
    let mut service = Service::start().await;
    let id = service.submit().await;
    service.nats.kill();
    let (status, problem) = service.get(&format!("/v1/jobs/{id}")).await;
    assert_eq!(
        (status, &problem["type"]),
        (503, &json!("urn:fedpipe:problem:unavailable"))
    );
    wait::until("readiness says so", SOON, async || {
        !service.readiness.is_ready()
    })
    .await;
    service.nats.restart();
    service.wait_until_ready().await;
    wait::until("the job is shown again", SOON, async || {
        service.get(&format!("/v1/jobs/{id}")).await.0 == 200
    })
    .await;
}

#[tokio::test]
async fn an_address_that_strangers_reach_is_refused_without_a_token() {
    let config = api::Config {
        listen: "0.0.0.0:0".parse().expect("an address"),
        ..api::Config::default()
    };
    let served = api::serve(&config, &Default::default(), &Default::default()).await;
    assert!(
        matches!(served, Err(api::Error::NoToken { .. })),
        "{served:?}"
    );
}

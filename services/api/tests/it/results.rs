//! What a job leaves: plan, rounds, report, adapter.

use std::io::Read;

use contract::permission::Role;
use contract::topology::{Bucket, plan_key, round_key, score_key};
use domain::artifact::ArtifactRef;
use domain::job::Phase;
use domain::plan::PlanVersion;
use domain::round::{Evaluated, Score, Summary};
use domain::time::UnixMillis;
use reqwest::Method;
use serde_json::{Value, json};

use crate::service::Service;

#[tokio::test]
async fn results_are_refused_while_there_are_none() {
    let service = Service::start().await;
    let id = service.submit().await;
    for (what, words) in [
        ("plan", "no plan yet"),
        ("report", "queued"),
        ("adapter", "queued"),
    ] {
        let (status, problem) = service.get(&format!("/v1/jobs/{id}/{what}")).await;
        assert_eq!(status, 409, "{problem}");
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|text| text.contains(words)),
            "{problem}"
        );
    }
    let (status, page) = service.get(&format!("/v1/jobs/{id}/rounds")).await;
    assert_eq!((status, &page["items"]), (200, &json!([])));
}

#[tokio::test]
async fn the_latest_plan_is_shown_and_older_ones_by_version() {
    let service = Service::start().await;
    let id = service.submit().await;
    let job = service
        .change(&id, |job| job.plan = Some(PlanVersion(2)))
        .await;
    let plans = service
        .bus(&Role::Planner)
        .await
        .store::<Value>(Bucket::Plans)
        .await;
    let plans = plans.expect("a bucket");
    for version in [1, 2] {
        let key = plan_key(&job.id, PlanVersion(version));
        plans
            .put(&key, &json!({ "version": version }))
            .await
            .expect("stored");
    }
    let path = format!("/v1/jobs/{id}/plan");
    assert_eq!(service.get(&path).await, (200, json!({ "version": 2 })));
    assert_eq!(
        service.get(&format!("{path}?version=1")).await,
        (200, json!({ "version": 1 }))
    );
    assert_eq!(service.get(&format!("{path}?version=3")).await.0, 404);
}

fn summary(round: u32, global: ArtifactRef) -> Summary {
    Summary {
        round,
        global,
        side: domain::adapter::RankTable::default(),
        scalars: None,
        optimizer: None,
        opened_at: UnixMillis(0),
        committed_at: UnixMillis(1000),
        seconds: 1.0,
        overhead_seconds: f64::NAN,
        dropped_energy: 0.0,
        energies: domain::energy::EnergyTable::default(),
        asked: Vec::new(),
        shrunk: Vec::new(),
        workers: Vec::new(),
        missing: Vec::new(),
    }
}

#[tokio::test]
async fn rounds_come_in_pages_with_their_scores_even_with_figures_that_are_not_numbers() {
    let service = Service::start().await;
    let id = service.submit().await;
    let global = service.put(&id, b"global".as_slice()).await;
    let (job, aggregator) = (
        service.change(&id, |_| {}).await,
        service.bus(&Role::Aggregator).await,
    );
    let rounds = aggregator
        .store::<Summary>(Bucket::Jobs)
        .await
        .expect("a bucket");
    for round in 0..3 {
        let key = round_key(&job.id, round);
        rounds
            .put(&key, &summary(round, global.clone()))
            .await
            .expect("stored");
    }
    let score = Evaluated {
        round: 2,
        score: Score {
            records: 2,
            loss_sum: 1.0,
            labelled_tokens: 2,
            confusion: vec![vec![1, 0], vec![0, 1]],
            answers: None,
            seconds: 0.1,
            bytes_down: 0,
        },
        complete: true,
        seconds: 0.1,
        missing: Vec::new(),
    };
    let scores = aggregator
        .store::<Evaluated>(Bucket::Jobs)
        .await
        .expect("a bucket");
    scores
        .put(&score_key(&job.id, 2), &score)
        .await
        .expect("stored");

    let path = format!("/v1/jobs/{id}/rounds?limit=2");
    let (status, page) = service.get(&path).await;
    assert_eq!(
        (status, &page["items"][1]["round"]),
        (200, &json!(1)),
        "{page}"
    );
    assert_eq!(page["items"][0]["overhead_seconds"], Value::Null);
    let cursor = page["next_cursor"].as_str().expect("more");
    let (_, page) = service.get(&format!("{path}&cursor={cursor}")).await;
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(page["items"][0]["evaluation"]["balanced_accuracy"], 1.0);
    assert_eq!(page["next_cursor"], Value::Null);
}

#[tokio::test]
async fn a_finished_job_hands_out_its_report_and_an_archive_with_the_adapter() {
    let service = Service::start().await;
    let id = service.submit().await;
    let tensors = vec![7; 100_000];
    let adapter = service.put(&id, tensors.clone()).await;
    let config = service.put(&id, br#"{"r":4}"#.as_slice()).await;
    let report = service.put(&id, br#"{"rounds":[]}"#.as_slice()).await;
    service
        .change(&id, |job| {
            job.phase = Phase::Succeeded {
                adapter: adapter.clone(),
                config: config.clone(),
                report: report.clone(),
            };
        })
        .await;
    assert_eq!(
        service.get(&format!("/v1/jobs/{id}/report")).await,
        (200, json!({ "rounds": [] }))
    );
    let (_, job) = service.get(&format!("/v1/jobs/{id}")).await;
    assert_eq!(job["adapter"]["sha256"], adapter.sha256.as_str());

    let request = service.request(Method::GET, &format!("/v1/jobs/{id}/adapter"));
    let response = request.send().await.expect("answers");
    assert_eq!(
        response.headers()["fedpipe-adapter-sha256"],
        adapter.sha256.as_str()
    );
    assert_eq!(response.headers()["content-type"], "application/x-tar");
    let bytes = response.bytes().await.expect("a whole body");
    let mut files = Vec::new();
    for entry in tar::Archive::new(&*bytes).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a path").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        files.push((name, content));
    }
    assert_eq!(
        files,
        [
            ("adapter_config.json".to_owned(), br#"{"r":4}"#.to_vec()),
            ("adapter_model.safetensors".to_owned(), tensors),
        ]
    );
}

#[tokio::test]
async fn an_adapter_that_was_deleted_from_storage_is_a_problem_and_not_half_an_archive() {
    let service = Service::start().await;
    let id = service.submit().await;
    let gone = service.put(&id, b"adapter".as_slice()).await;
    service
        .change(&id, |job| {
            job.phase = Phase::Succeeded {
                adapter: gone.clone(),
                config: gone.clone(),
                report: gone.clone(),
            };
        })
        .await;
    service
        .objects
        .delete_prefix(&format!("jobs/{id}"))
        .await
        .expect("deleted");
    for what in ["adapter", "report"] {
        let (status, problem) = service.get(&format!("/v1/jobs/{id}/{what}")).await;
        assert_eq!(
            (status, &problem["type"]),
            (404, &json!("urn:fedpipe:problem:not-found"))
        );
    }
}

/// The model is described by its files in storage; its weights are never fetched.
#[tokio::test]
async fn a_finished_adapter_is_handed_out_for_llama_cpp_and_what_needs_a_model_elsewhere_is_refused()
 {
    let service = Service::start().await;
    let id = service.submit().await;
    let reference =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../libs/engine/tests/reference");
    let read =
        |name: &str| std::fs::read(reference.join("tiny-uneven").join(name)).expect("a file");
    let adapter = service.put(&id, read("adapter_model.safetensors")).await;
    let config = service.put(&id, read("adapter_config.json")).await;
    let finish = async |model: domain::job::spec::Model| {
        let change = |job: &mut domain::job::Job| {
            job.spec.model = model.clone();
            job.phase = Phase::Succeeded {
                adapter: adapter.clone(),
                config: config.clone(),
                report: config.clone(),
            };
        };
        service.change(&id, change).await;
    };
    let path = format!("/v1/jobs/{id}/adapter");
    for model in ["tiny", "tiny.gguf"] {
        let pushed = service
            .objects
            .push_model(&reference.join(model), &artifacts::Transfer::default())
            .await
            .expect("pushed");
        finish(domain::job::spec::Model {
            digest: Some(pushed.digest),
            source: None,
        })
        .await;
        let request = service.request(Method::GET, &format!("{path}?format=gguf-lora"));
        let response = request.send().await.expect("answers");
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.headers()["content-type"],
            "application/octet-stream"
        );
        let announced = response.headers()["fedpipe-adapter-sha256"]
            .to_str()
            .expect("text")
            .to_owned();
        let bytes = response.bytes().await.expect("a whole body");
        let digest = sha2::Digest::finalize(sha2::Digest::chain_update(
            <sha2::Sha256 as sha2::Digest>::new(),
            &bytes,
        ));
        let digest = domain::artifact::Digest::from_bytes(&digest.into());
        assert_eq!(announced, digest.to_string());
        assert_eq!(&bytes[..4], b"GGUF");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("adapter.gguf");
        std::fs::write(&file, &bytes).expect("written");
        let sizes = engine::model::Model::inspect(&reference.join(model)).expect("a model");
        let shapes = sizes.config.weights();
        let own = engine::adapter::Adapter::load(&reference.join("tiny-uneven"), &shapes);
        let own = own.expect("an adapter");
        engine::export::gguf_lora::read_back(&own, &sizes.config, &file).expect("the same adapter");
    }
    let (status, problem) = service.get(&format!("{path}?format=onnx")).await;
    assert_eq!(status, 400, "{problem}");
    let detail = problem["detail"].as_str().expect("a detail");
    let all = "use peft, gguf-lora, merged or gguf";
    assert!(detail.contains(all), "{detail}");
    finish(domain::job::spec::Model {
        digest: None,
        source: Some("file:///elsewhere".to_owned()),
    })
    .await;
    for format in ["gguf-lora", "merged", "gguf"] {
        let (status, problem) = service.get(&format!("{path}?format={format}")).await;
        assert_eq!(status, 409, "{problem}");
        let detail = problem["detail"].as_str().expect("a detail");
        let command = format!("`fedpipe export --to {format}` where the model is");
        assert!(detail.contains(&command), "{detail}");
    }
    // An encoder: llama.cpp's format has no head.
    let pushed = service
        .objects
        .push_model(&reference.join("encoder"), &artifacts::Transfer::default())
        .await
        .expect("pushed");
    let read = |name: &str| read(&format!("../encoder/adapter/{name}"));
    let adapter = service.put(&id, read("adapter_model.safetensors")).await;
    let config = service.put(&id, read("adapter_config.json")).await;
    let change = |job: &mut domain::job::Job| {
        job.spec.model = domain::job::spec::Model {
            digest: Some(pushed.digest.clone()),
            source: None,
        };
        job.phase = Phase::Succeeded {
            adapter: adapter.clone(),
            config: config.clone(),
            report: config.clone(),
        };
    };
    service.change(&id, change).await;
    let (status, problem) = service.get(&format!("{path}?format=gguf-lora")).await;
    assert_eq!(status, 409, "{problem}");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(
        detail.contains("an encoder's adapter is exported as peft or merged"),
        "{detail}"
    );
    assert_eq!(
        service
            .request(Method::GET, &path)
            .send()
            .await
            .expect("answers")
            .status(),
        200
    );
}

//! A job through all five processes.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tests::job::{scored, with};
use tests::{Fleet, Setup, archive};

const END: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_job_trains_through_all_processes_and_its_plan_replays_to_the_same_adapter() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let api = fleet.api();
    let id = api.submit(&scored(&fleet.model())).await;
    let digest = api.succeeded(&id, END).await;

    let path = format!("/v1/jobs/{id}/adapter");
    let (status, bytes) = api.bytes(Method::GET, &path, None).await.unwrap();
    assert!(status.is_success(), "{status}");
    let files = archive::files(&bytes);
    let names: Vec<&String> = files.keys().collect();
    assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors"]);

    let again = api
        .submit(&with(scored(&fleet.model()), "plan_from", json!(id)))
        .await;
    assert_eq!(api.succeeded(&again, END).await, digest);
}

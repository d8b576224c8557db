//! Deletion: only of what has ended, and nothing is left.

use contract::permission::Role;
use contract::topology::{Bucket, plan_key, profile_key, round_key, score_key};
use domain::job::Phase;
use domain::plan::PlanVersion;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::wait;

use crate::service::{SOON, Service, json_of, worker};

#[tokio::test]
async fn a_job_is_deleted_only_when_it_has_ended_and_then_nothing_is_left() {
    let service = Service::start().await;
    let id = service.submit().await;
    let job_id: domain::id::JobId = id.parse().expect("an id");
    let path = format!("/v1/jobs/{id}");
    let delete = || json_of(service.request(Method::DELETE, &path));
    assert_eq!(delete().await.0, 409);

    service.put(&id, b"update".as_slice()).await;
    service
        .change(&id, |job| {
            job.participants = vec![worker("a")];
            job.plan = Some(PlanVersion(2));
            job.phase = Phase::Cancelled;
        })
        .await;
    let planner = service.bus(&Role::Planner).await;
    let profiler = service.bus(&Role::Profiler).await;
    let aggregator = service.bus(&Role::Aggregator).await;
    let mut values = Vec::new();
    for version in [1, 2] {
        values.push((
            &planner,
            Bucket::Plans,
            plan_key(&job_id, PlanVersion(version)),
        ));
    }
    values.push((
        &profiler,
        Bucket::Profiles,
        profile_key(&job_id, &worker("a")),
    ));
    for round in 0..3 {
        values.push((&aggregator, Bucket::Jobs, round_key(&job_id, round)));
        values.push((&aggregator, Bucket::Jobs, score_key(&job_id, round)));
    }
    for (bus, bucket, key) in &values {
        let store = bus.store::<Value>(*bucket).await.expect("a bucket");
        store.put(key, &json!({})).await.expect("stored");
    }

    let (status, answer) = delete().await;
    assert_eq!(status, 204, "{answer}");
    assert_eq!(service.get(&path).await.0, 404);
    assert_eq!(delete().await.0, 404);
    for (bus, bucket, key) in &values {
        let store = bus.store::<Value>(*bucket).await.expect("a bucket");
        assert!(store.get(key).await.expect("answers").is_none(), "{key}");
    }
    let left = service
        .objects
        .usage(&format!("jobs/{id}"))
        .await
        .expect("counted");
    assert_eq!(left.objects, 0);
    wait::until("it is no longer listed", SOON, async || {
        service.get("/v1/jobs").await.1["items"] == json!([])
    })
    .await;
}

//! Cancel, pause and resume: done once however often they are asked for, said once, told to workers.

use contract::message::control::{Order, Reply};
use contract::permission::Role;
use domain::job::Phase;
use domain::time::UnixMillis;
use futures::StreamExt;
use serde_json::json;
use testkit::wait;

use crate::service::{SOON, Service, worker};

async fn in_training(service: &Service, id: &str) {
    let global = service.put(id, b"global".as_slice()).await;
    service
        .change(id, |job| {
            job.participants = vec![worker("a")];
            job.epoch.0 = 5;
            job.phase = Phase::Training {
                round: 1,
                global: global.clone(),
                opened_at: UnixMillis(0),
                deadline: UnixMillis(1_000_000),
                asked: Vec::new(),
            };
        })
        .await;
}

/// Names of all events of a job so far.
async fn said(service: &Service, id: &str) -> Vec<String> {
    let path = format!("/v1/jobs/{id}/events?follow=false");
    let response = service
        .request(reqwest::Method::GET, &path)
        .send()
        .await
        .expect("answers");
    let text = response.text().await.expect("a body");
    let names = text.lines().filter_map(|line| line.strip_prefix("event: "));
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn cancelling_twice_cancels_once_and_the_worker_is_told() {
    let service = Service::start().await;
    let id = service.submit().await;
    in_training(&service, &id).await;
    let site = service.bus(&Role::Worker(worker("a"))).await;
    let mut orders = site.orders(&worker("a")).await.expect("listens");
    site.round_trip().await.expect("the server knows of it");

    let (status, job) = service.post(&format!("/v1/jobs/{id}/cancel")).await;
    assert_eq!(
        (status, &job["phase"], &job["epoch"]),
        (200, &json!("cancelled"), &json!(6))
    );
    let order = wait::in_time("the worker is told", SOON, orders.next())
        .await
        .expect("an order");
    let Order::Cancel { job: told, below } = &order.control.order else {
        panic!("{:?}", order.control);
    };
    assert_eq!((told.as_str(), below.0), (id.as_str(), 6));
    let reply = Reply {
        worker: worker("a"),
        stopped: true,
    };
    order.answer(&reply).await.expect("answered");

    let (status, job) = service.post(&format!("/v1/jobs/{id}/cancel")).await;
    assert_eq!((status, &job["epoch"]), (200, &json!(6)));
    assert_eq!(said(&service, &id).await, ["submitted", "cancelled"]);
    for verb in ["pause", "resume"] {
        let (status, problem) = service.post(&format!("/v1/jobs/{id}/{verb}")).await;
        assert_eq!(
            (status, &problem["type"]),
            (409, &json!("urn:fedpipe:problem:conflict"))
        );
    }
}

#[tokio::test]
async fn a_pause_twice_in_one_round_is_one_and_each_resume_is_said_in_its_own_epoch() {
    let service = Service::start().await;
    let id = service.submit().await;
    in_training(&service, &id).await;
    let path = |verb: &str| format!("/v1/jobs/{id}/{verb}");

    let (status, job) = service.post(&path("pause")).await;
    assert_eq!((status, &job["pause_requested"]), (202, &json!(true)));
    for _ in 0..2 {
        let (status, job) = service.post(&path("pause?now=true")).await;
        assert_eq!(
            (status, &job["phase"], &job["epoch"]),
            (200, &json!("paused"), &json!(6))
        );
        assert_eq!(job["paused_phase"], "training");
    }
    for _ in 0..2 {
        let (status, job) = service.post(&path("resume")).await;
        assert_eq!(
            (status, &job["phase"], &job["epoch"]),
            (200, &json!("training"), &json!(7))
        );
    }
    let (status, job) = service.post(&path("pause?now=true")).await;
    assert_eq!((status, &job["epoch"]), (200, &json!(8)));
    let (_, job) = service.post(&path("resume")).await;
    assert_eq!(job["epoch"], 9);
    assert_eq!(
        said(&service, &id).await,
        [
            "submitted",
            "opened",
            "paused",
            "resumed",
            "opened",
            "paused",
            "resumed",
            "opened"
        ]
    );
}

#[tokio::test]
async fn a_job_that_is_not_there_cannot_be_controlled() {
    let service = Service::start().await;
    for verb in ["cancel", "pause", "resume"] {
        assert_eq!(
            service
                .post(&format!("/v1/jobs/job_00000000000000ff/{verb}"))
                .await
                .0,
            404
        );
    }
    let id = service.submit().await;
    assert_eq!(
        service
            .post(&format!("/v1/jobs/{id}/pause?now=perhaps"))
            .await
            .0,
        400
    );
}

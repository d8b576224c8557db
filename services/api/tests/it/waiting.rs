//! Which site a job waits for, and why, seen through the whole service.

use contract::message::report::{Failed, Head};
use contract::permission::Role;
use domain::cause::Trouble;
use domain::job::{Job, Phase};
use domain::time::UnixMillis;
use serde_json::Value;
use testkit::wait;

use crate::service::{SOON, Service, beat, registration, worker};

async fn profiling(service: &Service, id: &str) -> Job {
    service
        .change(id, |job| {
            job.participants = vec![worker("a"), worker("b")];
            job.epoch.0 = 2;
            job.phase = Phase::Profiling {
                deadline: UnixMillis(u64::MAX / 2),
            };
        })
        .await
}

/// Waits until the job says of the worker what it should.
async fn says(service: &Service, id: &str, name: &str, words: &str) {
    let what = format!("the job says of {name}: {words}");
    wait::until(&what, SOON, async || {
        let (_, job) = service.get(&format!("/v1/jobs/{id}")).await;
        let waiting = job["waiting_for"].as_array().expect("a list");
        let of = |one: &&Value| one["worker"] == name;
        let why = waiting.iter().find(of).and_then(|one| one["why"].as_str());
        why.is_some_and(|why| why.contains(words))
    })
    .await;
}

#[tokio::test]
async fn a_site_that_falls_silent_is_named_with_what_it_did_last() {
    let service = Service::start().await;
    let id = service.submit().await;
    let site = service.bus(&Role::Worker(worker("a"))).await;
    site.register(&registration("a", 50))
        .await
        .expect("registered");
    let job = profiling(&service, &id).await;
    wait::until("the beat is heard", SOON, async || {
        site.say(&beat("a", &job, 0.5)).await.expect("said");
        let (_, page) = service.get("/v1/workers").await;
        page["items"][0]["stage"] == "training"
    })
    .await;
    says(&service, &id, "a", "unreachable: no sign of life for").await;
    says(&service, &id, "a", "it was training, 3 of 8 then").await;
    let (_, page) = service.get("/v1/workers").await;
    assert_eq!(page["items"][0]["liveness"], "unreachable");
    assert_eq!(page["items"][0]["job"], id.as_str());
}

#[tokio::test]
async fn a_site_that_reported_a_failure_shows_its_cause() {
    let service = Service::start().await;
    let id = service.submit().await;
    let site = service.bus(&Role::Worker(worker("b"))).await;
    site.register(&registration("b", 3000))
        .await
        .expect("registered");
    let job = profiling(&service, &id).await;
    let failed = Failed {
        head: Head {
            worker: worker("b"),
            job: job.id.clone(),
            epoch: job.epoch,
        },
        task: "probe".to_owned(),
        trouble: Trouble::Crashed,
        detail: "died while loading the model".to_owned(),
    };
    site.publish(&failed, None).await.expect("reported");
    says(
        &service,
        &id,
        "b",
        "crashes on this task: died while loading the model",
    )
    .await;
}

#[tokio::test]
async fn a_queued_job_says_which_site_never_came() {
    let service = Service::start().await;
    let id = service.submit().await;
    let (_, job) = service.get(&format!("/v1/jobs/{id}")).await;
    let reason = job["queue"]["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("a: no worker of this name has registered"),
        "{reason}"
    );
    assert_eq!(job["queue"]["place"], 1);
    says(&service, &id, "a", "no worker of this name has registered").await;
}

//! Event streams: in order, resumable, with live progress, and with an end.

use contract::permission::Role;
use domain::job::Phase;
use domain::time::UnixMillis;
use eventsource_stream::{Event, Eventsource};
use futures::{Stream, StreamExt};
use reqwest::Method;
use serde_json::Value;
use testkit::wait;

use crate::service::{SOON, Service, beat, registration, worker};

async fn open(
    service: &Service,
    id: &str,
    query: &str,
    last: Option<&str>,
) -> impl Stream<Item = Event> + Unpin + use<> {
    let mut request = service.request(Method::GET, &format!("/v1/jobs/{id}/events{query}"));
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    let response = request.send().await.expect("answers");
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let events = response.bytes_stream().eventsource();
    events.map(|event| event.expect("an event")).boxed()
}

async fn next(events: &mut (impl Stream<Item = Event> + Unpin)) -> Option<Event> {
    wait::in_time("the stream goes on", SOON, events.next()).await
}

async fn names(mut events: impl Stream<Item = Event> + Unpin) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(event) = next(&mut events).await {
        names.push(event.event);
    }
    names
}

#[tokio::test]
async fn a_stream_is_followed_live_ends_with_the_job_and_goes_on_where_a_client_left_it() {
    let service = Service::start().await;
    let id = service.submit().await;
    let mut events = open(&service, &id, "", None).await;
    let first = next(&mut events).await.expect("an event");
    assert_eq!(first.event, "submitted");
    let data: Value = serde_json::from_str(&first.data).expect("JSON");
    assert_eq!(
        (&data["job"], &data["event"]),
        (&id.as_str().into(), &"submitted".into())
    );

    service.post(&format!("/v1/jobs/{id}/pause")).await;
    service.post(&format!("/v1/jobs/{id}/resume")).await;
    service.post(&format!("/v1/jobs/{id}/cancel")).await;
    assert_eq!(names(events).await, ["paused", "resumed", "cancelled"]);

    let rest = open(&service, &id, "", Some(&first.id)).await;
    assert_eq!(names(rest).await, ["paused", "resumed", "cancelled"]);
    let rest = open(&service, &id, &format!("?after={}", first.id), None).await;
    assert_eq!(names(rest).await, ["paused", "resumed", "cancelled"]);
}

#[tokio::test]
async fn without_following_a_stream_ends_with_what_there_is() {
    let service = Service::start().await;
    let id = service.submit().await;
    assert_eq!(
        names(open(&service, &id, "?follow=false", None).await).await,
        ["submitted"]
    );
    let mut events = open(&service, &id, "?follow=false", None).await;
    let last = next(&mut events).await.expect("an event").id;
    assert!(
        names(open(&service, &id, "?follow=false", Some(&last)).await)
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_client_that_saw_the_end_of_a_settled_job_is_not_kept() {
    let service = Service::start().await;
    let id = service.submit().await;
    service.post(&format!("/v1/jobs/{id}/cancel")).await;
    let mut events = open(&service, &id, "", None).await;
    next(&mut events).await.expect("submitted");
    let last = next(&mut events).await.expect("cancelled").id;
    service.change(&id, |job| job.settled = true).await;
    assert!(
        names(open(&service, &id, "", Some(&last)).await)
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn live_progress_of_the_jobs_workers_comes_between_events_even_when_it_is_not_a_number() {
    let service = Service::start().await;
    let id = service.submit().await;
    let global = service.put(&id, b"global".as_slice()).await;
    let job = service
        .change(&id, |job| {
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
    let mut events = open(&service, &id, "", None).await;
    let submitted = next(&mut events).await.expect("an event");
    assert_eq!(submitted.event, "submitted");
    let site = service.bus(&Role::Worker(worker("a"))).await;
    let stranger = service.bus(&Role::Worker(worker("b"))).await;
    site.register(&registration("a", 3000))
        .await
        .expect("registered");
    let progress = wait::some("progress is shown", SOON, async || {
        stranger.say(&beat("b", &job, 0.1)).await.expect("said");
        site.say(&beat("a", &job, f64::NAN)).await.expect("said");
        let next = events.next();
        tokio::time::timeout(std::time::Duration::from_millis(200), next)
            .await
            .ok()
            .flatten()
    })
    .await;
    // Without an id of its own: a client that comes back names the last event.
    assert_eq!(
        (progress.event.as_str(), progress.id),
        ("progress", submitted.id)
    );
    let data: Value = serde_json::from_str(&progress.data).expect("JSON");
    assert_eq!(
        (&data["worker"], &data["progress"]["done"]),
        (&"a".into(), &3.into())
    );
    assert_eq!(data["progress"]["loss"], Value::Null);
}

#[tokio::test]
async fn more_streams_than_the_limit_are_refused_and_a_closed_one_makes_room() {
    let service = Service::start_with(|config| config.limits.event_streams = 1).await;
    let id = service.submit().await;
    let path = format!("/v1/jobs/{id}/events");
    let mut first = open(&service, &id, "", None).await;
    next(&mut first).await.expect("an event");
    let (status, problem) = service.get(&path).await;
    assert_eq!(
        (status, &problem["type"]),
        (429, &"urn:fedpipe:problem:too-many".into())
    );
    drop(first);
    wait::until("there is room", SOON, async || {
        let answer = service.request(Method::GET, &path).send().await;
        answer.expect("answers").status().as_u16() == 200
    })
    .await;
}

#[tokio::test]
async fn a_stream_position_that_is_none_and_a_job_that_is_none_are_problems() {
    let service = Service::start().await;
    let id = service.submit().await;
    assert_eq!(
        service.get("/v1/jobs/job_00000000000000ff/events").await.0,
        404
    );
    assert_eq!(
        service
            .get(&format!("/v1/jobs/{id}/events?after=x"))
            .await
            .0,
        400
    );
}

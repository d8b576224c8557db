//! Questions of workers and their answers.

use std::time::Duration;

use bus::Retry;
use contract::Message;
use contract::message::grant::{Answer, Ask};
use contract::permission::Role;
use domain::grant::{Access, SignedUrl, Wanted};
use domain::id::WorkerName;
use futures::StreamExt;
use testkit::wait;

use crate::fixture::{SOON, Site, connect, job_id, site_a, site_b};

/// Long enough for a message to arrive that is on its way.
const MOMENT: Duration = Duration::from_millis(500);

fn ask(worker: WorkerName) -> Ask {
    let key = "jobs/j/global/x".to_owned();
    let access = Access::Get;
    Ask {
        worker,
        job: Some(job_id(1)),
        wanted: vec![Wanted { access, key }],
    }
}

fn answer() -> Answer {
    Answer::Granted {
        urls: vec![SignedUrl::from("https://x".to_owned())],
        valid_ms: 1000,
    }
}

#[tokio::test]
async fn a_question_is_answered_to_the_worker_that_asked() {
    let site = Site::open().await;
    let mut asks = site.api.asks().await.unwrap();
    site.api.round_trip().await.unwrap();
    let question = ask(site_a());
    let reply = async {
        let heard = asks.next().await.unwrap();
        assert_eq!(heard.ask, ask(site_a()));
        heard.answer(&answer()).await.unwrap();
    };
    let (answered, ()) = tokio::join!(site.worker.ask(&question), reply);
    assert_eq!(answered.unwrap(), answer());
}

#[tokio::test]
async fn each_question_is_heard_by_one_of_several_processes() {
    let site = Site::open().await;
    let second = connect(&site.server, &Role::Api).await;
    let (mut one, mut two) = (site.api.asks().await.unwrap(), second.asks().await.unwrap());
    site.api.round_trip().await.unwrap();
    second.round_trip().await.unwrap();
    for _ in 0..20 {
        let reply = async {
            let heard = tokio::select! {
                heard = one.next() => heard,
                heard = two.next() => heard,
            };
            heard.unwrap().answer(&answer()).await.unwrap();
        };
        let question = ask(site_a());
        let (answered, ()) = tokio::join!(site.worker.ask(&question), reply);
        answered.unwrap();
    }
    let more = async {
        tokio::select! { one = one.next() => one, two = two.next() => two }
    };
    wait::never("a question is heard twice", MOMENT, more).await;
}

#[tokio::test]
async fn a_question_that_nobody_hears_is_known_at_once_and_asked_again_later() {
    let site = Site::open().await;
    let question = ask(site_a());
    let error = wait::in_time("it is refused", SOON, site.worker.ask(&question)).await;
    let error = error.unwrap_err();
    assert_eq!(error.retry(), Retry::Later);
    // The server says at once that nobody listens; it is not the time that has run out.
    let said = format!("{error:?}");
    assert!(said.contains("NoResponders"), "{said}");
}

#[tokio::test]
async fn whoever_asks_under_another_name_or_for_another_inbox_is_not_answered() {
    let site = Site::open().await;
    let mut asks = site.api.asks().await.unwrap();
    site.api.round_trip().await.unwrap();
    let intruder = crate::denied::raw(&site.server, &Role::Worker(site_a())).await;
    let say = async |subject: String, reply: &str, ask: &Ask| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(contract::envelope::KIND_HEADER, Ask::KIND);
        headers.insert(contract::envelope::VERSION_HEADER, "1");
        let payload = contract::encode(ask).unwrap().into();
        let reply = reply.to_owned();
        let sent = intruder.publish_with_reply_and_headers(subject, reply, headers, payload);
        sent.await.unwrap();
        intruder.flush().await.unwrap();
    };
    let (own, other) = (ask(site_a()), ask(site_b()));
    // The server drops what is said on another's subject; the bus drops the rest.
    say(other.subject(), "_INBOX_worker-site-a.x", &other).await;
    say(own.subject(), "_INBOX_worker-site-a.x", &other).await;
    say(own.subject(), "_INBOX_worker-site-b.x", &own).await;
    say(own.subject(), "_INBOX_worker-site-a", &own).await;
    say(own.subject(), "$JS.API.STREAM.PURGE.FEDPIPE_TASKS", &own).await;
    say(own.subject(), "_INBOX_worker-site-a.x", &own).await;
    let heard = wait::in_time("a question arrives", SOON, asks.next()).await;
    assert_eq!(heard.unwrap().ask, own);
    wait::never("another question arrives", MOMENT, asks.next()).await;
}

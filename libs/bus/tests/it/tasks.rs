//! A worker's work queue.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bus::{Bus, Delivery, Outcome, Said, Serve};
use domain::id::Epoch;
use domain::trace::Trace;
use testkit::{clock, wait};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::fixture::{ACK_WAIT, Garbage, SOON, Site, job_id, probe, site_a};

/// Deliveries that a test answers one by one.
struct Queue {
    deliveries: mpsc::UnboundedReceiver<(Delivery, tokio::sync::oneshot::Sender<Outcome>)>,
    _serving: DropGuard,
}

impl Queue {
    fn serve(bus: &Bus) -> Self {
        Self::serve_within(bus, ACK_WAIT)
    }

    fn serve_within(bus: &Bus, ack_wait: Duration) -> Self {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let serve = Serve {
            worker: site_a(),
            ack_wait,
            max_deliveries: 3,
        };
        let token = CancellationToken::new();
        let (bus, stop) = (bus.clone(), token.clone());
        tokio::spawn(async move {
            bus.serve(&serve, &stop, |delivery| {
                let (answer, answered) = tokio::sync::oneshot::channel();
                let _ = sender.send((delivery, answer));
                async move { answered.await.unwrap_or(Outcome::HandBack) }
            })
            .await;
        });
        Self {
            deliveries,
            _serving: token.drop_guard(),
        }
    }

    async fn next(&mut self) -> (Delivery, tokio::sync::oneshot::Sender<Outcome>) {
        let next = wait::in_time("a task arrives", SOON, self.deliveries.recv()).await;
        next.unwrap()
    }

    async fn answer_next(&mut self, outcome: Outcome) -> Delivery {
        let (delivery, answer) = self.next().await;
        answer.send(outcome).unwrap();
        delivery
    }

    async fn stays_empty(&mut self, during: Duration) {
        wait::never("a task arrives", during, self.deliveries.recv()).await;
    }
}

/// A site whose tasks do not come again by themselves while a test lasts.
async fn patient() -> Site {
    with_idle_time(SOON * 10).await
}

/// A site whose tasks come again after so long without progress.
async fn with_idle_time(ack_wait: Duration) -> Site {
    let site = Site::open().await;
    let worker = site_a();
    site.aggregator
        .ensure_worker(&worker, ack_wait)
        .await
        .unwrap();
    site
}

#[tokio::test]
async fn a_task_that_is_done_never_comes_again() {
    let site = Site::open().await;
    site.aggregator
        .publish(&probe(&site_a(), 1, 1), None)
        .await
        .unwrap();
    let mut queue = Queue::serve(&site.worker);
    let delivery = queue.answer_next(Outcome::Done).await;
    assert_eq!(delivery.address.job, job_id(1));
    assert_eq!((delivery.deliveries, delivery.poison), (1, false));
    let asks = Trace::of_epoch(&job_id(1), Epoch(1), None);
    assert_eq!(delivery.trace, Some(asks), "who asks is said in the header");
    queue.stays_empty(ACK_WAIT * 2).await;
    // The queue has no memory of it, so that a lost task can be sent again.
    let again = site.aggregator.publish(&probe(&site_a(), 1, 1), None).await;
    assert_eq!(again.unwrap(), Said::Now);
}

#[tokio::test]
async fn a_worker_has_one_task_at_a_time() {
    let site = patient().await;
    for job in [1, 2] {
        site.aggregator
            .publish(&probe(&site_a(), job, 1), None)
            .await
            .unwrap();
    }
    let mut first = Queue::serve(&site.worker);
    let (held, answer) = first.next().await;
    let mut second = Queue::serve(&site.worker);
    second.stays_empty(ACK_WAIT / 2).await;
    answer.send(Outcome::Done).unwrap();
    drop(first);
    let next = second.answer_next(Outcome::Done).await;
    assert_ne!(next.address.job, held.address.job);
}

#[tokio::test]
async fn a_task_without_progress_comes_again_after_the_idle_time() {
    let site = Site::open().await;
    site.aggregator
        .publish(&probe(&site_a(), 1, 1), None)
        .await
        .unwrap();
    let mut stuck = Queue::serve(&site.worker);
    let (_first, _never_answered) = stuck.next().await;
    let mut other = Queue::serve(&site.worker);
    let (again, answer) = other.next().await;
    assert_eq!(again.deliveries, 2);
    answer.send(Outcome::Done).unwrap();
    other.stays_empty(ACK_WAIT * 2).await;
}

#[tokio::test]
async fn progress_keeps_a_task_far_beyond_the_idle_time() {
    // Progress is told four times in it: a busy machine may be late for some.
    let idle = ACK_WAIT * 2;
    let site = with_idle_time(idle).await;
    site.aggregator
        .publish(&probe(&site_a(), 1, 1), None)
        .await
        .unwrap();
    let mut busy = Queue::serve_within(&site.worker, idle);
    let (delivery, answer) = busy.next().await;
    let moving = delivery.progress;
    let steps = tokio::spawn(async move {
        loop {
            moving.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(idle / 20).await;
        }
    });
    let mut other = Queue::serve_within(&site.worker, idle);
    other.stays_empty(idle * 3).await;
    drop(steps);
    answer.send(Outcome::Done).unwrap();
    other.stays_empty(idle * 2).await;
}

#[tokio::test]
async fn a_task_for_later_comes_after_a_pause() {
    let site = patient().await;
    site.aggregator
        .publish(&probe(&site_a(), 1, 1), None)
        .await
        .unwrap();
    let mut queue = Queue::serve(&site.worker);
    let (_, answer) = queue.next().await;
    let answered_at = clock::now();
    answer.send(Outcome::Later).unwrap();
    let again = queue.next().await;
    // An eighth of the idle time; the clock tells whole milliseconds.
    let pause_ms = u128::from(clock::now().since(answered_at));
    assert!(pause_ms + 1 >= (ACK_WAIT / 8).as_millis(), "{pause_ms} ms");
    assert_eq!(again.0.deliveries, 2);
    again.1.send(Outcome::Done).unwrap();
}

#[tokio::test]
async fn a_task_handed_back_comes_at_once() {
    let site = patient().await;
    site.aggregator
        .publish(&probe(&site_a(), 1, 1), None)
        .await
        .unwrap();
    let mut queue = Queue::serve(&site.worker);
    queue.answer_next(Outcome::HandBack).await;
    let again = queue.next().await;
    assert_eq!(again.0.deliveries, 2);
    again.1.send(Outcome::Done).unwrap();
}

#[tokio::test]
async fn a_task_delivered_too_often_is_poison_and_is_not_decoded() {
    let site = Site::open().await;
    site.aggregator
        .publish(&probe(&site_a(), 1, 1), None)
        .await
        .unwrap();
    let mut queue = Queue::serve(&site.worker);
    for count in 1..=3 {
        let delivery = queue.answer_next(Outcome::HandBack).await;
        assert_eq!((delivery.deliveries, delivery.poison), (count, false));
        assert!(delivery.task.is_ok());
    }
    let poison = queue.answer_next(Outcome::Done).await;
    assert_eq!((poison.deliveries, poison.poison), (4, true));
    assert!(poison.task.is_err(), "it was decoded");
    queue.stays_empty(ACK_WAIT * 2).await;
}

#[tokio::test]
async fn a_task_that_cannot_be_read_reaches_the_handler_with_its_address() {
    let site = Site::open().await;
    let subject = contract::subject::task(&site_a(), &job_id(9), Epoch(4), "evaluate");
    site.aggregator
        .publish(&Garbage { subject }, None)
        .await
        .unwrap();
    let mut queue = Queue::serve(&site.worker);
    let delivery = queue.answer_next(Outcome::Done).await;
    assert_eq!(
        (delivery.address.job, delivery.address.epoch.0),
        (job_id(9), 4)
    );
    assert!(delivery.task.is_err());
    queue.stays_empty(ACK_WAIT * 2).await;
}

#[tokio::test]
async fn a_task_that_nobody_took_in_time_is_dropped() {
    let site = Site::open().await;
    let short = Some(Duration::from_secs(1));
    site.aggregator
        .publish(&probe(&site_a(), 1, 1), short)
        .await
        .unwrap();
    // The server looks for expired messages about once a second.
    wait::until("the subject is free again", SOON, async || {
        let again = site
            .aggregator
            .publish(&probe(&site_a(), 1, 1), short)
            .await;
        again.is_ok_and(|said| said == Said::Now)
    })
    .await;
    site.aggregator
        .publish(&probe(&site_a(), 2, 1), None)
        .await
        .unwrap();
    wait::never(
        "time passes",
        Duration::from_secs(2),
        std::future::pending::<()>(),
    )
    .await;
    let mut queue = Queue::serve(&site.worker);
    assert_eq!(
        queue.answer_next(Outcome::Done).await.address.job,
        job_id(2)
    );
    queue.stays_empty(ACK_WAIT).await;
}

#[tokio::test]
async fn purged_tasks_are_gone_and_another_jobs_stay() {
    let site = Site::open().await;
    for job in [1, 2] {
        site.aggregator
            .publish(&probe(&site_a(), job, 1), None)
            .await
            .unwrap();
    }
    site.aggregator.purge_tasks(&job_id(1)).await.unwrap();
    let mut queue = Queue::serve(&site.worker);
    assert_eq!(
        queue.answer_next(Outcome::Done).await.address.job,
        job_id(2)
    );
    queue.stays_empty(ACK_WAIT).await;
}

#[tokio::test]
async fn a_worker_waits_for_a_queue_that_does_not_exist_yet() {
    let server = testkit::nats::NatsServer::start(&testkit::nats::roles(&["site-a"]));
    let role = contract::permission::Role::Worker(site_a());
    let worker = crate::fixture::connect(&server, &role).await;
    let mut queue = Queue::serve(&worker);
    let aggregator =
        crate::fixture::connect(&server, &contract::permission::Role::Aggregator).await;
    aggregator.ensure_topology().await.unwrap();
    assert!(!aggregator.worker_is_known(&site_a()).await);
    aggregator.ensure_worker(&site_a(), ACK_WAIT).await.unwrap();
    assert!(aggregator.worker_is_known(&site_a()).await);
    aggregator
        .publish(&probe(&site_a(), 1, 1), None)
        .await
        .unwrap();
    queue.answer_next(Outcome::Done).await;
}

//! A server that dies and comes back: nothing is lost, everybody goes on by themselves.

use std::time::Duration;

use bus::{Outcome, Retry, Said, Serve, Store};
use contract::topology::Bucket;
use futures::StreamExt;
use testkit::wait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::feeds::next;
use crate::fixture::{ACK_WAIT, SOON, Site, failed, job_id, probe, site_a, submitted};

/// A feed is back after this time at the latest: a site that is asked for something notices no pause.
const BACK: Duration = Duration::from_secs(5);

#[tokio::test]
async fn what_was_stored_is_there_and_said_stays_said() {
    let mut site = Site::open().await;
    let store: Store<u32> = site.api.store(Bucket::Jobs).await.unwrap();
    let revision = store.create("k", &1).await.unwrap();
    site.api.publish(&submitted(1, 1), None).await.unwrap();
    site.server.restart();
    let again = wait::some("the server answers", SOON, async || {
        site.api.publish(&submitted(1, 1), None).await.ok()
    });
    assert_eq!(again.await, Said::Before);
    assert_eq!(store.get("k").await.unwrap(), Some((1, revision)));
    store.update("k", &2, revision).await.unwrap();
}

#[tokio::test]
async fn while_the_server_is_away_every_call_says_so_in_time() {
    let mut site = Site::open().await;
    let store: Store<u32> = site.api.store(Bucket::Jobs).await.unwrap();
    site.server.kill();
    let failures = async {
        let event = submitted(1, 1);
        let (get, put, publish) = tokio::join!(
            store.get("k"),
            store.put("k", &1),
            site.api.publish(&event, None)
        );
        [get.unwrap_err(), put.unwrap_err(), publish.unwrap_err()]
    };
    for error in wait::in_time("every call has failed", SOON, failures).await {
        assert_eq!(error.retry(), Retry::Later, "{error}");
    }
}

#[tokio::test]
async fn whoever_waits_for_a_server_that_is_away_stops_when_it_is_told() {
    let mut site = Site::open().await;
    site.server.kill();
    let token = CancellationToken::new();
    token.cancel();
    let ready = wait::in_time("it stops waiting", SOON, site.api.ready(&token));
    assert!(!ready.await, "a server that is away was ready");
    site.server.restart();
    let going_on = CancellationToken::new();
    let ready = site.api.ready(&going_on);
    assert!(wait::in_time("the server is ready", SOON, ready).await);
}

#[tokio::test]
async fn feeds_bring_what_comes_after_and_events_nothing_twice() {
    let mut site = Site::open().await;
    let store: Store<u32> = site.api.store(Bucket::Plans).await.unwrap();
    store.put("before", &1).await.unwrap();
    site.api.publish(&submitted(1, 1), None).await.unwrap();
    let mut changes = site.aggregator.changes::<u32>(Bucket::Plans);
    let mut events = site.aggregator.events(Some(&job_id(1)), 0);
    let mut reports = site.aggregator.report_feed();
    assert_eq!(next(&mut changes).await.key, "before");
    assert_eq!(next(&mut events).await.1, submitted(1, 1));
    let mut epoch = 0;
    wait::until("the report feed is open", SOON, async || {
        epoch += 1;
        let report = failed(&site_a(), 2, epoch);
        site.worker.publish(&report, None).await.is_ok() && reports.try_recv().is_ok()
    })
    .await;

    site.server.restart();
    wait::until("the bus is back", SOON, async || {
        store.put("after", &2).await.is_ok()
            && site.api.publish(&submitted(1, 2), None).await.is_ok()
            && site
                .worker
                .publish(&failed(&site_a(), 3, 1), None)
                .await
                .is_ok()
    })
    .await;
    let change = wait::some("the change arrives", BACK, async || {
        changes
            .try_recv()
            .ok()
            .filter(|change| change.key == "after")
    });
    assert_eq!(change.await.value, Some(2));
    let event = wait::in_time("the event arrives", BACK, events.recv()).await;
    assert_eq!(event.unwrap().1, submitted(1, 2));
    wait::until("the report is told", BACK, async || {
        reports
            .try_recv()
            .is_ok_and(|address| address.job == job_id(3))
    })
    .await;
}

#[tokio::test]
async fn tasks_orders_and_beats_go_on() {
    let mut site = Site::open().await;
    let (sender, mut tasks) = mpsc::unbounded_channel();
    let serve = Serve {
        worker: site_a(),
        ack_wait: ACK_WAIT,
        max_deliveries: 3,
    };
    let token = CancellationToken::new();
    let (bus, stop) = (site.worker.clone(), token.clone());
    let serving = tokio::spawn(async move {
        bus.serve(&serve, &stop, |delivery| {
            let _ = sender.send(delivery);
            std::future::ready(Outcome::Done)
        })
        .await;
    });
    let mut orders = site.worker.orders(&site_a()).await.unwrap();
    site.aggregator
        .publish(&probe(&site_a(), 1, 1), None)
        .await
        .unwrap();
    wait::in_time("the first task arrives", SOON, tasks.recv())
        .await
        .unwrap();
    site.server.restart();
    wait::until("a task can be given", SOON, async || {
        site.aggregator
            .publish(&probe(&site_a(), 2, 1), None)
            .await
            .is_ok()
    })
    .await;
    let second = async { while tasks.recv().await.unwrap().address.job != job_id(2) {} };
    wait::in_time("the second task arrives", BACK, second).await;
    let order = contract::message::control::Control {
        worker: site_a(),
        order: contract::message::control::Order::Ping,
    };
    let reply = contract::message::control::Reply {
        worker: site_a(),
        stopped: false,
    };
    let (answer, ()) = tokio::join!(site.api.order(&order), async {
        let order = wait::in_time("the order arrives", BACK, orders.next()).await;
        order.unwrap().answer(&reply).await.unwrap();
    });
    assert_eq!(answer.unwrap(), reply);
    token.cancel();
    wait::in_time("serving ends", SOON, serving).await.unwrap();
}

#[tokio::test]
async fn a_network_that_was_gone_for_a_while_only_costs_that_while() {
    let site = Site::open().await;
    site.server.pause();
    let event = submitted(1, 1);
    let lost = site.api.publish(&event, None);
    let lost = wait::in_time("publishing gives up", SOON, lost).await;
    assert_eq!(lost.unwrap_err().retry(), Retry::Later);
    site.server.resume();
    // What was sent into the dead network may have arrived after all: it is said, once.
    wait::until("it is said", SOON, async || {
        site.api.publish(&submitted(1, 1), None).await.is_ok()
    })
    .await;
    let mut events = site.aggregator.events(Some(&job_id(1)), 0);
    assert_eq!(next(&mut events).await.1, submitted(1, 1));
    wait::never("it is said twice", ACK_WAIT / 2, events.recv()).await;
}

//! Listening: what was, then what comes.

use bus::{Change, Store};
use contract::topology::Bucket;
use domain::id::Epoch;
use testkit::wait;
use tokio::sync::mpsc::Receiver;

use crate::fixture::{SOON, Site, failed, job_id, site_a, submitted};

pub async fn next<T>(feed: &mut Receiver<T>) -> T {
    let next = wait::in_time("the feed brings something", SOON, feed.recv()).await;
    next.unwrap()
}

fn seen<T>(change: Change<T>) -> (String, Option<T>) {
    (change.key, change.value)
}

#[tokio::test]
async fn changes_bring_what_is_there_then_what_comes_and_what_goes() {
    let site = Site::open().await;
    let store: Store<u32> = site.api.store(Bucket::Plans).await.unwrap();
    store.put("old", &1).await.unwrap();
    store.put("old", &2).await.unwrap();
    let mut changes = site.aggregator.changes::<u32>(Bucket::Plans);
    assert_eq!(seen(next(&mut changes).await), ("old".to_owned(), Some(2)));
    store.put("new", &3).await.unwrap();
    assert_eq!(seen(next(&mut changes).await), ("new".to_owned(), Some(3)));
    store.remove("old").await.unwrap();
    assert_eq!(seen(next(&mut changes).await), ("old".to_owned(), None));
}

#[tokio::test]
async fn a_value_of_another_type_does_not_stop_the_feed() {
    let site = Site::open().await;
    let texts: Store<String> = site.api.store(Bucket::Plans).await.unwrap();
    texts
        .put("k.round.1", &"not a number".to_owned())
        .await
        .unwrap();
    let mut changes = site.aggregator.changes::<u32>(Bucket::Plans);
    let numbers: Store<u32> = site.api.store(Bucket::Plans).await.unwrap();
    numbers.put("k", &1).await.unwrap();
    assert_eq!(next(&mut changes).await.key, "k");
}

#[tokio::test]
async fn a_value_that_can_no_longer_be_read_is_as_good_as_gone_until_it_can() {
    let site = Site::open().await;
    let numbers: Store<u32> = site.api.store(Bucket::Plans).await.unwrap();
    let texts: Store<String> = site.api.store(Bucket::Plans).await.unwrap();
    numbers.put("k", &1).await.unwrap();
    let mut changes = site.aggregator.changes::<u32>(Bucket::Plans);
    assert_eq!(seen(next(&mut changes).await), ("k".to_owned(), Some(1)));
    texts.put("k", &"not a number".to_owned()).await.unwrap();
    assert_eq!(seen(next(&mut changes).await), ("k".to_owned(), None));
    numbers.put("k", &2).await.unwrap();
    assert_eq!(seen(next(&mut changes).await), ("k".to_owned(), Some(2)));
}

#[tokio::test]
async fn events_come_from_a_position_on_and_of_one_job_only() {
    let site = Site::open().await;
    for (job, epoch) in [(1, 1), (2, 1), (1, 2)] {
        site.api
            .publish(&submitted(job, epoch), None)
            .await
            .unwrap();
    }
    let mut all = site.aggregator.events(None, 0);
    let mut positions = Vec::new();
    for expected in [submitted(1, 1), submitted(2, 1), submitted(1, 2)] {
        let (position, event) = next(&mut all).await;
        assert_eq!(event, expected);
        positions.push(position);
    }
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    let mut of_one = site.aggregator.events(Some(&job_id(1)), positions[0]);
    assert_eq!(next(&mut of_one).await.1, submitted(1, 2));
    site.api.publish(&submitted(2, 2), None).await.unwrap();
    site.api.publish(&submitted(1, 3), None).await.unwrap();
    assert_eq!(next(&mut of_one).await.1, submitted(1, 3));
}

#[tokio::test]
async fn a_report_is_told_with_its_address() {
    let site = Site::open().await;
    let mut reports = site.aggregator.report_feed();
    // The feed tells what comes from its opening on, and nothing says when it is open.
    let mut epoch = 0;
    let address = wait::some("a report is told", SOON, async || {
        epoch += 1;
        site.worker
            .publish(&failed(&site_a(), 1, epoch), None)
            .await
            .ok()?;
        reports.try_recv().ok()
    })
    .await;
    assert_eq!((address.worker, address.job), (site_a(), job_id(1)));
    assert_eq!(address.kind, "failed");
    assert!(address.epoch <= Epoch(epoch));
}

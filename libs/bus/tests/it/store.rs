//! The key-value store.

use bus::{Error, Retry, Store};
use contract::topology::Bucket;

use crate::fixture::Site;

#[tokio::test]
async fn only_one_of_two_writers_wins() {
    let site = Site::open().await;
    let ours: Store<u32> = site.api.store(Bucket::Jobs).await.unwrap();
    let theirs: Store<u32> = site.aggregator.store(Bucket::Jobs).await.unwrap();
    let created = ours.create("k", &1).await.unwrap();
    let again = theirs.create("k", &2).await.unwrap_err();
    assert!(matches!(again, Error::Conflict { .. }), "{again}");
    let updated = theirs.update("k", &3, created).await.unwrap();
    let late = ours.update("k", &4, created).await.unwrap_err();
    assert_eq!(late.retry(), Retry::Reread, "{late}");
    assert_eq!(ours.get("k").await.unwrap(), Some((3, updated)));
}

#[tokio::test]
async fn a_removed_value_is_gone_and_can_be_created_again() {
    let site = Site::open().await;
    let store: Store<u32> = site.api.store(Bucket::Jobs).await.unwrap();
    let first = store.create("k", &1).await.unwrap();
    store.remove("k").await.unwrap();
    assert_eq!(store.get("k").await.unwrap(), None);
    assert_eq!(store.keys().await.unwrap(), Vec::<String>::new());
    let stale = store.update("k", &2, first).await.unwrap_err();
    assert_eq!(stale.retry(), Retry::Reread);
    store.create("k", &3).await.unwrap();
    assert_eq!(store.keys().await.unwrap(), ["k"]);
}

#[tokio::test]
async fn a_value_that_cannot_be_read_or_is_too_large_is_never_tried_again() {
    let site = Site::open().await;
    let text: Store<String> = site.api.store(Bucket::Jobs).await.unwrap();
    let number: Store<u32> = site.api.store(Bucket::Jobs).await.unwrap();
    text.put("k", &"not a number".to_owned()).await.unwrap();
    assert_eq!(number.get("k").await.unwrap_err().retry(), Retry::Never);
    let large = text.put("k", &"x".repeat(2 << 20)).await.unwrap_err();
    assert!(matches!(large, Error::TooLarge { .. }), "{large}");
}

#[tokio::test]
async fn a_value_that_cannot_be_read_is_absent_for_whoever_only_looks() {
    let site = Site::open().await;
    let text: Store<String> = site.api.store(Bucket::Jobs).await.unwrap();
    let number: Store<u32> = site.api.store(Bucket::Jobs).await.unwrap();
    assert_eq!(number.look("k").await.unwrap(), None);
    let written = "not a number".to_owned();
    text.put("k", &written).await.unwrap();
    assert_eq!(number.look("k").await.unwrap(), None);
    assert_eq!(text.look("k").await.unwrap(), Some(written));
}

#[tokio::test]
async fn every_bucket_can_be_written_by_whoever_must() {
    let site = Site::open().await;
    for bucket in [Bucket::Jobs, Bucket::Plans, Bucket::Profiles] {
        let store: Store<u32> = site.api.store(bucket).await.unwrap();
        store.remove("job_0000000000000001.x").await.unwrap();
    }
    for (role, bucket) in [
        (contract::permission::Role::Profiler, Bucket::Profiles),
        (contract::permission::Role::Planner, Bucket::Plans),
    ] {
        let bus = crate::fixture::connect(&site.server, &role).await;
        let store: Store<u32> = bus.store(bucket).await.unwrap();
        store.put("k", &1).await.unwrap();
        let jobs: Store<u32> = bus.store(Bucket::Jobs).await.unwrap();
        jobs.put("k", &1).await.unwrap();
    }
}

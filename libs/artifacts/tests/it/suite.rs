//! What storage does when nobody lies.

use std::num::NonZeroU64;

use artifacts::{Error, PART_BYTES, Retry, Spool, Transfer, Usage};
use domain::id::JobId;
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, MIB, content, length, slow, until};

pub async fn content_comes_back_whatever_its_length(backend: &Backend) {
    let transfer = Transfer::default();
    for length in [0, 1, 100, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 17 * MIB] {
        let content = content(length as u64, length);
        let path = backend.file("in", &content);
        let artifact = backend
            .store
            .put_file("jobs/j/updates/w", &path, &transfer)
            .await
            .unwrap();
        assert_eq!(artifact.bytes, length as u64);
        let out = backend.path("out");
        backend
            .store
            .get_file(&artifact, &out, u64::MAX, &transfer)
            .await
            .unwrap();
        assert!(
            std::fs::read(&out).unwrap() == content,
            "{length} bytes differ"
        );
        let bytes = backend
            .store
            .get_bytes(&artifact, u64::MAX, &transfer)
            .await
            .unwrap();
        assert!(bytes == content, "{length} bytes differ in memory");
        assert!(!backend.path("out.partial").exists());
    }
}

pub async fn objects_lie_where_the_layout_says(backend: &Backend) {
    let transfer = Transfer::default();
    let artifact = backend
        .store
        .put_bytes("jobs/j/updates/w", "hello", &transfer)
        .await
        .unwrap();
    let hex = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(artifact.sha256.hex(), hex);
    assert_eq!(artifact.key, format!("jobs/j/updates/w/{hex}.manifest"));
    let keys = backend.keys().await;
    assert_eq!(
        keys,
        [
            artifact.key.clone(),
            format!("jobs/j/updates/w/parts/{hex}")
        ]
    );
    assert!(backend.store.exists(&artifact.key).await.unwrap());
    backend.store.look_up(&artifact, &transfer).await.unwrap();
    assert!(
        !backend
            .store
            .exists("jobs/j/updates/w/other")
            .await
            .unwrap()
    );
    backend.store.ready().await.unwrap();
}

pub async fn the_same_content_is_sent_once(backend: &Backend) {
    let content = content(1, 9 * MIB);
    let (first, again) = (Transfer::default(), Transfer::default());
    let one = backend
        .store
        .put_bytes("a", content.clone(), &first)
        .await
        .unwrap();
    let two = backend.store.put_bytes("a", content, &again).await.unwrap();
    assert_eq!(one, two);
    assert_eq!((first.moved(), again.moved()), (one.bytes, 0));
    assert_eq!((first.progress(), again.progress()), (one.bytes, one.bytes));
}

pub async fn an_interrupted_upload_sends_no_part_twice(backend: &Backend) {
    let content = content(2, 40 * MIB + 1);
    let path = backend.file("in", &content);
    let cancel = CancellationToken::new();
    let first = slow(&cancel);
    let (stopped, ()) = tokio::join!(backend.store.put_file("a", &path, &first), async {
        until(|| first.moved() >= PART_BYTES).await;
        cancel.cancel();
    });
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert!(
        !backend
            .keys()
            .await
            .iter()
            .any(|key| key.ends_with(".manifest")),
        "sealed too early"
    );

    let second = Transfer::default();
    let artifact = backend.store.put_file("a", &path, &second).await.unwrap();
    assert!(second.moved() > 0, "it was not interrupted");
    assert!(
        first.moved() + second.moved() <= artifact.bytes,
        "a part was sent twice"
    );
    let back = backend
        .store
        .get_bytes(&artifact, u64::MAX, &Transfer::default())
        .await
        .unwrap();
    assert!(back == content);
}

pub async fn an_interrupted_download_keeps_its_parts(backend: &Backend) {
    let content = content(3, 40 * MIB + 1);
    let artifact = backend
        .store
        .put_bytes("a", content.clone(), &Transfer::default())
        .await
        .unwrap();
    let (out, partial) = (backend.path("out"), backend.path("out.partial"));
    let cancel = CancellationToken::new();
    let first = slow(&cancel);
    let (stopped, ()) = tokio::join!(
        backend.store.get_file(&artifact, &out, u64::MAX, &first),
        async {
            until(|| length(&partial) >= PART_BYTES).await;
            cancel.cancel();
        }
    );
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert!(!out.exists());

    // The last kept part is damaged on disk: it is fetched again, the ones before it are not.
    let kept = length(&partial) / PART_BYTES * PART_BYTES;
    let mut bytes = std::fs::read(&partial).unwrap();
    let at = kept as usize - 1;
    bytes[at] ^= 1;
    std::fs::write(&partial, bytes).unwrap();
    let second = Transfer::default();
    backend
        .store
        .get_file(&artifact, &out, u64::MAX, &second)
        .await
        .unwrap();
    assert_eq!(second.moved(), artifact.bytes - (kept - PART_BYTES));
    assert_eq!(second.progress(), artifact.bytes);
    assert!(std::fs::read(&out).unwrap() == content);

    let third = Transfer::default();
    backend
        .store
        .get_file(&artifact, &out, u64::MAX, &third)
        .await
        .unwrap();
    assert_eq!(third.moved(), 0, "what is there is not fetched");
}

pub async fn writers_of_the_same_content_do_not_disturb_each_other(backend: &Backend) {
    let content = bytes::Bytes::from(content(4, 9 * MIB));
    let transfer = Transfer::default();
    let writers = (0..4).map(|_| backend.store.put_bytes("a", content.clone(), &transfer));
    let written = futures::future::try_join_all(writers).await.unwrap();
    assert!(written.iter().all(|artifact| *artifact == written[0]));
    assert_eq!(backend.keys().await.len(), 3);
    let back = backend
        .store
        .get_bytes(&written[0], u64::MAX, &transfer)
        .await
        .unwrap();
    assert!(back == content);
}

pub async fn chosen_objects_of_a_prefix_go_away_and_the_others_stay(backend: &Backend) {
    let transfer = Transfer::default();
    let put = |prefix: &'static str| backend.store.put_bytes(prefix, prefix, &transfer);
    let first = put("jobs/a/updates/w1/1").await.unwrap();
    put("jobs/a/updates/w2/1").await.unwrap();
    let second = put("jobs/a/updates/w1/2").await.unwrap();
    let chosen = |key: &str| key.split('/').nth(4) == Some("1");
    let gone = backend.owner.delete_chosen("jobs/a/updates", chosen).await;
    assert_eq!(gone.unwrap().objects, 4);
    let gone = backend.owner.delete_chosen("jobs/a/updates", chosen).await;
    assert_eq!(gone.unwrap(), Usage::default());
    let read = backend.store.get_bytes(&second, 100, &transfer).await;
    assert!(read.is_ok(), "{read:?}");
    let read = backend.store.get_bytes(&first, 100, &transfer).await;
    assert!(read.is_err(), "{read:?}");
}

pub async fn a_prefix_goes_away_and_its_neighbours_stay(backend: &Backend) {
    let transfer = Transfer::default();
    let put = |prefix: &'static str| backend.store.put_bytes(prefix, prefix, &transfer);
    put("jobs/a/updates/w1").await.unwrap();
    put("jobs/a/updates/w2").await.unwrap();
    let neighbour = put("jobs/ab/updates/w1").await.unwrap();
    let used = backend.owner.usage("jobs/a").await.unwrap();
    assert_eq!(used.objects, 4);
    assert!(used.bytes > 34);

    assert_eq!(backend.owner.delete_prefix("jobs/a").await.unwrap(), used);
    assert_eq!(
        backend.owner.usage("jobs/a").await.unwrap(),
        Usage::default()
    );
    assert_eq!(
        backend.owner.delete_prefix("jobs/a").await.unwrap(),
        Usage::default()
    );
    backend
        .store
        .get_bytes(&neighbour, 100, &transfer)
        .await
        .unwrap();
    // What was deleted can be stored again.
    let again = put("jobs/a/updates/w1").await.unwrap();
    backend
        .store
        .get_bytes(&again, 100, &transfer)
        .await
        .unwrap();
}

pub async fn a_probe_measures_the_emulated_link_and_leaves_nothing(backend: &Backend) {
    let link = 4_000_000;
    let transfer = Transfer::default().with_bandwidth(NonZeroU64::new(link));
    let bytes = NonZeroU64::new(MIB as u64).unwrap();
    let measured = backend
        .store
        .probe("jobs/j/probe/w", bytes, 7, &transfer)
        .await
        .unwrap();
    for rate in [measured.up_bytes_per_second, measured.down_bytes_per_second] {
        assert!(rate > 0.0 && rate < 1.02 * link as f64, "{measured:?}");
    }
    assert_eq!(transfer.moved(), 2 * bytes.get());
    assert_eq!(backend.owner.usage("jobs").await.unwrap(), Usage::default());
    let too_much = NonZeroU64::new(artifacts::probe::PROBE_BYTES + 1).unwrap();
    let error = backend
        .store
        .probe("p", too_much, 7, &transfer)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }));
}

pub async fn a_spool_fetches_each_artifact_once_and_again_after_a_restart(backend: &Backend) {
    let artifact = backend
        .store
        .put_bytes("a", content(5, 9 * MIB), &Transfer::default())
        .await
        .unwrap();
    let (dir, job) = (backend.path("spool"), JobId::from_bits(1));
    let transfer = Transfer::default();
    let spool = Spool::open(&dir, 64 * MIB as u64).unwrap();
    let both = tokio::join!(
        spool.ensure(&job, &backend.store, &artifact, &transfer),
        spool.ensure(&job, &backend.store, &artifact, &transfer),
    );
    let path = both.0.unwrap();
    assert_eq!(path, both.1.unwrap());
    assert_eq!(transfer.moved(), artifact.bytes, "fetched twice");
    assert_eq!(spool.used_bytes(), artifact.bytes);

    let after_restart = Spool::open(&dir, 64 * MIB as u64).unwrap();
    assert_eq!(after_restart.used_bytes(), 0);
    assert!(!path.exists());
    let again = after_restart.ensure(&job, &backend.store, &artifact, &transfer);
    assert_eq!(again.await.unwrap(), path);
    assert_eq!(transfer.moved(), 2 * artifact.bytes);

    after_restart.remove(&job, &artifact).await.unwrap();
    after_restart.remove(&job, &artifact).await.unwrap();
    assert_eq!(after_restart.used_bytes(), 0);
    assert!(!path.exists());
}

pub async fn a_fetch_that_is_given_up_midway_gives_its_room_back(backend: &Backend) {
    let quick = Transfer::default();
    let artifact = backend
        .store
        .put_bytes("a", content(9, 17 * MIB), &quick)
        .await
        .unwrap();
    let job = JobId::from_bits(1);
    let spool = Spool::open(&backend.path("spool"), artifact.bytes).unwrap();
    let transfer = slow(&CancellationToken::new());
    let under_way = async {
        until(|| transfer.moved() > 0).await;
        spool.used_bytes()
    };
    let taken = tokio::select! {
        _ = spool.ensure(&job, &backend.store, &artifact, &transfer) => 0,
        taken = under_way => taken,
    };
    assert_eq!(taken, artifact.bytes);
    let used = spool.used_bytes();
    assert!(used < artifact.bytes, "{used} are still taken");
    let fetched = spool.ensure(&job, &backend.store, &artifact, &quick).await;
    assert_eq!(length(&fetched.unwrap()), artifact.bytes);
    assert_eq!(spool.used_bytes(), artifact.bytes);
}

pub async fn a_full_spool_is_resumable(backend: &Backend) {
    let transfer = Transfer::default();
    let one = backend
        .store
        .put_bytes("a", content(6, 700), &transfer)
        .await
        .unwrap();
    let two = backend
        .store
        .put_bytes("a", content(7, 700), &transfer)
        .await
        .unwrap();
    let huge = backend
        .store
        .put_bytes("a", content(8, 1001), &transfer)
        .await
        .unwrap();
    let (store, job) = (&backend.store, JobId::from_bits(1));
    let spool = Spool::open(&backend.path("spool"), 1000).unwrap();
    spool.ensure(&job, store, &one, &transfer).await.unwrap();
    let before = transfer.moved();
    let error = spool
        .ensure(&job, store, &two, &transfer)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::NoRoom {
                needed: 700,
                used: 700,
                limit: 1000,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.retry(), Retry::Later);
    // What can never fit says so alike: it is the limit that is too low, not the artifact that is wrong.
    let error = spool
        .ensure(&job, store, &huge, &transfer)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::NoRoom {
                needed: 1001,
                limit: 1000,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(transfer.moved(), before);
    spool.remove(&job, &one).await.unwrap();
    spool.ensure(&job, store, &two, &transfer).await.unwrap();

    // A reservation does not outlive a fetch that failed.
    spool.remove(&job, &two).await.unwrap();
    backend.owner.delete_prefix("a").await.unwrap();
    spool
        .ensure(&job, store, &one, &transfer)
        .await
        .unwrap_err();
    assert_eq!(spool.used_bytes(), 0);
}

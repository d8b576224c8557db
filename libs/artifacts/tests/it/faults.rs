//! A server that dies, denies, is not there, or says nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use artifacts::{Config, Error, PART_BYTES, Retry, Store, Transfer};
use testkit::s3::S3Server;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, MIB, config_of, content, slow, until};

/// Longest time until somebody knows that storage is away: what `store` promises.
const KNOWN_WITHIN: Duration = Duration::from_secs(22);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_and_started_again_costs_no_part() {
    let server = tokio::task::spawn_blocking(S3Server::start).await.unwrap();
    let store = Store::open(&config_of(&server, "p")).unwrap();
    let server = Arc::new(Mutex::new(server));
    let content = content(1, 40 * MIB + 1);
    let transfer = slow(&CancellationToken::new());
    let kill_and_restart = async {
        until(|| transfer.moved() >= PART_BYTES).await;
        server.lock().unwrap().kill();
        let moved = transfer.moved();
        let server = server.clone();
        tokio::task::spawn_blocking(move || server.lock().unwrap().restart())
            .await
            .unwrap();
        moved
    };
    let (first, moved) = tokio::join!(
        store.put_bytes("a", content.clone(), &transfer),
        kill_and_restart
    );
    let (artifact, sent_again) = match first {
        Ok(artifact) => (artifact, 0),
        // The same call, once more.
        Err(error) => {
            assert_eq!(error.retry(), Retry::Later, "{error:?}");
            let again = Transfer::default();
            (
                store.put_bytes("a", content.clone(), &again).await.unwrap(),
                again.moved(),
            )
        }
    };
    assert!(moved < artifact.bytes, "it was killed too late");
    assert!(
        transfer.moved() + sent_again <= artifact.bytes,
        "a part was counted twice"
    );
    let back = store
        .get_bytes(&artifact, u64::MAX, &Transfer::default())
        .await
        .unwrap();
    assert!(back == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_and_a_missing_bucket_say_what_to_do() {
    let server = tokio::task::spawn_blocking(S3Server::start).await.unwrap();
    let check = async |config: Config, what: &str, words: &str| {
        let store = Store::open(&config).unwrap();
        let asked = store.ready().await.unwrap_err();
        let put = store
            .put_bytes("a", "hello", &Transfer::default())
            .await
            .unwrap_err();
        for error in [asked, put] {
            assert!(format!("{error:?}").starts_with(what), "{error:?}");
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.retry(), Retry::Never);
        }
    };
    let good = config_of(&server, "p");
    let secret = Config {
        secret_key: Some("wrong".to_owned().into()),
        ..good.clone()
    };
    check(secret, "Denied", "secret_key").await;
    let who = Config {
        access_key: Some("nobody".into()),
        ..good.clone()
    };
    check(who, "Denied", "access_key").await;
    let bucket = Config {
        url: "s3://elsewhere".into(),
        ..good.clone()
    };
    check(bucket, "BucketMissing", "`elsewhere` does not exist").await;
    Store::open(&good).unwrap().ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_or_silent_server_is_known_within_the_time_promised() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let absent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let [silent_at, absent_at] = [&silent, &absent].map(|l| l.local_addr().unwrap());
    drop(absent);
    let check = async |address: std::net::SocketAddr| {
        let config = Config {
            url: "s3://bucket".into(),
            endpoint: Some(format!("http://{address}")),
            access_key: Some("a".into()),
            secret_key: Some("b".to_owned().into()),
            allow_http: true,
            ..Config::default()
        };
        let store = Store::open(&config).unwrap();
        let put = async { store.put_bytes("a", "hello", &Transfer::default()).await };
        let error = tokio::time::timeout(KNOWN_WITHIN, put)
            .await
            .unwrap()
            .unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
        assert_eq!(error.retry(), Retry::Later);
    };
    tokio::join!(check(silent_at), check(absent_at));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_call_does_not_wait_for_a_silent_server() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config {
        url: "s3://bucket".into(),
        endpoint: Some(format!("http://{}", silent.local_addr().unwrap())),
        access_key: Some("a".into()),
        secret_key: Some("b".to_owned().into()),
        allow_http: true,
        ..Config::default()
    };
    let store = Store::open(&config).unwrap();
    let cancel = CancellationToken::new();
    let transfer = Transfer::new(cancel.clone());
    let (result, _) = tokio::join!(store.put_bytes("a", "hello", &transfer), async {
        silent.accept().await.unwrap();
        cancel.cancel();
    });
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
}

#[tokio::test]
async fn what_a_killed_writer_left_goes_with_its_prefix() {
    let backend = Backend::files();
    backend
        .store
        .put_bytes("a", "hello", &Transfer::default())
        .await
        .unwrap();
    let staged = backend.file("objects/a/parts/staged#1", b"hel");
    assert_eq!(
        backend.store.usage("a").await.unwrap().objects,
        2,
        "it is no object"
    );
    backend.store.delete_prefix("a").await.unwrap();
    assert!(!staged.exists());
    backend
        .store
        .put_bytes("a", "hello", &Transfer::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_never_sealed() {
    let backend = Backend::files();
    let path = backend.file("in", &content(1, 40 * MIB));
    let transfer = slow(&CancellationToken::new());
    let (stored, ()) = tokio::join!(backend.store.put_file("a", &path, &transfer), async {
        // The first parts are on their way, the last ones are not read yet.
        until(|| transfer.progress() > 0).await;
        std::fs::write(&path, content(2, 40 * MIB)).unwrap();
    });
    assert!(matches!(stored, Err(Error::Changed { .. })), "{stored:?}");
    assert!(
        !backend
            .keys()
            .await
            .iter()
            .any(|key| key.ends_with(".manifest"))
    );
}

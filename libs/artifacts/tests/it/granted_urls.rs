//! Storage through URLs that somebody else signs: what each is good for, what happens when one has
//! expired, was never right, or nobody signs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use artifacts::config::Urls;
use artifacts::{Config, Error, Link, Retry, SignError, Signed, Signer, Store, Transfer};
use domain::grant::{Access, Reason, Refusal, SignedUrl, Wanted};
use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::StatusCode;
use testkit::proxy::Proxy;
use testkit::s3::S3Server;
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, MIB, config_of, content, link, until};
use crate::clerk::Clerk;

/// Longest time until somebody knows that nobody signs: what `store` promises.
const KNOWN_WITHIN: Duration = Duration::from_secs(22);

/// A server of the test's own, and a clerk who signs for it.
struct Office {
    _server: S3Server,
    owner: Store,
    clerk: Clerk,
}

impl Office {
    async fn open(urls: Urls) -> Self {
        let server = tokio::task::spawn_blocking(S3Server::start).await.unwrap();
        let config = Config {
            urls,
            ..config_of(&server, "some/prefix")
        };
        let owner = Store::open(&config).unwrap();
        let clerk = Clerk::of(&owner);
        Self {
            _server: server,
            owner,
            clerk,
        }
    }

    fn store(self) -> (Store, Arc<Clerk>, S3Server) {
        let clerk = Arc::new(self.clerk);
        (Store::granted(&link(), clerk.clone()), clerk, self._server)
    }
}

fn lasting(valid_seconds: u32) -> Urls {
    Urls {
        valid_seconds,
        ..Urls::default()
    }
}

/// A link on which five parts take several seconds.
fn crawling() -> Transfer {
    let rate = std::num::NonZeroU64::new(12_000_000);
    Transfer::new(CancellationToken::new()).with_bandwidth(rate)
}

/// Five parts there and back, slower than a URL lives: each byte crosses the link once.
async fn survives(store: &Store) {
    let content = content(1, 40 * MIB + 1);
    let (up, down) = (crawling(), crawling());
    let artifact = store.put_bytes("a", content.clone(), &up).await.unwrap();
    assert_eq!(up.moved(), artifact.bytes);
    let back = store.get_bytes(&artifact, u64::MAX, &down).await.unwrap();
    assert!(back == content);
    assert_eq!(down.moved(), artifact.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urls_are_renewed_before_they_expire_in_a_transfer() {
    let (store, clerk, _server) = Office::open(lasting(1)).await.store();
    survives(&store).await;
    let questions = clerk.questions();
    assert!(questions.len() >= 4, "{questions:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urls_that_have_expired_are_asked_for_again() {
    let mut office = Office::open(lasting(1)).await;
    office.clerk.claims = Some(Duration::from_secs(3600));
    let (store, clerk, _server) = office.store();
    survives(&store).await;
    // Believed to be good for an hour, they would have been asked for three times.
    let questions = clerk.questions();
    assert!(questions.len() > 3, "{questions:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_urls_of_a_transfer_are_asked_for_together() {
    let (store, clerk, _server) = Office::open(lasting(300)).await.store();
    let content = content(1, 40 * MIB + 1);
    let transfer = Transfer::default();
    let artifact = store.put_bytes("a", content, &transfer).await.unwrap();
    // Two manifests' and six parts' worth: is it there, then send it.
    assert_eq!(clerk.questions(), [14]);
    store
        .get_bytes(&artifact, u64::MAX, &transfer)
        .await
        .unwrap();
    assert_eq!(clerk.questions(), [14, 1, 6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_storage_does_not_take_is_asked_for_once_more_and_then_named() {
    let office = Office::open(lasting(300)).await;
    office.clerk.forged.store(1, Ordering::Relaxed);
    let (store, clerk, _server) = office.store();
    let transfer = Transfer::default();
    store.put_bytes("a", "hello", &transfer).await.unwrap();
    assert!(clerk.questions().len() > 1);

    clerk.forged.store(usize::MAX, Ordering::Relaxed);
    let error = store.put_bytes("b", "hello", &transfer).await.unwrap_err();
    assert!(matches!(error, Error::UrlRefused { .. }), "{error:?}");
    assert_eq!(error.retry(), Retry::Never);
    let said = format!("{error:?} {error}");
    assert!(!said.contains("X-Amz-Signature="), "a URL is told: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_signs_may_be_away_for_a_while_and_is_missed_in_the_time_promised() {
    let office = Office::open(lasting(300)).await;
    office.clerk.away.store(3, Ordering::Relaxed);
    let (store, clerk, _server) = office.store();
    let transfer = Transfer::default();
    store.put_bytes("a", "hello", &transfer).await.unwrap();
    assert!(clerk.questions().len() > 3);

    clerk.away.store(usize::MAX, Ordering::Relaxed);
    let put = store.put_bytes("b", "hello", &transfer);
    let error = tokio::time::timeout(KNOWN_WITHIN, put)
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(error.retry(), Retry::Later);
    assert!(error.to_string().contains("signs URLs"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_goes_on_where_it_broke() {
    let server = tokio::task::spawn_blocking(S3Server::start).await.unwrap();
    let address = server
        .endpoint
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    let proxy = Proxy::start(address).await.unwrap();
    // Workers are not where the api is: they reach the same storage under another name.
    let urls = Urls {
        endpoint: Some(format!("http://{}", proxy.address())),
        ..Urls::default()
    };
    let config = Config {
        urls,
        ..config_of(&server, "p")
    };
    let owner = Store::open(&config).unwrap();
    let store = Store::granted(&link(), Arc::new(Clerk::of(&owner)));
    let content = content(1, 7 * MIB);
    let artifact = store
        .put_bytes("a", content.clone(), &Transfer::default())
        .await
        .unwrap();
    assert!(
        proxy.passed_bytes() > 7 * MIB as u64,
        "the other name is not used"
    );

    let down = crawling();
    let passed = proxy.passed_bytes();
    proxy.cut_after(3 * MIB as u64);
    let back = store.get_bytes(&artifact, u64::MAX, &down).await.unwrap();
    assert!(back == content);
    assert_eq!(down.moved(), artifact.bytes, "a byte was handed on twice");
    let passed = proxy.passed_bytes() - passed;
    assert!(passed < 11 * MIB as u64, "{passed} bytes: it began anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_is_good_for_one_thing_with_one_object_and_never_replaces_it() {
    let office = Office::open(lasting(300)).await;
    let sign = async |access, key: &str| {
        let key = key.to_owned();
        let signed = office.owner.sign(&[Wanted { access, key }]).await.unwrap();
        signed.urls[0].reveal().to_owned()
    };
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let put = async |url: &str, once: bool| {
        let mut request = http.put(url).body("hello");
        if once {
            request = request.header("if-none-match", "*");
        }
        request.send().await.unwrap().status()
    };
    let url = sign(Access::Put, "jobs/a/x").await;
    assert_eq!(
        put(&url, false).await,
        StatusCode::FORBIDDEN,
        "it could replace"
    );
    assert_eq!(put(&url, true).await, StatusCode::OK);
    assert_eq!(put(&url, true).await, StatusCode::PRECONDITION_FAILED);
    assert_eq!(put(&url, false).await, StatusCode::FORBIDDEN, "it replaces");
    let elsewhere = url.replace("jobs/a/x", "jobs/b/x");
    assert_eq!(put(&elsewhere, true).await, StatusCode::FORBIDDEN);
    assert_eq!(
        http.get(&url).send().await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        http.delete(&url).send().await.unwrap().status(),
        StatusCode::FORBIDDEN
    );

    let url = sign(Access::Get, "jobs/a/x").await;
    let got = http.get(&url).send().await.unwrap();
    assert_eq!(got.text().await.unwrap(), "hello");
    assert_eq!(put(&url, true).await, StatusCode::FORBIDDEN);
    let elsewhere = url.replace("jobs/a/x", "jobs/b/x");
    assert_eq!(
        http.get(&elsewhere).send().await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        http.delete(&url).send().await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_url_allows_is_refused_by_name() {
    let backend = Backend::granted("what_no_url_allows");
    let transfer = Transfer::default();
    let artifact = backend
        .store
        .put_bytes("a", "hello", &transfer)
        .await
        .unwrap();
    let refused = |error: Error| {
        assert!(matches!(error, Error::NotGranted { .. }), "{error:?}");
        assert_eq!(error.retry(), Retry::Never);
    };
    refused(backend.store.usage("a").await.unwrap_err());
    refused(backend.store.delete_prefix("a").await.unwrap_err());
    refused(backend.store.list_models().await.unwrap_err());
    backend.store.ready().await.unwrap();
    backend
        .store
        .get_bytes(&artifact, 5, &transfer)
        .await
        .unwrap();
    let nobody = backend.store.sign(&[]).await.unwrap_err();
    assert!(matches!(nobody, Error::NoUrls), "{nobody:?}");
    let files = Backend::files().store.sign(&[]).await.unwrap_err();
    assert!(matches!(files, Error::NoUrls), "{files:?}");
}

/// Refuses everything.
#[derive(Debug)]
struct Stern;

impl Signer for Stern {
    fn sign(&self, wanted: Vec<Wanted>) -> BoxFuture<'_, Result<Signed, SignError>> {
        let refusal = Refusal::of(&wanted[0].key, Reason::OtherJob);
        async move { Err(SignError::Refused(refusal)) }.boxed()
    }
}

#[tokio::test]
async fn a_refusal_is_told_at_once_with_its_reason() {
    let store = Store::granted(&link(), Arc::new(Stern));
    let transfer = Transfer::default();
    let put = store.put_bytes("a", "hello", &transfer);
    let error = tokio::time::timeout(Duration::from_secs(2), put)
        .await
        .unwrap()
        .unwrap_err();
    let Error::NotGranted { refusal, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(refusal.reason, Reason::OtherJob);
    assert!(error.to_string().contains("another job"), "{error}");
    assert_eq!(error.retry(), Retry::Never);
}

/// Signs, but not for storage.
#[derive(Debug)]
struct Careless(&'static str);

impl Signer for Careless {
    fn sign(&self, wanted: Vec<Wanted>) -> BoxFuture<'_, Result<Signed, SignError>> {
        let urls = wanted
            .iter()
            .map(|_| SignedUrl::from(self.0.to_owned()))
            .collect();
        let valid = Duration::from_secs(60);
        async move { Ok(Signed { urls, valid }) }.boxed()
    }
}

#[tokio::test]
async fn a_site_that_did_not_consent_sends_nothing_in_the_clear() {
    let link = Link::open(&Config::default()).unwrap();
    let store = Store::granted(&link, Arc::new(Careless("http://127.0.0.1:1/x")));
    let error = store.exists("a").await.unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
    assert!(error.to_string().contains("allow_http"), "{error}");
    for nonsense in ["", "no url"] {
        let store = Store::granted(&link, Arc::new(Careless(nonsense)));
        let error = store.exists("a").await.unwrap_err();
        assert_eq!(error.retry(), Retry::Never, "{error:?}");
    }
}

#[test]
fn settings_that_need_credentials_are_refused_without_a_url() {
    let with = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        Link::open(&config).unwrap_err().to_string()
    };
    for error in [
        with(|config| config.access_key = Some("a".into())),
        with(|config| config.endpoint = Some("https://h".into())),
        with(|config| config.urls.valid_seconds = 9),
    ] {
        assert!(error.contains("only ca_file and allow_http"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_transfer_does_not_wait_for_whoever_signs() {
    /// Never answers.
    #[derive(Debug)]
    struct Silent(tokio::sync::watch::Sender<bool>);
    impl Signer for Silent {
        fn sign(&self, _: Vec<Wanted>) -> BoxFuture<'_, Result<Signed, SignError>> {
            self.0.send_replace(true);
            std::future::pending().boxed()
        }
    }
    let (asked, seen) = tokio::sync::watch::channel(false);
    let store = Store::granted(&link(), Arc::new(Silent(asked)));
    let cancel = CancellationToken::new();
    let transfer = Transfer::new(cancel.clone());
    let (result, ()) = tokio::join!(store.put_bytes("a", "hello", &transfer), async {
        until(|| *seen.borrow()).await;
        cancel.cancel();
    });
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
}

#[test]
fn a_validity_that_s3_would_refuse_is_refused_at_the_start() {
    for seconds in [0, 604_801] {
        let config = Config {
            url: "s3://b".into(),
            access_key: Some("a".into()),
            secret_key: Some("s".to_owned().into()),
            urls: lasting(seconds),
            ..Config::default()
        };
        let error = Store::open(&config).unwrap_err().to_string();
        assert!(error.contains("valid_seconds"), "{error}");
    }
}

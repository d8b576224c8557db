//! Models of the Hub, from a stand-in that speaks its protocol and breaks where a test says.

use std::path::Path;
use std::time::Duration;

use artifacts::hub::{self, Limits};
use artifacts::{CachedModel, Error, Hub, ModelCache, Retry, Transfer};
use domain::hub::Model;
use tempfile::TempDir;
use testkit::hub::Fault;
use tokio_util::sync::CancellationToken;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const LATER: &str = "fedcba9876543210fedcba9876543210fedcba98";
const WEIGHTS: &str = "model.safetensors";
const WEIGHT_BYTES: usize = 3 << 20;

struct Site {
    stand_in: testkit::hub::Hub,
    folder: TempDir,
    cache: ModelCache,
    hub: Hub,
}

fn limits() -> Limits {
    Limits {
        pause: Duration::ZERO,
        attempts: 3,
        ..Limits::default()
    }
}

fn weights() -> Vec<u8> {
    (0..WEIGHT_BYTES).map(|i| (i * i % 251) as u8).collect()
}

fn connect(stand_in: &testkit::hub::Hub, token: Option<&str>, limits: Limits) -> Hub {
    let config = hub::Config {
        endpoint: Some(stand_in.url()),
        token: token.map(|token| token.to_owned().into()),
        ca_file: None,
    };
    Hub::open(&config, limits).unwrap()
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there");
        std::fs::create_dir(&there).unwrap();
        std::fs::write(there.join("config.json"), "{\"small\": true}").unwrap();
        std::fs::write(there.join("README.md"), "not fetched").unwrap();
        std::fs::write(there.join(WEIGHTS), weights()).unwrap();
        let stand_in = testkit::hub::Hub::serve("org/name", COMMIT, &there)
            .await
            .unwrap();
        let cache = ModelCache::open(&folder.path().join("cache"), 64 << 20).unwrap();
        let hub = connect(&stand_in, None, limits());
        Self {
            stand_in,
            folder,
            cache,
            hub,
        }
    }

    fn model(&self) -> Model {
        format!("hf://org/name@{COMMIT}").parse().unwrap()
    }

    async fn fetch(&self) -> Result<CachedModel, Error> {
        self.cache
            .fetch_hub(&self.hub, &self.model(), &Transfer::default())
            .await
    }

    /// It fails, leaves nothing that looks complete, and says so.
    async fn refuses(&self, retry: Retry, part: &str) {
        let error = self.fetch().await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.retry(), retry, "{error:?}");
        let complete = |name: &str| name.len() == 64;
        assert!(
            !names(&self.folder.path().join("cache"))
                .iter()
                .any(|name| complete(name))
        );
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn is_whole(model: &CachedModel) {
    assert!(std::fs::read(model.path().join(WEIGHTS)).unwrap() == weights());
    assert_eq!(names(model.path()), ["config.json", WEIGHTS]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_becomes_a_commit_and_the_model_is_fetched_once() {
    let site = Site::new().await;
    let moving: Model = "hf://org/name".parse().unwrap();
    let pinned = site.hub.pin(&moving).await.unwrap();
    assert_eq!(pinned, site.model());
    let transfer = Transfer::default();
    let fetched = site
        .cache
        .fetch_hub(&site.hub, &pinned, &transfer)
        .await
        .unwrap();
    is_whole(&fetched);
    assert_eq!(transfer.moved(), (WEIGHT_BYTES + 15) as u64);
    assert_eq!(transfer.expected(), transfer.moved());
    // What is here is used without a question; and what was pinned stays, whatever the branch does.
    let before = site.stand_in.asked().len();
    site.stand_in.set_revision("main", LATER);
    is_whole(&site.fetch().await.unwrap());
    assert_eq!(site.hub.pin(&pinned).await.unwrap(), pinned);
    assert_eq!(site.stand_in.asked().len(), before);
    assert_eq!(site.hub.pin(&moving).await.unwrap().revision(), LATER);
    let error = site
        .cache
        .fetch_hub(&site.hub, &moving, &transfer)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("names no commit"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_goes_on_where_it_broke() {
    let site = Site::new().await;
    site.stand_in.fail(WEIGHTS, Fault::BreakAfter(1_000_000));
    site.stand_in.fail(WEIGHTS, Fault::Status(503));
    site.stand_in.fail(WEIGHTS, Fault::BreakAfter(1_000_000));
    is_whole(&site.fetch().await.unwrap());
    assert_eq!(
        site.stand_in.fetched(WEIGHTS),
        ["", "bytes=1000000-", "bytes=1000000-", "bytes=2000000-"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_call_keeps_what_an_interrupted_one_left() {
    let site = Site::new().await;
    site.stand_in.fail(WEIGHTS, Fault::BreakAfter(1_500_000));
    for _ in 0..limits().attempts {
        site.stand_in.fail(WEIGHTS, Fault::Status(500));
    }
    site.refuses(Retry::Later, "answers 500").await;
    let transfer = Transfer::default();
    let fetched = site
        .cache
        .fetch_hub(&site.hub, &site.model(), &transfer)
        .await
        .unwrap();
    is_whole(&fetched);
    assert_eq!(transfer.moved(), (WEIGHT_BYTES - 1_500_000) as u64);
    assert_eq!(transfer.progress(), transfer.expected());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_ranges_begins_anew() {
    let site = Site::new().await;
    site.stand_in.fail(WEIGHTS, Fault::BreakAfter(1_000_000));
    site.stand_in.fail(WEIGHTS, Fault::NoRange);
    is_whole(&site.fetch().await.unwrap());
    // And one that has not got the rest any more (416).
    let site = Site::new().await;
    site.stand_in.fail(WEIGHTS, Fault::BreakAfter(1_000_000));
    site.stand_in.fail(WEIGHTS, Fault::Status(416));
    is_whole(&site.fetch().await.unwrap());
    assert_eq!(site.stand_in.fetched(WEIGHTS), ["", "bytes=1000000-", ""]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_with_another_digest_never_gets_its_name() {
    let site = Site::new().await;
    site.stand_in.fail(WEIGHTS, Fault::Spoiled);
    site.refuses(Retry::Never, "is corrupt").await;
    site.stand_in.fail("config.json", Fault::Spoiled);
    // The small file was verified by git's digest and is there already.
    is_whole(&site.fetch().await.unwrap());

    let site = Site::new().await;
    site.stand_in.fail("config.json", Fault::Spoiled);
    site.refuses(Retry::Never, "config.json of hf://org/name@")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_that_is_wrong_is_fetched_again() {
    let site = Site::new().await;
    site.stand_in.fail(WEIGHTS, Fault::BreakAfter(1_000_000));
    for _ in 0..limits().attempts {
        site.stand_in.fail(WEIGHTS, Fault::Status(500));
    }
    site.refuses(Retry::Later, "500").await;
    let cache = site.folder.path().join("cache");
    let under_way = names(&cache)
        .into_iter()
        .find(|name| name.ends_with(".partial"))
        .unwrap();
    let left = cache.join(under_way).join(format!("{WEIGHTS}.partial"));
    let mut bytes = std::fs::read(&left).unwrap();
    bytes[7] ^= 1;
    std::fs::write(&left, bytes).unwrap();
    is_whole(&site.fetch().await.unwrap());
    let ranges = site.stand_in.fetched(WEIGHTS);
    assert_eq!(
        ranges[ranges.len() - 2..],
        ["bytes=1000000-".to_owned(), String::new()]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_short_or_of_another_place_is_refused() {
    let site = Site::new().await;
    for _ in 0..limits().attempts {
        site.stand_in.fail(WEIGHTS, Fault::Short(0));
    }
    site.refuses(Retry::Later, "ended after 0 of 3145728 bytes")
        .await;
    site.stand_in.fail(WEIGHTS, Fault::BreakAfter(1_000_000));
    site.stand_in.fail(WEIGHTS, Fault::OtherRange);
    site.refuses(Retry::Never, "follows byte 1000000 of 3145728")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_given_up_and_a_cancelled_fetch_ends_at_once() {
    let site = Site::new().await;
    let silence = Duration::from_millis(500);
    let hub = connect(
        &site.stand_in,
        None,
        Limits {
            silence,
            ..limits()
        },
    );
    site.stand_in.fail(WEIGHTS, Fault::Silent);
    let fetched = site
        .cache
        .fetch_hub(&hub, &site.model(), &Transfer::default())
        .await;
    is_whole(&fetched.unwrap());

    let site = Site::new().await;
    site.stand_in.fail(WEIGHTS, Fault::Silent);
    let whole = Duration::from_millis(300);
    let hub = connect(&site.stand_in, None, Limits { whole, ..limits() });
    let late = site
        .cache
        .fetch_hub(&hub, &site.model(), &Transfer::default())
        .await;
    assert!(late.unwrap_err().to_string().contains("was not here after"));

    let cancel = CancellationToken::new();
    let transfer = Transfer::new(cancel.clone());
    cancel.cancel();
    let stopped = site
        .cache
        .fetch_hub(&site.hub, &site.model(), &transfer)
        .await;
    assert!(matches!(stopped, Err(Error::Cancelled)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_goes_to_the_hub_and_not_to_the_storage_behind_it() {
    let mut site = Site::new().await;
    site.stand_in.ask_for("hf_right");
    site.refuses(Retry::Never, "set HF_TOKEN").await;
    site.hub = connect(&site.stand_in, Some("hf_wrong"), limits());
    site.refuses(
        Retry::Never,
        "(401): Invalid username or password.: check the name, and whether HF_TOKEN",
    )
    .await;
    site.hub = connect(&site.stand_in, Some("hf_right"), limits());
    is_whole(&site.fetch().await.unwrap());
    let shown = site
        .stand_in
        .asked()
        .into_iter()
        .filter(|asked| asked.authorization.is_some());
    let shown: Vec<bool> = shown.map(|asked| asked.storage).collect();
    assert!(shown.len() > 3 && !shown.contains(&true), "{shown:?}");
    assert!(!format!("{:?}", site.hub).contains("hf_right"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_or_not_allowed_is_said_with_what_to_do() {
    let site = Site::new().await;
    for (name, part) in [
        (
            "hf://org/other",
            "hf://org/other@main is not there (404): Repository not found: check owner",
        ),
        ("hf://org/name@v9", "(404): Invalid rev id"),
    ] {
        let error = site.hub.pin(&name.parse().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    site.stand_in.fail(WEIGHTS, Fault::Status(403));
    site.refuses(Retry::Never, "may not be read with no token (403)")
        .await;
    site.stand_in.fail(WEIGHTS, Fault::Status(404));
    site.refuses(Retry::Never, "(404): as the test asked for")
        .await;
    site.stand_in.fail(WEIGHTS, Fault::Status(418));
    site.refuses(Retry::Never, "refuses it (418)").await;
    let one: Model = format!("hf://org/name@{COMMIT}/q4.gguf").parse().unwrap();
    let error = site
        .cache
        .fetch_hub(&site.hub, &one, &Transfer::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("it has no q4.gguf"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_beyond_the_cache_is_refused_before_a_byte_of_it_moves() {
    let site = Site::new().await;
    let small = ModelCache::open(&site.folder.path().join("small"), 1 << 20).unwrap();
    let error = small
        .fetch_hub(&site.hub, &site.model(), &Transfer::default())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                limit: 1_048_576,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(site.stand_in.fetched(WEIGHTS).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_that_want_the_same_model_move_it_once() {
    let site = Site::new().await;
    // Each opens the folder as a process of its own would: what they share is the folder.
    let open = || ModelCache::open(&site.folder.path().join("cache"), 64 << 20).unwrap();
    let caches: Vec<ModelCache> = (0..4).map(|_| open()).collect();
    let (model, transfer) = (site.model(), Transfer::default());
    let all = caches
        .iter()
        .map(|cache| cache.fetch_hub(&site.hub, &model, &transfer));
    for fetched in futures::future::join_all(all).await {
        is_whole(&fetched.unwrap());
    }
    assert_eq!(transfer.moved(), (WEIGHT_BYTES + 15) as u64);
    assert_eq!(site.stand_in.fetched(WEIGHTS), [""]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_gguf_file_of_several_comes_as_a_file() {
    let site = Site::new().await;
    site.stand_in.set_file("a.gguf", b"GGUF a".to_vec());
    site.stand_in.set_file("b.gguf", b"GGUF b".to_vec());
    let one: Model = format!("hf://org/name@{COMMIT}/b.gguf").parse().unwrap();
    let fetched = site
        .cache
        .fetch_hub(&site.hub, &one, &Transfer::default())
        .await
        .unwrap();
    assert_eq!(fetched.path().file_name().unwrap(), "b.gguf");
    assert_eq!(std::fs::read(fetched.path()).unwrap(), b"GGUF b");
}

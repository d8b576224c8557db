//! Object storage on S3: killed, cut off for long, its answers lost; a cache that is bounded.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use chassis::failpoint::Failpoint;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::proxy::Proxy;
use testkit::s3::S3Server;
use testkit::wait;
use tests::job::{job, scored, with};
use tests::replay::Replay;
use tests::{Api, Fleet, Setup, Site, bound, full, procs};

const END: Duration = Duration::from_secs(40);
/// Within this time the API says what is awaited.
const VISIBLE: Duration = Duration::from_secs(10);
/// What a round on S3 may take beside its slowest site's compute, in seconds.
const OVERHEAD: f64 = 3.0;

/// A storage table with the server's credentials.
fn credentials(server: &S3Server, endpoint: &str) -> String {
    let bucket = &server.bucket;
    let (access, secret) = (&server.access_key, &server.secret_key);
    format!(
        "url = \"s3://{bucket}\"\nendpoint = \"{endpoint}\"\nallow_http = true\naccess_key = \"{access}\"\nsecret_key = \"{secret}\"\n"
    )
}

/// A fleet of so many sites whose storage is the server, at this address.
fn on_s3(server: &S3Server, endpoint: &str, folder: &Path, sites: u8) -> Setup {
    let file = folder.join("s3.toml");
    std::fs::write(&file, credentials(server, endpoint)).unwrap();
    Setup {
        arguments: vec!["--storage".to_owned(), file.display().to_string()],
        ..Setup::sites(sites)
    }
}

/// Attempts that sites have made again, as the API tells Prometheus.
async fn tried_again(api: &Api) -> f64 {
    let answer = api.bytes(Method::GET, "/metrics", None).await;
    let text = answer.map(|(_, text)| String::from_utf8(text).unwrap());
    let text = text.unwrap_or_default();
    let of_sites = text
        .lines()
        .filter(|line| line.starts_with("fedpipe_worker_retries{"));
    let value = |line: &str| {
        line.rsplit(' ')
            .next()
            .and_then(|value| value.parse::<f64>().ok())
    };
    of_sites.map(|line| value(line).unwrap()).sum()
}

#[tokio::test]
async fn s3_that_is_killed_during_an_upload_costs_time_and_nothing_else() {
    let mut server = S3Server::start();
    let folder = tempfile::tempdir().unwrap();
    let setup = on_s3(&server, &server.endpoint, folder.path(), 2);
    let replay = Replay::prepare(&setup, async |fleet| scored(&fleet.model())).await;

    let disturbed = replay.hold(Failpoint::WorkerTrainWhileUploading).await;
    server.kill();
    replay.fleet.all_go_on();
    server.restart();
    replay.end(&disturbed).await.unwrap();

    let undisturbed = replay.begin().await;
    replay.end(&undisturbed).await.unwrap();
    let rounds = replay.fleet.api().rounds(&undisturbed.id).await;
    let overhead = bound::least_overhead(&rounds[1..], setup.idle);
    eprintln!("overhead on S3: {overhead:.2} s of at most {OVERHEAD} s");
    assert!(overhead <= OVERHEAD, "{overhead} s");
}

#[tokio::test]
async fn storage_that_is_away_for_many_idle_periods_during_an_upload_costs_time_and_nothing_else() {
    let server = S3Server::start();
    let address: SocketAddr = server.endpoint.replace("http://", "").parse().unwrap();
    let network = Proxy::start(address).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let endpoint = format!("http://{}", network.address());
    let setup = Setup {
        idle: Duration::from_secs(1),
        ..on_s3(&server, &endpoint, folder.path(), 2)
    };
    let replay = Replay::prepare(&setup, async |fleet| job(&fleet.model())).await;
    let Replay { fleet, .. } = &replay;

    // Longer than the storage client's own patience, and than three idle periods, after which a site
    // is given up that makes no progress of its own fault.
    let away = Duration::from_secs(if full() { 45 } else { 13 });
    let disturbed = replay.hold(Failpoint::WorkerTrainWhileUploading).await;
    network.cut();
    fleet.all_go_on();
    let api = fleet.api();
    let said = |job: &Value| {
        let waiting = job["waiting_for"].as_array().unwrap();
        let of_storage = |entry: &Value| entry["why"].as_str().unwrap().contains("object storage");
        waiting.iter().any(of_storage)
    };
    api.until(
        &disturbed.id,
        "the API says that storage is away",
        VISIBLE,
        said,
    )
    .await;
    wait::never("it ends", away, api.ended(&disturbed.id, 2 * away)).await;
    network.open();
    replay.end(&disturbed).await.unwrap();
    let events = api.events(&disturbed.id).await;
    assert!(
        events.iter().all(|event| event.name != "lost"),
        "{events:?}"
    );
    wait::until("the API says who tried again", VISIBLE, async || {
        tried_again(api).await > 0.0
    })
    .await;

    // What was stored is stored, although nobody was told.
    let disturbed = replay.hold(Failpoint::WorkerTrainWhileUploading).await;
    network.lose_answers();
    fleet.all_go_on();
    api.until(
        &disturbed.id,
        "the API says that storage is away",
        VISIBLE,
        said,
    )
    .await;
    network.open();
    replay.end(&disturbed).await.unwrap();
}

#[tokio::test]
async fn a_site_whose_own_link_to_storage_is_cut_is_named_and_costs_one_wait_and_no_more() {
    let server = S3Server::start();
    let address: SocketAddr = server.endpoint.replace("http://", "").parse().unwrap();
    let link = Proxy::start(address).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup {
        idle: Duration::from_secs(1),
        ..on_s3(&server, &server.endpoint, folder.path(), 2)
    };
    let replay = Replay::prepare(&setup, async |fleet| {
        with(
            job(&fleet.model()),
            "rounds",
            json!({"count": 5, "quorum": 1}),
        )
    })
    .await;
    let Replay { fleet, .. } = &replay;
    let endpoint = format!("http://{}", link.address());
    fleet
        .own_storage("worker-b", &credentials(&server, &endpoint))
        .await;
    let point = Failpoint::WorkerTrainWhileUploading;
    let disturbed = replay.hold_worker("worker-b", point).await;
    link.cut();
    fleet.all_go_on();
    let api = fleet.api();
    let named = |job: &Value| {
        let sites = job["sites"].as_array().unwrap();
        let lost = |site: &Value| site["worker"] == "b" && site["lost"]["trouble"] == "no_progress";
        sites.iter().any(lost)
    };
    api.until(&disturbed.id, "b is named", VISIBLE, named).await;
    api.succeeded(&disturbed.id, END).await;
    let seconds: Vec<f64> = api.rounds(&disturbed.id).await[1..]
        .iter()
        .map(|round| round["seconds"].as_f64().unwrap())
        .collect();
    eprintln!("rounds with a site that is stuck: {seconds:.1?} s");
    // The round whose update was held waits for the three idle intervals after which a site is given up, and no other.
    let waited = seconds.iter().filter(|round| **round >= 3.0).count();
    assert!(
        waited <= 1 && seconds.iter().all(|round| *round < 10.0),
        "{seconds:?}"
    );

    link.open();
    let again = replay.begin().await;
    replay.end(&again).await.unwrap();
}

#[tokio::test]
async fn a_site_without_room_for_the_model_says_so_and_the_others_go_on() {
    let mut setup = Setup::sites(2);
    setup.sites[1] = Site::new("b").line("cache_bytes = 1000");
    let fleet = Fleet::start(&setup).await;
    let digest = fleet.push_model().await;
    let by_digest = with(job(&fleet.model()), "model", json!({"digest": digest}));
    let by_digest = with(by_digest, "rounds", json!({"count": 1, "quorum": 1}));
    let id = fleet.api().submit(&by_digest).await;
    fleet.api().succeeded(&id, END).await;
    let events = fleet.api().events(&id).await;
    let lost = events.iter().find(|event| event.name == "lost").unwrap();
    assert_eq!(lost.detail["site"]["worker"], "b");
    eprintln!("{}", lost.detail["site"]);
    let trouble = lost.detail["site"]["trouble"].as_str().unwrap();
    assert!(
        ["disk_full", "model_unusable"].contains(&trouble),
        "{lost:?}"
    );
    assert!(procs::is_alive(fleet.pid("worker-b")) && fleet.deaths("worker-b") == 0);
}

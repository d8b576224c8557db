//! Object storage on S3, away for a while; a disk that is full.

use std::time::Duration;

use chassis::failpoint::Failpoint;
use serde_json::json;
use testkit::s3::S3Server;
use tests::job::{job, scored, with};
use tests::points::Fate;
use tests::replay::Replay;
use tests::{Fleet, Setup, Site, procs};

const END: Duration = Duration::from_secs(40);

#[tokio::test]
async fn s3_that_is_killed_during_an_upload_costs_time_and_nothing_else() {
    let mut server = S3Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s3.toml");
    let (endpoint, bucket) = (&server.endpoint, &server.bucket);
    let (access, secret) = (&server.access_key, &server.secret_key);
    let text = format!(
        "url = \"s3://{bucket}\"\nendpoint = \"{endpoint}\"\nallow_http = true\naccess_key = \"{access}\"\nsecret_key = \"{secret}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut setup = Setup::sites(2);
    setup.arguments = vec!["--storage".to_owned(), file.display().to_string()];
    let replay = Replay::prepare(&setup, async |fleet| scored(&fleet.model())).await;

    let point = Failpoint::WorkerTrainWhileUploading;
    replay.fleet.points().arm(point, Fate::Halted);
    let disturbed = replay.begin().await;
    replay
        .fleet
        .points()
        .reached(point, Fate::Halted, END)
        .await;
    server.kill();
    replay.fleet.all_go_on();
    server.restart();
    replay.end(&disturbed).await.unwrap();
    let report = replay.fleet.api().report(&disturbed.id).await;
    for round in &report["rounds"].as_array().unwrap()[1..] {
        eprintln!("overhead on S3: {} s", round["overhead_seconds"]);
    }
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

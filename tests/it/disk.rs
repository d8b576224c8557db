//! Disks that are really full: a typed cause that names the site or the service, nothing is lost, and
//! once there is room the next job runs.

use std::time::Duration;

use chassis::failpoint::Failpoint;
use serde_json::{Value, json};
use tests::disk::{self, Small};
use tests::job::{job, with};
use tests::points::Fate;
use tests::replay::Replay;
use tests::{Fleet, Setup, procs};

const END: Duration = Duration::from_secs(40);
/// Within this time the API says who and why.
const VISIBLE: Duration = Duration::from_secs(10);

fn setup(folder: &'static str, kib: u32) -> Setup {
    Setup {
        disks: vec![Small { folder, kib }],
        ..Setup::sites(2)
    }
}

async fn runs_normally(fleet: &Fleet, job: &Value) {
    let id = fleet.api().submit(job).await;
    fleet.api().succeeded(&id, END).await;
}

/// The job has failed, and this site's disk is why.
fn blames(job: &Value, site: &str) {
    assert_eq!(job["phase"], "failed", "{job:#}");
    assert_eq!(job["cause"]["kind"], "quorum_lost", "{job:#}");
    let sites = job["cause"]["sites"].as_array().unwrap();
    let named = sites.iter().find(|entry| entry["worker"] == site);
    let named = named.unwrap_or_else(|| panic!("{site} is not named: {job:#}"));
    assert_eq!(named["trouble"], "disk_full", "{job:#}");
    let detail = named["detail"].as_str().unwrap().to_lowercase();
    assert!(detail.contains("no space left"), "{job:#}");
}

/// Whether the API says that the aggregator waits for room.
fn wants_room(job: &Value) -> bool {
    let waiting = job["waiting_for"].as_array().unwrap();
    waiting.iter().any(|entry| {
        let why = entry["why"].as_str().unwrap().to_lowercase();
        entry["worker"].is_null() && why.contains("aggregator") && why.contains("no space left")
    })
}

#[tokio::test]
async fn a_site_whose_disk_is_too_full_for_the_model_is_named_and_takes_it_up_when_there_is_room() {
    if !disk::available() {
        return;
    }
    let fleet = Fleet::start(&setup("workers/b/models", 2048)).await;
    let digest = fleet.push_model().await;
    let by_digest = with(job(&fleet.model()), "model", json!({"digest": digest}));
    let disk = fleet.disk("workers/b/models");
    disk.fill(32);
    let id = fleet.api().submit(&by_digest).await;
    blames(&fleet.api().ended(&id, VISIBLE).await, "b");

    disk.make_room();
    runs_normally(&fleet, &by_digest).await;
    assert_eq!(fleet.deaths("worker-b"), 0);
}

#[tokio::test]
async fn a_site_whose_disk_fills_while_it_trains_is_named_and_the_others_go_on() {
    if !disk::available() {
        return;
    }
    let fleet = Fleet::start(&setup("workers/b", 4096)).await;
    let both = job(&fleet.model());
    let (disk, hold) = (
        fleet.disk("workers/b"),
        Failpoint::WorkerTrainAfterFirstStep,
    );
    let only_b = with(
        both.clone(),
        "data",
        json!({"dataset": "mail", "sites": ["b"]}),
    );
    fleet.points().arm(hold, Fate::Halted);
    let id = fleet.api().submit(&only_b).await;
    fleet.points().reached(hold, Fate::Halted, END).await;
    disk.fill(0);
    fleet.all_go_on();
    blames(&fleet.api().ended(&id, VISIBLE).await, "b");

    // It is full still: one site is enough for this one, which goes on without b.
    let one = with(both.clone(), "rounds", json!({"count": 2, "quorum": 1}));
    let id = fleet.api().submit(&one).await;
    fleet.api().succeeded(&id, END).await;
    let events = fleet.api().events(&id).await;
    let lost = events.iter().find(|event| event.name == "lost").unwrap();
    assert_eq!(lost.detail["site"]["trouble"], "disk_full", "{lost:?}");

    disk.make_room();
    runs_normally(&fleet, &both).await;
    assert!(procs::is_alive(fleet.pid("worker-b")));
}

#[tokio::test]
async fn an_aggregator_whose_spool_is_full_says_so_and_goes_on_when_there_is_room() {
    if !disk::available() {
        return;
    }
    let replay = Replay::prepare(
        &setup("aggregator", 8192),
        async |fleet| job(&fleet.model()),
    )
    .await;
    let Replay { fleet, .. } = &replay;
    let (api, disk) = (fleet.api(), fleet.disk("aggregator"));
    let disturbed = replay.hold(Failpoint::WorkerTrainBeforeUpload).await;
    disk.fill(0);
    fleet.all_go_on();
    api.until(&disturbed.id, "the API says why", VISIBLE, wants_room)
        .await;
    disk.make_room();
    replay.end(&disturbed).await.unwrap();

    // Nobody makes room: the job ends by its deadline, and says what it waited for.
    disk.fill(0);
    let hurried = with(replay.job.clone(), "deadline_seconds", json!(25));
    let id = api.submit(&hurried).await;
    let ended = api.ended(&id, END).await;
    assert_eq!(ended["cause"]["kind"], "deadline_passed", "{ended:#}");
    let message = ended["cause"]["message"].as_str().unwrap().to_lowercase();
    assert!(message.contains("no space left"), "{message}");
    disk.make_room();
    let again = replay.begin().await;
    replay.end(&again).await.unwrap();
    assert_eq!(fleet.deaths("aggregator"), 0);
}

#[tokio::test]
async fn full_storage_is_named_by_the_site_that_sends_and_waited_for_by_the_one_that_merges() {
    if !disk::available() {
        return;
    }
    let replay = Replay::prepare(&setup("objects", 16 << 10), async |fleet| {
        job(&fleet.model())
    })
    .await;
    let Replay { fleet, .. } = &replay;
    let (api, disk) = (fleet.api(), fleet.disk("objects"));

    // The merged adapter finds no room.
    let disturbed = replay.hold(Failpoint::AggregatorCloseAfterDecision).await;
    disk.fill(0);
    fleet.all_go_on();
    api.until(&disturbed.id, "the API says why", VISIBLE, wants_room)
        .await;
    disk.make_room();
    replay.end(&disturbed).await.unwrap();

    // An update finds no room.
    let point = Failpoint::WorkerTrainBeforeUpload;
    let disturbed = replay.hold_worker("worker-b", point).await;
    disk.fill(0);
    fleet.go_on("worker-b");
    blames(&api.ended(&disturbed.id, VISIBLE).await, "b");
    fleet.all_go_on();
    disk.make_room();
    let again = replay.begin().await;
    replay.end(&again).await.unwrap();
    for name in ["aggregator", "worker-a", "worker-b"] {
        assert_eq!(fleet.deaths(name), 0, "{name}");
    }
}

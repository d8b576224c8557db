//! What is kept of a job, for how long, and how it goes away.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use chassis::failpoint::Failpoint;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::wait;
use tests::job::{job, scored, with};
use tests::points::Fate;
use tests::replay::Replay;
use tests::{Fleet, Setup, Wire};

const END: Duration = Duration::from_secs(60);
const BUCKETS: [&str; 3] = ["fedpipe_jobs", "fedpipe_profiles", "fedpipe_plans"];

/// The rounds of which a worker's updates are in storage.
fn kept(fleet: &Fleet, job: &str, worker: &str) -> BTreeSet<u32> {
    let folder = fleet.state().join("objects/jobs").join(job);
    let rounds = std::fs::read_dir(folder.join("updates").join(worker));
    let rounds = rounds.into_iter().flatten();
    rounds
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

#[tokio::test]
async fn updates_are_deleted_two_rounds_after_their_merge_unless_the_job_keeps_them() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let api = fleet.api();
    let five = with(job(&fleet.model()), "rounds", json!({"count": 5}));
    let id = api.submit(&five).await;
    api.succeeded(&id, END).await;
    for worker in ["a", "b"] {
        let last_two = BTreeSet::from([4, 5]);
        // The last ones go just after the round is committed.
        wait::until("old updates are gone", END, async || {
            kept(&fleet, &id, worker) == last_two
        })
        .await;
    }

    let keeps = with(five, "retention", json!({"keep_updates": true}));
    let id = api.submit(&keeps).await;
    api.succeeded(&id, END).await;
    settled(&fleet, &id).await;
    for worker in ["a", "b"] {
        assert_eq!(kept(&fleet, &id, worker), (1..=5).collect());
    }
}

/// Waits until the aggregator has cleaned up after the job's end.
async fn settled(fleet: &Fleet, id: &str) {
    let folder = fleet.state().join("aggregator/jobs").join(id);
    wait::until("the job is settled", END, async || !folder.exists()).await;
}

/// How many files the aggregator has fetched and still has.
fn spooled(fleet: &Fleet) -> usize {
    let jobs = std::fs::read_dir(fleet.state().join("aggregator/spool"));
    let jobs = jobs.into_iter().flatten().flatten();
    let files = jobs.filter_map(|job| std::fs::read_dir(job.path()).ok());
    files.flatten().count()
}

#[tokio::test]
async fn a_job_that_is_cancelled_in_an_open_round_leaves_no_update_on_the_aggregators_disk() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let (api, hold) = (fleet.api(), Failpoint::PlannerPlanAfterPlanStored);
    fleet.points().arm(hold, Fate::Halted);
    let id = api.submit(&job(&fleet.model())).await;
    fleet.points().reached(hold, Fate::Halted, END).await;
    fleet.halt("worker-b");
    fleet.go_on("planner");
    let fetched = async || spooled(&fleet) > 0;
    wait::until("the update of the other site is fetched", END, fetched).await;
    api.order(&id, "cancel").await;
    fleet.go_on("worker-b");
    api.ended(&id, END).await;
    settled(&fleet, &id).await;
    assert_eq!(spooled(&fleet), 0);
}

/// Files and folders below this one whose path names the job.
fn traces(folder: &Path, job: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_folder = path.is_dir();
            if entry.file_name().to_string_lossy().contains(job) {
                found.push(path.display().to_string());
            } else if is_folder {
                folders.push(path);
            }
        }
    }
    found
}

/// Everything that is left of a job: in the buckets, on the streams, in storage, at the sites.
async fn left(fleet: &Fleet, wire: &Wire, id: &str) -> Vec<String> {
    let mut left = Vec::new();
    for bucket in BUCKETS {
        left.extend(wire.keys(bucket, id).await);
    }
    for (stream, subject) in [
        ("FEDPIPE_JOBS", format!("fedpipe.v1.job.{id}.>")),
        ("FEDPIPE_REPORTS", format!("fedpipe.v1.report.*.{id}.>")),
        ("FEDPIPE_TASKS", format!("fedpipe.v1.task.*.{id}.>")),
    ] {
        let held = wire.held(stream, &subject).await;
        left.extend((held > 0).then(|| format!("{held} of {subject}")));
    }
    for folder in ["objects", "workers", "aggregator"] {
        left.extend(traces(&fleet.state().join(folder), id));
    }
    left
}

/// Asked again until it is done: nobody has to know how far the first one came.
async fn delete(fleet: &Fleet, id: &str) {
    let path = format!("/v1/jobs/{id}");
    let gone = wait::some("it is deleted", END, async || {
        let answer = fleet.api().ask(Method::DELETE, &path, None).await?;
        [204, 404]
            .contains(&answer.status.as_u16())
            .then_some(answer)
    });
    gone.await;
}

#[tokio::test]
async fn deleting_a_job_removes_everything_of_it_wherever_the_api_dies_meanwhile() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let (api, wire) = (fleet.api(), Wire::tap(&fleet).await);
    for point in [
        None,
        Some(Failpoint::ApiDeleteAfterObjects),
        Some(Failpoint::ApiDeleteAfterValues),
        Some(Failpoint::ApiDeleteAfterMessages),
        Some(Failpoint::ApiDeleteAfterState),
    ] {
        let id = api.submit(&scored(&fleet.model())).await;
        api.succeeded(&id, END).await;
        settled(&fleet, &id).await;
        let before = left(&fleet, &wire, &id).await;
        assert!(before.len() > 10, "too little to delete: {before:?}");
        let path = format!("/v1/jobs/{id}");
        if let Some(point) = point {
            fleet.points().arm(point, Fate::Killed);
            let old = fleet.pid("api");
            let answer = api.ask(Method::DELETE, &path, None).await;
            assert_eq!(answer, None, "{} did not strike", point.name());
            fleet.back("api", old).await;
        }
        delete(&fleet, &id).await;
        assert_eq!(api.get(&path).await.status.as_u16(), 404);
        let what = point.map_or("no death", Failpoint::name);
        assert_eq!(left(&fleet, &wire, &id).await, [""; 0], "after {what}");
    }
}

/// A replay does what the other did. Once the other is deleted, what it did after this round is not known any more; after
/// the last round it did nothing.
#[tokio::test]
async fn a_replay_whose_other_is_deleted_fails_at_its_rounds_end_unless_that_is_the_last() {
    let mut replay = Replay::prepare(&Setup::sites(2), async |fleet| job(&fleet.model())).await;
    let decided = Failpoint::AggregatorCloseAfterDecision;
    let first = replay.job["plan_from"].as_str().unwrap().to_owned();
    // Both rounds are decided while the other is there.
    let last = replay.hold(decided).await;
    replay.fleet.points().arm(decided, Fate::Halted);
    replay.fleet.go_on("aggregator");
    let points = replay.fleet.points();
    points.reached(decided, Fate::Halted, END).await;
    delete_beside(&replay.fleet, &first, &last.id, 2).await;
    replay.end(&last).await.unwrap();

    // A replay's plans are replayed like any other's.
    replay.job = with(replay.job.clone(), "plan_from", json!(last.id));
    let early = replay.hold(decided).await;
    delete_beside(&replay.fleet, &last.id, &early.id, 1).await;
    let api = replay.fleet.api();
    let ended = api.ended(&early.id, END).await;
    let why = format!("plan_from: {} has no version 2 of its plan", last.id);
    let cause = &ended["cause"];
    assert_eq!(cause["kind"], "input_unusable", "{ended:#}");
    let message = cause["message"].as_str().unwrap();
    assert!(message.starts_with(&why), "{message}");
    // What it trained is merged, and no other round was begun.
    let events = api.events(&early.id).await;
    let opened = events.iter().filter(|event| event.name == "opened");
    assert_eq!(opened.count(), 1, "{events:#?}");
    assert_eq!(api.rounds(&early.id).await.len(), 2);
}

/// Deletes a job while the aggregator stands where it has decided this round of one that replays it; then it goes on.
async fn delete_beside(fleet: &Fleet, other: &str, replay: &str, round: u32) {
    let is_decided = |job: &Value| job["phase"] == "folding" && job["round"] == round;
    let what = format!("round {round} is decided");
    fleet.api().until(replay, &what, END, is_decided).await;
    delete(fleet, other).await;
    fleet.go_on("aggregator");
}

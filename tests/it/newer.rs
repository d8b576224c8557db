//! What a newer release left in the store before this one took its place again: it harms no job but its own.

use chassis::failpoint::Failpoint;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::wait;
use tests::api::Event;
use tests::job::{job, walking, with};
use tests::points::Fate;
use tests::{Fleet, Setup, Wire};

use crate::coming::{self, END};

/// Makes the record of a job that ended one that this release cannot read.
async fn made_newer(wire: &Wire, id: &str) -> Value {
    wait::until("nobody writes the record any more", END, async || {
        wire.value("fedpipe_jobs", id).await["settled"] == true
    })
    .await;
    overwritten(wire, id).await
}

/// Makes a job's record one that this release cannot read.
async fn overwritten(wire: &Wire, id: &str) -> Value {
    let mut record = wire.value("fedpipe_jobs", id).await;
    record["phase"] = json!({"phase": "of_a_newer_release"});
    record["spec"]["of_a_newer_release"] = json!(true);
    wire.overwrite("fedpipe_jobs", id, &record).await;
    record
}

/// Each control service has told once of a job that cannot be read, and since then does not run against it.
fn check_told(fleet: &Fleet, id: &str) {
    for process in ["api", "profiler", "planner", "aggregator"] {
        let log = fleet.log(process);
        let lines = |text: &str| {
            let of = |line: &&str| line.contains(id) && line.contains(text);
            log.lines().filter(of).collect::<Vec<_>>()
        };
        let told = lines("is left out");
        assert_eq!(told.len(), 1, "{process}: {log}");
        let mut tried = lines("step interrupted");
        tried.retain(|line| line.contains("cannot read what lies on"));
        assert!(tried.is_empty(), "{process}: {tried:?}");
    }
}

/// Whoever admits a job, and whoever lets a site join it, looks at the records of all others.
#[tokio::test]
async fn a_job_beside_one_that_cannot_be_read_begins_is_joined_and_succeeds() {
    let fleet = coming::fleet().await;
    let (api, wire) = (fleet.api(), Wire::tap(&fleet).await);
    let newer = api.submit(&job(&fleet.model())).await;
    let cancelled = api.order(&newer, "cancel").await;
    assert!(cancelled.status.is_success(), "{cancelled:?}");
    let record = made_newer(&wire, &newer).await;

    let rounds = json!({"count": 12, "quorum": "auto"});
    let asked = coming::patient(with(job(&fleet.model()), "rounds", rounds));
    let (id, _) = coming::joined(&fleet, &asked).await;
    fleet.go_on("aggregator");
    api.succeeded(&id, END).await;

    check_told(&fleet, &newer);
    let path = format!("/v1/jobs/{newer}");
    let refused = api.ask(Method::DELETE, &path, None).await.unwrap();
    assert_eq!(refused.status.as_u16(), 409, "{refused:?}");
    assert_eq!(wire.value("fedpipe_jobs", &newer).await, record);
}

/// Processes of two releases run side by side while one takes the other's place.
#[tokio::test]
async fn a_running_job_that_can_no_longer_be_read_is_let_go_and_its_site_does_another() {
    let fleet = Fleet::start(&Setup::sites(1)).await;
    let (api, wire) = (fleet.api(), Wire::tap(&fleet).await);
    let asked = coming::patient(job(&fleet.model()));
    let decided = Failpoint::AggregatorCloseAfterDecision;
    fleet.points().arm(decided, Fate::Halted);
    let newer = api.submit(&asked).await;
    fleet.points().reached(decided, Fate::Halted, END).await;
    let record = overwritten(&wire, &newer).await;
    fleet.go_on("aggregator");

    let listed = async || {
        let all = api.get("/v1/jobs").await.body;
        let items = all["items"].as_array().unwrap();
        items.iter().any(|one| one["id"] == newer.as_str())
    };
    wait::until("it is not listed any more", END, async || !listed().await).await;
    let other = api.submit(&asked).await;
    api.succeeded(&other, END).await;
    check_told(&fleet, &newer);
    assert_eq!(wire.value("fedpipe_jobs", &newer).await, record);
}

/// How often a site did not measure itself for this job.
async fn reused(fleet: &Fleet, id: &str) -> usize {
    let events: Vec<Event> = fleet.api().events(id).await;
    let of = events.iter().filter(|event| event.name == "reused");
    of.count()
}

#[tokio::test]
async fn what_was_measured_for_a_job_that_cannot_be_read_is_reused_or_else_measured_again() {
    let setup = Setup {
        reuse_profiles: true,
        ..Setup::sites(1)
    };
    let fleet = Fleet::start(&setup).await;
    let (api, wire) = (fleet.api(), Wire::tap(&fleet).await);
    let digest = fleet.push_model().await;
    let asked = with(job(&fleet.model()), "model", json!({"digest": digest}));
    let succeeded = async || {
        let id = api.submit(&asked).await;
        api.succeeded(&id, END).await;
        id
    };
    let first = succeeded().await;
    assert_eq!(reused(&fleet, &first).await, 0);

    // What the other's rounds would teach cannot be read; what was measured can.
    made_newer(&wire, &first).await;
    assert_eq!(reused(&fleet, &succeeded().await).await, 1);

    let all = wire.keys("fedpipe_profiles", "measured.").await;
    assert_eq!(all.len(), 1, "{all:?}");
    for key in all {
        let mut kept = wire.value("fedpipe_profiles", &key).await;
        kept["question"]["order"] = json!("of_a_newer_release");
        wire.overwrite("fedpipe_profiles", &key, &kept).await;
    }
    assert_eq!(reused(&fleet, &succeeded().await).await, 0);
    // What was measured again took its place.
    assert_eq!(reused(&fleet, &succeeded().await).await, 1);
}

/// An upgrade keeps no job waiting that was queued or planned before it.
#[tokio::test]
async fn a_job_that_has_made_no_step_takes_the_generator_of_the_release_that_starts_it() {
    let fleet = Fleet::start(&Setup::sites(1)).await;
    let (api, wire) = (fleet.api(), Wire::tap(&fleet).await);
    let rounds = json!({"count": 1, "quorum": "all"});
    let asked = walking(&fleet.model(), &json!({}), 2, &rounds);
    let planned = Failpoint::PlannerPlanAfterPlanStored;
    fleet.points().arm(planned, Fate::Halted);
    let id = api.submit(&asked).await;
    fleet.points().reached(planned, Fate::Halted, END).await;
    let record = wire.value("fedpipe_jobs", &id).await;
    let other = with(record, "generator", json!(2));
    wire.overwrite("fedpipe_jobs", &id, &other).await;
    fleet.go_on("planner");

    api.succeeded(&id, END).await;
    let record = wire.value("fedpipe_jobs", &id).await;
    assert_eq!(record["generator"], Value::Null, "the first is not said");
}

/// A release with another generator of directions cannot replay what was walked: the rounds of such a job would
/// lead elsewhere, and nobody would see it.
#[tokio::test]
async fn a_job_of_another_generator_of_directions_waits_for_the_release_that_it_began_with() {
    let fleet = Fleet::start(&Setup::sites(1)).await;
    let (api, wire) = (fleet.api(), Wire::tap(&fleet).await);
    let rounds = json!({"count": 3, "quorum": "all"});
    let asked = coming::patient(walking(&fleet.model(), &json!({}), 2, &rounds));
    let decided = Failpoint::AggregatorCloseAfterDecision;
    fleet.points().arm(decided, Fate::Halted);
    let id = api.submit(&asked).await;
    fleet.points().reached(decided, Fate::Halted, END).await;
    let record = wire.value("fedpipe_jobs", &id).await;
    assert_eq!(record["generator"], Value::Null, "the first is not said");
    let other = with(record, "generator", json!(2));
    wire.overwrite("fedpipe_jobs", &id, &other).await;
    fleet.go_on("aggregator");

    wait::until("it says what keeps it", END, async || {
        let record = wire.value("fedpipe_jobs", &id).await;
        let why = record["held"]["why"].as_str().unwrap_or_default();
        why.contains("generator 2, and this release has generator 1")
    })
    .await;
    let said = api.get(&format!("/v1/jobs/{id}")).await.body.to_string();
    assert!(said.contains("generator 2"), "{said}");
    assert_eq!(api.rounds(&id).await.len(), 1, "no round is committed");

    // The release that it began with takes its place again.
    let mut record = wire.value("fedpipe_jobs", &id).await;
    record["generator"] = json!(1);
    wire.overwrite("fedpipe_jobs", &id, &record).await;
    api.succeeded(&id, END).await;
}

//! Sites that come while a job runs, leave it, and come back: each time the plan is made anew, with a reason.

use std::time::Duration;

use chassis::failpoint::Failpoint;
use serde_json::{Value, json};
use testkit::wait;
use tests::job::{job, walking, with};
use tests::points::Fate;
use tests::{Fleet, Setup};

const END: Duration = Duration::from_secs(60);

/// Rounds that may pass until what happened is in a plan.
const PATIENCE: usize = 6;

/// Goes on until a round of this version of the plan is decided, and holds the aggregator there.
async fn held_under(fleet: &Fleet, id: &str, version: u64) -> Value {
    let decided = Failpoint::AggregatorCloseAfterDecision;
    for _ in 0..PATIENCE {
        fleet.points().arm(decided, Fate::Halted);
        fleet.go_on("aggregator");
        fleet.points().reached(decided, Fate::Halted, END).await;
        let job = fleet.api().job(id).await;
        if job["plan_version"] == version {
            return job;
        }
    }
    panic!(
        "no version {version} of the plan: {:#}",
        fleet.api().job(id).await
    );
}

async fn worker_is(fleet: &Fleet, name: &str, liveness: &str) {
    wait::until(&format!("{name} is {liveness}"), END, async || {
        let all = fleet.api().get("/v1/workers").await.body;
        let workers = all["items"].as_array().unwrap();
        let own = workers.iter().find(|worker| worker["worker"] == name);
        own.is_some_and(|worker| worker["liveness"] == liveness)
    })
    .await;
}

async fn plan(fleet: &Fleet, id: &str, version: u64) -> Value {
    let path = format!("/v1/jobs/{id}/plan?version={version}");
    fleet.api().get(&path).await.body
}

/// Whom a version plans, and whether it replaces the one before for this reason.
async fn check(fleet: &Fleet, id: &str, version: u64, planned: &[&str], reason: &str) {
    let plan = plan(fleet, id, version).await;
    let workers = plan["workers"].as_object().unwrap();
    let names: Vec<&str> = workers.keys().map(String::as_str).collect();
    assert_eq!(names, planned, "version {version}");
    assert_eq!(plan["parent"], version - 1, "{plan:#}");
    let replaces = plan["replaces"].as_array().unwrap();
    assert!(replaces.contains(&json!(reason)), "{replaces:?}");
}

fn sites(job: &Value) -> Vec<Value> {
    let all = job["sites"].as_array().unwrap().iter();
    all.map(|site| site["worker"].clone()).collect()
}

/// Begins a job without site `c`, which comes while the first round is open; returns when a round with it is decided.
async fn joined(fleet: &Fleet, asked: &Value) -> String {
    fleet.halt("worker-c");
    worker_is(fleet, "c", "unreachable").await;
    let decided = Failpoint::AggregatorCloseAfterDecision;
    fleet.points().arm(decided, Fate::Halted);
    let id = fleet.api().submit(asked).await;
    fleet.points().reached(decided, Fate::Halted, END).await;
    assert_eq!(sites(&fleet.api().job(&id).await), ["a", "b"]);
    fleet.go_on("worker-c");
    worker_is(fleet, "c", "alive").await;
    let job = held_under(fleet, &id, 2).await;
    assert_eq!(sites(&job), ["a", "b", "c"]);
    check(fleet, &id, 2, &["a", "b", "c"], "c takes part").await;
    id
}

/// Each site trained in the first round of every version of the plan that names it.
async fn check_trained(fleet: &Fleet, id: &str, versions: u64) {
    for version in 1..=versions {
        let plan = plan(fleet, id, version).await;
        let from = plan["from_round"].as_u64().unwrap();
        let planned = plan["workers"].as_object().unwrap();
        let round = &fleet.api().rounds(id).await[usize::try_from(from).unwrap()];
        let trained = round["workers"].as_array().unwrap();
        for name in planned.keys() {
            let has = trained.iter().any(|worker| worker["worker"] == **name);
            assert!(has, "version {version}: {name} in {round:#}");
        }
    }
}

#[tokio::test]
async fn a_site_that_comes_while_a_zeroth_order_job_runs_reaches_the_others_adapter() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let rounds = json!({"count": 6, "quorum": "auto"});
    let asked = walking(&fleet.model(), &json!({}), 2, &rounds);
    let id = joined(&fleet, &asked).await;
    fleet.go_on("aggregator");
    // Whoever trained from another adapter would be refused.
    fleet.api().succeeded(&id, END).await;
    check_trained(&fleet, &id, 2).await;
}

#[tokio::test]
async fn a_site_that_comes_or_leaves_while_a_job_runs_is_planned_for_from_the_next_round_on() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let rounds = json!({"count": 16, "quorum": "auto"});
    let asked = with(job(&fleet.model()), "rounds", rounds);
    let id = joined(&fleet, &asked).await;

    fleet.halt("worker-b");
    held_under(&fleet, &id, 3).await;
    let reason = "b can no longer take part";
    check(&fleet, &id, 3, &["a", "c"], reason).await;

    fleet.go_on("worker-b");
    worker_is(&fleet, "b", "alive").await;
    held_under(&fleet, &id, 4).await;
    check(&fleet, &id, 4, &["a", "b", "c"], "b takes part").await;

    fleet.go_on("aggregator");
    fleet.api().succeeded(&id, END).await;
    check_trained(&fleet, &id, 4).await;
}

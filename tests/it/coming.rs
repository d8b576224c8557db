//! Sites that come while a job runs, leave it, and come back: each time the plan is made anew, with a reason.

use std::time::Duration;

use chassis::failpoint::Failpoint;
use serde_json::{Value, json};
use testkit::wait;
use tests::job::{job, walking, with};
use tests::points::Fate;
use tests::{Fleet, Setup};

/// Sites measure themselves one after another, and a slow machine needs long for each.
pub const END: Duration = Duration::from_secs(240);

/// Rounds that may pass until what happened is in a plan.
const PATIENCE: usize = 6;

/// Goes on until a round is decided whose plan is for these sites, and holds the aggregator there; returns the version.
async fn held_under(fleet: &Fleet, id: &str, names: &[&str]) -> u64 {
    let decided = Failpoint::AggregatorCloseAfterDecision;
    for _ in 0..PATIENCE {
        fleet.points().arm(decided, Fate::Halted);
        fleet.go_on("aggregator");
        fleet.points().reached(decided, Fate::Halted, END).await;
        let version = fleet.api().job(id).await["plan_version"].as_u64().unwrap();
        if planned(&plan(fleet, id, version).await) == names {
            return version;
        }
    }
    panic!("no plan for {names:?}: {:#}", fleet.api().job(id).await);
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

/// Whom a plan is for.
fn planned(plan: &Value) -> Vec<&str> {
    let workers = plan["workers"].as_object().unwrap();
    workers.keys().map(String::as_str).collect()
}

/// Three sites of which one may be away, measured in time on a slow machine too.
pub async fn fleet() -> Fleet {
    let mut setup = Setup::sites(3);
    setup.idle = Duration::from_secs(4);
    Fleet::start(&setup).await
}

pub fn patient(job: Value) -> Value {
    with(job, "deadline_seconds", json!(2 * END.as_secs()))
}

/// Whether a version replaces the one before for this reason.
async fn check(fleet: &Fleet, id: &str, version: u64, reason: &str) {
    let plan = plan(fleet, id, version).await;
    assert_eq!(plan["parent"], version - 1, "{plan:#}");
    let replaces = plan["replaces"].as_array().unwrap();
    assert!(replaces.contains(&json!(reason)), "{replaces:?}");
}

fn sites(job: &Value) -> Vec<Value> {
    let all = job["sites"].as_array().unwrap().iter();
    all.map(|site| site["worker"].clone()).collect()
}

/// Begins a job without site `c`, which comes while the first round is open; returns when a round with it is decided:
/// the job, and the version of its plan.
pub async fn joined(fleet: &Fleet, asked: &Value) -> (String, u64) {
    fleet.halt("worker-c");
    worker_is(fleet, "c", "unreachable").await;
    let decided = Failpoint::AggregatorCloseAfterDecision;
    fleet.points().arm(decided, Fate::Halted);
    let id = fleet.api().submit(asked).await;
    fleet.points().reached(decided, Fate::Halted, END).await;
    assert_eq!(sites(&fleet.api().job(&id).await), ["a", "b"]);
    fleet.go_on("worker-c");
    worker_is(fleet, "c", "alive").await;
    let version = held_under(fleet, &id, &["a", "b", "c"]).await;
    assert_eq!(sites(&fleet.api().job(&id).await), ["a", "b", "c"]);
    check(fleet, &id, version, "c takes part").await;
    (id, version)
}

/// Each site trained in the first round of each of these versions of the plan that names it.
async fn check_trained(fleet: &Fleet, id: &str, versions: &[u64]) {
    for version in versions {
        let plan = plan(fleet, id, *version).await;
        let from = plan["from_round"].as_u64().unwrap();
        let round = &fleet.api().rounds(id).await[usize::try_from(from).unwrap()];
        let trained = round["workers"].as_array().unwrap();
        for name in planned(&plan) {
            let has = trained.iter().any(|worker| worker["worker"] == name);
            assert!(has, "version {version}: {name} in {round:#}");
        }
    }
}

#[tokio::test]
async fn a_site_that_comes_while_a_zeroth_order_job_runs_reaches_the_others_adapter() {
    let fleet = fleet().await;
    let rounds = json!({"count": 6, "quorum": "auto"});
    let asked = patient(walking(&fleet.model(), &json!({}), 2, &rounds));
    let (id, version) = joined(&fleet, &asked).await;
    fleet.go_on("aggregator");
    // Whoever trained from another adapter would be refused.
    let digest = fleet.api().succeeded(&id, END).await;
    check_trained(&fleet, &id, &[1, version]).await;

    // Its plans are replayed: without `c`, which is there, and then with it.
    let replayed = with(asked, "plan_from", json!(id));
    let again = fleet.api().submit(&replayed).await;
    assert_eq!(fleet.api().succeeded(&again, END).await, digest);
    check_trained(&fleet, &again, &[1, version]).await;
    let names = planned(&plan(&fleet, &again, 1).await).join(" ");
    assert_eq!(names, "a b");

    // And not where it is away: the adapter would be another.
    fleet.halt("worker-c");
    worker_is(&fleet, "c", "unreachable").await;
    let short = fleet.api().submit(&replayed).await;
    let ended = fleet.api().ended(&short, END).await;
    let why = format!("version {version} of the plan of {id} cannot be replayed: 1 of its 3");
    let message = ended["cause"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with(&why), "{}: {ended:#}", ended["phase"]);
}

#[tokio::test]
async fn a_site_that_comes_or_leaves_while_a_job_runs_is_planned_for_from_the_next_round_on() {
    let fleet = fleet().await;
    let rounds = json!({"count": 16, "quorum": "auto"});
    let asked = patient(with(job(&fleet.model()), "rounds", rounds));
    let (id, with_c) = joined(&fleet, &asked).await;

    fleet.halt("worker-b");
    let without_b = held_under(&fleet, &id, &["a", "c"]).await;
    check(&fleet, &id, without_b, "b can no longer take part").await;

    fleet.go_on("worker-b");
    worker_is(&fleet, "b", "alive").await;
    let with_b = held_under(&fleet, &id, &["a", "b", "c"]).await;
    check(&fleet, &id, with_b, "b takes part").await;

    fleet.go_on("aggregator");
    fleet.api().succeeded(&id, END).await;
    check_trained(&fleet, &id, &[1, with_c, without_b, with_b]).await;
}

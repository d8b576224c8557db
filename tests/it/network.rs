//! Messages that a broken network loses between a worker and the bus, nobody being killed.

use std::time::Duration;

use chassis::failpoint::Failpoint;
use futures::StreamExt;
use serde_json::{Value, json};
use testkit::proxy::Proxy;
use testkit::wait;
use tests::job::job;
use tests::replay::Replay;
use tests::{Fleet, Setup, Wire};

const SOON: Duration = Duration::from_secs(20);
const TASKS: &str = "FEDPIPE_TASKS";
const REPORTS: &str = "FEDPIPE_REPORTS";

/// A network between this worker and the bus.
async fn network(fleet: &Fleet, worker: &str) -> Proxy {
    let address = fleet.nats_url().replace("nats://", "");
    let network = Proxy::start(address.parse().unwrap()).await.unwrap();
    fleet.through(worker, &network).await;
    network
}

#[tokio::test]
async fn an_update_that_is_stored_counts_although_its_acknowledgement_is_lost() {
    let setup = Setup {
        idle: Duration::from_secs(3),
        ..Setup::sites(3)
    };
    let replay = Replay::prepare(&setup, async |fleet| job(&fleet.model())).await;
    let Replay { fleet, .. } = &replay;
    let wire = Wire::tap(fleet).await;
    let network = network(fleet, "worker-c").await;
    let point = Failpoint::WorkerTrainAfterSeal;
    let disturbed = replay.hold_worker("worker-c", point).await;
    let id = &disturbed.id;
    let epoch = fleet.api().job(id).await["epoch"].as_u64().unwrap();
    let report = format!("fedpipe.v1.report.c.{id}.{epoch}.updated");
    let task = format!("fedpipe.v1.task.c.{id}.{epoch}.train");
    assert_eq!(wire.held(REPORTS, &report).await, 0);

    // What c says arrives; what it is told does not.
    network.lose_answers();
    fleet.all_go_on();
    wait::until("the round closes", SOON, async || {
        let events = fleet.api().events(id).await;
        events.iter().any(|event| event.name == "closed")
    })
    .await;
    assert_eq!(wire.held(REPORTS, &report).await, 1);
    // It waits for the server's word, so it has not let go of its task.
    assert_eq!(wire.held(TASKS, &task).await, 1);
    network.open();
    replay.end(&disturbed).await.unwrap();
    let events = fleet.api().events(id).await;
    let closed = events.iter().find(|event| event.name == "closed").unwrap();
    assert_eq!(closed.detail["sites"], json!(["a", "b", "c"]));
    assert!(
        events.iter().all(|event| event.name != "lost"),
        "{events:?}"
    );
    assert_eq!(
        fleet.deaths("worker-c"),
        1,
        "beside the one of the new network"
    );
}

#[tokio::test]
async fn an_order_that_is_lost_on_the_way_costs_time_and_nothing_else() {
    let replay = Replay::prepare(&Setup::sites(2), async |fleet| job(&fleet.model())).await;
    let Replay { fleet, .. } = &replay;
    let wire = Wire::tap(fleet).await;
    let network = network(fleet, "worker-b").await;
    let point = Failpoint::WorkerTrainAfterFirstStep;

    let disturbed = replay.hold_worker("worker-b", point).await;
    lose_order(&replay, &wire, &network, &disturbed.id, "pause?now=true").await;
    let paused = fleet.api().phase(&disturbed.id, "paused", SOON).await;
    fleet.api().order(&disturbed.id, "resume").await;
    replay.end(&disturbed).await.unwrap();
    assert!(!heard(fleet, &paused), "the order was not lost");

    let disturbed = replay.hold_worker("worker-b", point).await;
    lose_order(&replay, &wire, &network, &disturbed.id, "cancel").await;
    let ended = fleet.api().ended(&disturbed.id, SOON).await;
    assert_eq!(ended["phase"], "cancelled", "{ended:#}");
    assert!(!heard(fleet, &ended), "the order was not lost");
    let next = replay.begin().await;
    replay.end(&next).await.unwrap();
}

/// Whether worker b has heard that tasks before the job's epoch no longer count.
fn heard(fleet: &Fleet, job: &Value) -> bool {
    let (id, epoch) = (job["id"].as_str().unwrap(), &job["epoch"]);
    let order = format!("cancelled job={id} below={epoch}");
    let log = fleet.log("worker-b");
    assert!(log.contains("reported job="), "the log is not what it was");
    log.lines().any(|line| line.ends_with(&order))
}

/// Gives an order that everybody hears but worker b, which then goes on with what it was doing.
async fn lose_order(replay: &Replay, wire: &Wire, network: &Proxy, job: &str, order: &str) {
    let Replay { fleet, .. } = replay;
    let mut heard = wire.hear("fedpipe.v1.ctl.b").await;
    network.swallow();
    let answer = fleet.api().order(job, order).await;
    assert!(answer.status.is_success(), "{answer:?}");
    let said = wait::in_time("the order is given", SOON, heard.next()).await;
    assert!(said.is_some(), "the wire fell silent");
    network.open();
    fleet.all_go_on();
}

/// Waits until each of these processes lacks these conditions, for these reasons, and no others.
async fn lack(fleet: &Fleet, names: &[&str], reasons: &Value) {
    for name in names {
        let what = format!("{name} lacks {reasons}");
        wait::until(&what, SOON, async || {
            readiness(fleet, name).await.as_ref() == Some(reasons)
        })
        .await;
    }
}

/// The conditions that a process lacks; `None` while it does not answer.
async fn readiness(fleet: &Fleet, name: &str) -> Option<Value> {
    let file = fleet.state().join(format!("run/{name}.health"));
    let address = std::fs::read_to_string(file).ok()?;
    let url = format!("http://{}/readyz", address.trim());
    let page: Value = reqwest::get(url).await.ok()?.json().await.ok()?;
    page.get("reasons").cloned()
}

#[tokio::test]
async fn whoever_is_cut_off_from_the_bus_is_not_ready_until_it_is_back_and_ends_well_meanwhile() {
    let everybody = ["api", "profiler", "planner", "aggregator", "worker-a"];
    let fleet = Fleet::start(&Setup::sites(1)).await;
    let address = fleet.nats_url().replace("nats://", "");
    let network = Proxy::start(address.parse().unwrap()).await.unwrap();
    for name in everybody {
        fleet.through(name, &network).await;
    }
    lack(&fleet, &everybody, &json!({})).await;
    network.cut();
    lack(&fleet, &everybody, &json!({"nats": "not connected"})).await;

    // One that has waited for the bus since it was started, too, ends well when it is told to.
    let before = fleet.log("planner").len();
    let old = fleet.terminate("planner");
    fleet.back("planner", old).await;
    wait::until("the planner waits for the bus", SOON, async || {
        let log = fleet.log("planner");
        let since = log.get(before..).unwrap_or_default();
        since.contains("waiting for nats")
    })
    .await;
    let old = fleet.terminate("planner");
    fleet.back("planner", old).await;
    let ended = async || fleet.deaths("planner") == 3;
    wait::until("its end is told", SOON, ended).await;
    let last = fleet.statuses("planner").pop();
    assert_eq!(last.as_deref(), Some("exit code 0"));

    network.open();
    lack(&fleet, &everybody, &json!({})).await;
}

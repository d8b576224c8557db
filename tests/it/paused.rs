//! A zeroth-order job that is paused: whoever goes on with it has nothing but what was committed.

use std::time::Duration;

use chassis::failpoint::Failpoint;
use serde_json::{Value, json};
use testkit::wait;
use tests::job::{walking, with};
use tests::points::Fate;
use tests::{Fleet, Setup};

use crate::credited::work_dir;

const END: Duration = Duration::from_secs(60);

/// The adapter that a job ended with, and that of each of its rounds.
async fn ended(fleet: &Fleet, id: &str) -> (String, Vec<String>) {
    let last = fleet.api().succeeded(id, END).await;
    let rounds = fleet.api().rounds(id).await;
    let digest = |round: &Value| round["adapter"]["sha256"].as_str().unwrap().to_owned();
    (last, rounds.iter().map(digest).collect())
}

async fn order(fleet: &Fleet, id: &str, what: &str) {
    let answer = fleet.api().order(id, what).await;
    assert!(answer.status.is_success(), "{what}: {answer:?}");
}

/// The job is paused, so many of its rounds are committed, the untrained adapter's among them, and it takes no room on
/// the aggregator's disk.
async fn stands(fleet: &Fleet, id: &str, rounds: usize) {
    fleet.api().phase(id, "paused", END).await;
    assert_eq!(fleet.api().rounds(id).await.len(), rounds);
    let folders = ["spool", "jobs"].map(|kind| work_dir(fleet).join(kind).join(id));
    wait::until("its files are gone", END, async || {
        folders.iter().all(|folder| !folder.exists())
    })
    .await;
}

/// Pauses the job between rounds 1 and 2 and again in the middle of round 2, and kills both times.
async fn paused_twice(fleet: &Fleet, asked: &Value) -> (String, Vec<String>) {
    let (api, points) = (fleet.api(), fleet.points());
    let decided = Failpoint::AggregatorCloseAfterDecision;
    points.arm(decided, Fate::Halted);
    let id = api.submit(asked).await;
    points.reached(decided, Fate::Halted, END).await;
    // Whoever would open round 2 stands still until the order is stored.
    order(fleet, &id, "pause").await;
    fleet.go_on("aggregator");
    stands(fleet, &id, 2).await;
    let old = ["aggregator", "worker-a"].map(|name| (name, fleet.kill(name)));
    for (name, pid) in old {
        fleet.back(name, pid).await;
    }

    let passes = Failpoint::WorkerTrainBetweenPasses;
    points.arm(passes, Fate::Halted);
    order(fleet, &id, "resume").await;
    points.reached(passes, Fate::Halted, END).await;
    order(fleet, &id, "pause?now=true").await;
    stands(fleet, &id, 2).await;
    let old = fleet.kill("worker-b");
    fleet.all_go_on();
    fleet.back("worker-b", old).await;
    order(fleet, &id, "resume").await;
    ended(fleet, &id).await
}

#[tokio::test]
async fn a_zeroth_order_job_that_was_paused_ends_in_the_adapter_of_one_that_was_not() {
    let patient = Setup {
        idle: Duration::from_secs(6),
        ..Setup::sites(2)
    };
    let fleet = Fleet::start(&patient).await;
    for mezo in [
        // The rounds before say where directions are long, and which numbers move.
        json!({"mask": {"share": 0.5, "after": 1}, "scaling": {"weight": 0.3, "rounds": 2}}),
        // The round before says at which rate each site goes on.
        json!({"seeds": "per-worker", "rates": "round-loss"}),
    ] {
        let rounds = json!({"count": 3, "quorum": "all"});
        let asked = walking(&fleet.model(), &mezo, 2, &rounds);
        let id = fleet.api().submit(&asked).await;
        let expected = ended(&fleet, &id).await;
        let apart = |two: &[String]| two[0] != two[1];
        assert!(expected.1.windows(2).all(apart), "it learns: {expected:?}");
        let again = with(asked, "plan_from", json!(id));
        let found = paused_twice(&fleet, &again).await;
        assert_eq!(found, expected, "{mezo}");
    }
}

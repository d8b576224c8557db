//! Scalars that come a round late. They say nothing by themselves: they count as what they come to from the adapter that
//! their site had begun with, along the directions and at the rate of that round, whoever merges them.

use std::path::PathBuf;
use std::time::Duration;

use chassis::failpoint::Failpoint;
use contract::Message;
use contract::message::report::{Updated, Walked};
use serde_json::{Value, json};
use testkit::wait;
use tests::job::{walking, with};
use tests::points::Fate;
use tests::{Fleet, Setup, Wire};

use crate::rounds::{epoch, workers};

const END: Duration = Duration::from_secs(60);

/// The job whose round 1 site c delivers when it was decided without it, by a report of this kind; its id, and its rounds.
async fn credited(fleet: &Fleet, tap: &Wire, asked: &Value, kind: &str) -> (String, Vec<Value>) {
    let (api, points) = (fleet.api(), fleet.points());
    let planned = Failpoint::PlannerPlanAfterPlanStored;
    let decided = Failpoint::AggregatorCloseAfterDecision;
    points.arm(planned, Fate::Halted);
    let id = api.submit(asked).await;
    points.reached(planned, Fate::Halted, END).await;
    fleet.halt("worker-c");
    points.arm(decided, Fate::Halted);
    fleet.go_on("planner");
    points.reached(decided, Fate::Halted, END).await;
    let late = json!([{"worker": "c", "round": 1}]);
    assert_eq!(api.job(&id).await["late"], late);
    // Round 2 is not open before c has delivered: it cannot be over without c, however slow c is.
    let of_round_1 = epoch(api, &id, 1).await;
    fleet.go_on("worker-c");
    let report = format!("fedpipe.v1.report.c.{id}.{of_round_1}.{kind}");
    wait::until("c delivers", END, async || {
        tap.held("FEDPIPE_REPORTS", &report).await > 0
    })
    .await;
    points.arm(decided, Fate::Halted);
    fleet.go_on("aggregator");
    points.reached(decided, Fate::Halted, END).await;
    move_aggregator(fleet).await;
    api.succeeded(&id, END).await;
    let rounds = api.rounds(&id).await;
    (id, rounds)
}

/// Where the aggregator keeps its files.
pub fn work_dir(fleet: &Fleet) -> PathBuf {
    let file = fleet.state().join("config/aggregator.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let config: toml::Table = text.parse().unwrap();
    config["work_dir"].as_str().unwrap().into()
}

/// As if the aggregator went on on another machine: what it had made of the scalars when they came is made again.
async fn move_aggregator(fleet: &Fleet) {
    std::fs::remove_dir_all(work_dir(fleet)).unwrap();
    let old = fleet.kill("aggregator");
    fleet.back("aggregator", old).await;
}

/// A round's adapter, and what each site's update weighs in it.
fn merged(round: &Value) -> (&Value, Vec<&Value>) {
    let all = round["workers"].as_array().unwrap().iter();
    let weights = all.map(|worker| &worker["weight"]).collect();
    (&round["adapter"]["sha256"], weights)
}

/// Bytes of what c sent of round 1.
fn bytes_up(rounds: &[Value]) -> u64 {
    let own = &rounds[2]["workers"][2]["metrics"];
    own["bytes_up"].as_u64().unwrap()
}

/// With tensors the site itself says what it came to, and the merge knows no start and no round: both jobs end alike only
/// if the scalars are walked from where c began, along the directions of round 1 and at the rate that c had in it, which
/// is another one in each round.
#[tokio::test]
async fn scalars_that_come_a_round_late_count_as_the_tensors_do_that_their_site_would_have_sent() {
    let patient = Setup {
        // Nobody is given up before the round is over.
        idle: Duration::from_secs(6),
        ..Setup::sites(3)
    };
    let fleet = Fleet::start(&patient).await;
    let tap = Wire::tap(&fleet).await;
    let rounds = json!({"count": 2, "quorum": 2, "deadline": 15, "late": "credit"});
    let asked = |wire: &str| {
        let mezo = json!({"seeds": "per-worker", "wire": wire, "rates": "random"});
        walking(&fleet.model(), &mezo, 2, &rounds)
    };
    let (id, scalars) = credited(&fleet, &tap, &asked("scalars"), Walked::KIND).await;
    let again = with(asked("tensors"), "plan_from", json!(id));
    let (_, tensors) = credited(&fleet, &tap, &again, Updated::KIND).await;

    for all in [&scalars, &tensors] {
        assert_eq!(all.len(), 3);
        assert_eq!(workers(&all[1]), [("a", None), ("b", None)]);
        assert_eq!(workers(&all[2]), [("a", None), ("b", None), ("c", Some(1))]);
        // Another start than c's, so that it matters which one is taken.
        assert_ne!(merged(&all[0]).0, merged(&all[1]).0);
    }
    let sent = [bytes_up(&scalars), bytes_up(&tensors)];
    assert!(sent[0] < 1024 && sent[1] > 4 * 1024, "{sent:?}");
    for (one, other) in scalars.iter().zip(&tensors) {
        assert_eq!(merged(one), merged(other));
    }
}

//! A site that is no longer what it was measured as: it is found out, the plan is made anew between two
//! rounds, and whoever dies meanwhile changes nothing.

use std::time::Duration;

use chassis::failpoint::Failpoint;
use serde_json::{Value, json};
use testkit::wait;
use tests::job::{job, with};
use tests::points::Fate;
use tests::replay::Replay;
use tests::{Fleet, Setup, Wire, full};

const END: Duration = Duration::from_secs(90);

/// How long a process may take to come to a point.
const REACHED: Duration = Duration::from_secs(40);

/// Tokens a second of the site that became slow: some hundred times less than it had.
const SLOW: f64 = 700.0;

/// The farthest that a profile is moved by what one round shows (`profiler/refine.rs`).
const MOVED: f64 = 64.0;

/// Three rounds of four steps whose batch is the planner's choice, on a model known by its digest.
async fn open_job(fleet: &Fleet) -> Value {
    let digest = fleet.push_model().await;
    let job = with(job(&fleet.model()), "model", json!({"digest": digest}));
    let training = json!({"optimizer": "adamw", "local_steps": 4, "sequence_length": 96,
                          "learning_rate": 1e-2, "seed": 7});
    let job = with(job, "training", training);
    with(job, "rounds", json!({"count": 3, "quorum": "all"}))
}

/// A fleet of two sites that were measured, one of which is slow now; and the job that they were measured for.
async fn slowed() -> (Fleet, Value) {
    let setup = Setup {
        reuse_profiles: true,
        ..Setup::sites(2)
    };
    let fleet = Fleet::start(&setup).await;
    let job = open_job(&fleet).await;
    let measured = fleet.api().submit(&job).await;
    fleet.api().succeeded(&measured, END).await;
    fleet.throttle("worker-b", SLOW).await;
    (fleet, job)
}

/// One job makes its own second plan, so that its planner finds what it stored before it died, and makes no third.
#[tokio::test]
async fn a_site_that_became_slow_is_planned_anew_once_whoever_dies_meanwhile() {
    let (fleet, job) = slowed().await;
    let (api, points) = (fleet.api(), fleet.points());
    // Armed while the plan is looked at, for the first plan came by the planner's place too.
    let looked = Failpoint::ProfilerRefineAfterProfiles;
    points.arm(looked, Fate::Halted);
    let id = api.submit(&job).await;
    points.reached(looked, Fate::Halted, END).await;
    let deaths = [
        Failpoint::ProfilerRefineAfterState,
        Failpoint::PlannerPlanAfterPlanStored,
    ];
    for point in deaths {
        points.arm(point, Fate::Killed);
    }
    fleet.all_go_on();
    for point in deaths {
        points.reached(point, Fate::Killed, REACHED).await;
    }
    api.succeeded(&id, END).await;

    // An event is stored once in an epoch, whoever says it again.
    check_events(&fleet, &id).await;
    check_plans(&fleet, &id).await;
    let third = api.get(&format!("/v1/jobs/{id}/plan?version=3")).await;
    assert_eq!(third.status.as_u16(), 404, "{third:?}");
}

/// A replay takes its second plan from the other job, and ends with the same adapter.
#[tokio::test]
async fn a_replay_changes_its_plan_where_the_other_did_and_survives_kills_meanwhile() {
    let (fleet, job) = slowed().await;
    let id = fleet.api().submit(&job).await;
    let digest = fleet.api().succeeded(&id, END).await;

    let job = with(job, "plan_from", json!(id));
    let replay = Replay { fleet, job, digest };
    let mut failures = Vec::new();
    // Whoever owns the job while its plan is looked at, and whoever waits for it.
    let victims = [
        ("profiler", Failpoint::ProfilerRefineAfterProfiles),
        ("planner", Failpoint::ProfilerRefineAfterState),
        ("profiler", Failpoint::ProfilerRefineAfterEvent),
        ("aggregator", Failpoint::ProfilerRefineAfterState),
        ("worker-b", Failpoint::ProfilerRefineAfterProfiles),
        ("nats", Failpoint::ProfilerRefineAfterState),
        ("api", Failpoint::ProfilerRefineAfterEvent),
        ("profiler", Failpoint::ProfilerRefineAfterState),
    ];
    for (victim, point) in victims.into_iter().take(if full() { 8 } else { 2 }) {
        let disturbed = replay.hold(point).await;
        let old = replay.fleet.kill(victim);
        replay.fleet.all_go_on();
        let ended = replay.end(&disturbed).await;
        replay.fleet.back(victim, old).await;
        let case = format!("{victim} killed at {}", point.name());
        failures.extend(ended.err().map(|error| format!("{case}: {error}")));
    }
    // The planner's own places, the second time that the job comes by: armed while it is not there yet.
    let places = [
        Failpoint::PlannerPlanAfterPlanStored,
        Failpoint::PlannerPlanAfterState,
        Failpoint::PlannerPlanAfterPublish,
        Failpoint::AggregatorStartAfterState,
    ];
    for point in places.into_iter().take(if full() { 4 } else { 1 }) {
        let disturbed = replay.hold(Failpoint::ProfilerRefineAfterProfiles).await;
        replay.fleet.points().arm(point, Fate::Killed);
        replay.fleet.all_go_on();
        let ended = replay.end(&disturbed).await;
        let points = replay.fleet.points();
        points.reached(point, Fate::Killed, REACHED).await;
        failures.extend(
            ended
                .err()
                .map(|error| format!("{}: {error}", point.name())),
        );
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Both sites were taken as measured before; the slow one was said to have drifted after two rounds, by how
/// much; then there was another plan, and the third round.
async fn check_events(fleet: &Fleet, id: &str) {
    let events = fleet.api().events(id).await;
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    let expected = [
        "submitted",
        "admitted",
        "reused",
        "reused",
        "profiled",
        "planned",
        "opened",
        "closed",
        "opened",
        "closed",
        "drifted",
        "planned",
        "opened",
        "closed",
        "finished",
    ];
    assert_eq!(names, expected);
    let drifted = &events[10].detail;
    let by = &drifted["by"];
    assert_eq!(
        (&drifted["site"], &by["quantity"]),
        (&json!("b"), &json!("seconds"))
    );
    let figure = |name: &str| by[name].as_f64().unwrap();
    assert!(
        figure("observed") > figure("predicted") + 1.0,
        "{drifted:#}"
    );
    let planned = [&events[5].detail["version"], &events[11].detail["version"]];
    assert_eq!(planned, [&json!(1), &json!(2)]);
}

/// The second plan replaces the first from the third round on, and asks less of the slow site.
async fn check_plans(fleet: &Fleet, id: &str) {
    let second = fleet.api().get(&format!("/v1/jobs/{id}/plan")).await.body;
    assert_eq!(
        (&second["version"], &second["parent"]),
        (&json!(2), &json!(1)),
        "{second:#}"
    );
    assert_eq!(second["from_round"], 3, "{second:#}");
    // Of b alone, whose pace is its limit and not the machine's.
    let plan = &second["workers"]["b"];
    let step = plan["predicted"]["step_seconds"].as_f64().unwrap();
    let predicted = step * plan["local_steps"].as_f64().unwrap();
    let rounds = fleet.api().rounds(id).await;
    let figure = |round: &Value, site: &str, name: &str| {
        let workers = round["workers"].as_array().unwrap();
        let worker = workers.iter().find(|worker| worker["worker"] == site);
        worker.unwrap()["metrics"][name].as_f64().unwrap()
    };
    let computed = |round: &Value| figure(round, "b", "compute_seconds");
    let (before, after) = (computed(&rounds[2]), computed(&rounds[3]));
    assert!(after < 0.8 * before, "{before} s, then {after} s");
    // Modes that the round was not computed in follow it `MOVED` times at most; a, which nothing slows, shows how much
    // more it was.
    let slower = figure(&rounds[2], "a", "tokens_per_second") / SLOW;
    let most = 2.0 * (slower / MOVED).max(1.0);
    assert!(
        (0.5..most).contains(&(after / predicted)),
        "{after} s instead of {predicted} s, {slower} times slower"
    );
}

/// Rounds 1 and 2 show that b has become slow, so that round 3 has another plan. Site c is late for round 2, and
/// delivers in round 3: what it trained by the first plan counts, and is taken for no figure of the second.
#[tokio::test]
async fn a_late_update_counts_under_the_next_plan_as_what_its_own_had_it_train() {
    let patient = Setup {
        idle: Duration::from_secs(6),
        reuse_profiles: true,
        ..Setup::sites(3)
    };
    let fleet = Fleet::start(&patient).await;
    let (api, points) = (fleet.api(), fleet.points());
    let wire = Wire::tap(&fleet).await;
    let job = open_job(&fleet).await;
    let measured = api.submit(&job).await;
    api.succeeded(&measured, END).await;
    fleet.throttle("worker-b", SLOW).await;
    let rounds = json!({"count": 4, "quorum": 2, "deadline": 15, "late": "credit"});
    let decided = Failpoint::AggregatorCloseAfterDecision;
    points.arm(decided, Fate::Halted);
    let id = api.submit(&with(job, "rounds", rounds)).await;
    points.reached(decided, Fate::Halted, END).await;
    fleet.halt("worker-c");
    fleet.go_on("aggregator");
    let open = |job: &Value| job["phase"] == "training" && job["round"] == 2;
    api.until(&id, "round 2 is open", END, open).await;
    points.arm(decided, Fate::Halted);
    points.reached(decided, Fate::Halted, END).await;
    let late = json!([{"worker": "c", "round": 2}]);
    assert_eq!(api.job(&id).await["late"], late);
    // Round 3 stays open until c has delivered.
    let trains = Failpoint::WorkerTrainAfterFirstStep;
    points.arm(trains, Fate::Halted);
    fleet.go_on("aggregator");
    points.reached(trains, Fate::Halted, END).await;
    let job = api.job(&id).await;
    assert_eq!(
        (&job["round"], &job["plan_version"], &job["late"]),
        (&json!(3), &json!(2), &late),
        "{job:#}"
    );
    fleet.go_on("worker-c");
    let events = api.events(&id).await;
    let opened = events.iter().filter(|event| event.name == "opened");
    let of_round_2 = opened.map(|event| event.epoch).nth(1).unwrap();
    let report = format!("fedpipe.v1.report.c.{id}.{of_round_2}.updated");
    wait::until("c delivers", END, async || {
        wire.held("FEDPIPE_REPORTS", &report).await == 1
    })
    .await;
    fleet.all_go_on();
    api.succeeded(&id, END).await;

    let events = api.events(&id).await;
    let drifted = events.iter().filter(|event| event.name == "drifted");
    let drifted: Vec<&Value> = drifted.map(|event| &event.detail["site"]).collect();
    assert_eq!(drifted, ["b"]);
    let mut batches = Vec::new();
    for version in [1, 2] {
        let path = format!("/v1/jobs/{id}/plan?version={version}");
        let plan = api.get(&path).await.body;
        batches.push(plan["workers"]["c"]["batch"].clone());
    }
    let rounds = api.rounds(&id).await;
    let worker = |round: usize, name: &str| {
        let all = rounds[round]["workers"].as_array().unwrap();
        let own = all.iter().find(|worker| worker["worker"] == name);
        own.cloned().unwrap_or_default()
    };
    assert_eq!(worker(2, "c"), Value::Null);
    assert_eq!(worker(3, "b")["trained_in"], Value::Null);
    let late = worker(3, "c");
    assert_eq!(
        (&late["trained_in"], &late["batch"]),
        (&json!(2), &batches[0])
    );
    let again = worker(4, "c");
    assert_eq!(
        (&again["trained_in"], &again["batch"]),
        (&Value::Null, &batches[1]),
        "{batches:?}"
    );
}

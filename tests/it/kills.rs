//! Any process may be killed at any moment: the job ends with the adapter of an undisturbed run.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use chassis::failpoint::Failpoint;
use serde_json::json;
use testkit::wait;
use tests::job::{job, scored, walking, with};
use tests::points::Fate;
use tests::replay::Replay;
use tests::{Setup, bound, full, procs};

/// How long a process may take to come to a point.
const REACHED: Duration = Duration::from_secs(20);

/// A case takes at most so long, from the submission to the end of the job.
const CASE: Duration = Duration::from_secs(8);

/// Every process of a fleet of three sites.
const PROCESSES: [&str; 8] = [
    "api",
    "profiler",
    "planner",
    "aggregator",
    "worker-a",
    "worker-b",
    "worker-c",
    "nats",
];

/// The phases of a job, each held still by halting whoever drives it at this point.
type Phases = [(&'static str, Failpoint); 6];

const PHASES: Phases = [
    ("profiling", Failpoint::WorkerProbeBeforeReport),
    ("planning", Failpoint::PlannerPlanAfterPlanStored),
    ("training", Failpoint::WorkerTrainAfterFirstStep),
    ("uploading", Failpoint::WorkerTrainWhileUploading),
    (
        "all updates stored",
        Failpoint::AggregatorCloseAfterDecision,
    ),
    ("finalizing", Failpoint::AggregatorFinalizeAfterAdapter),
];

/// Those of a zeroth-order job, whose sites walk by two passes for each direction and upload nothing.
const ZEROTH_ORDER_PHASES: Phases = [
    ("profiling", Failpoint::WorkerProbeBeforeReport),
    ("planning", Failpoint::PlannerPlanAfterPlanStored),
    ("walking", Failpoint::WorkerTrainBetweenPasses),
    ("storing scalars", Failpoint::AggregatorIngestAfterScalars),
    (
        "all updates stored",
        Failpoint::AggregatorCloseAfterDecision,
    ),
    ("finalizing", Failpoint::AggregatorFinalizeAfterAdapter),
];

#[tokio::test]
async fn every_process_may_be_killed_in_every_phase() {
    let replay = Replay::prepare(&Setup::sites(3), async |fleet| job(&fleet.model())).await;
    kill_all(&replay, PHASES).await;
}

#[tokio::test]
async fn every_process_may_be_killed_in_every_phase_of_a_zeroth_order_job() {
    let replay = Replay::prepare(&Setup::sites(3), async |fleet| {
        let rounds = json!({"count": 2, "quorum": "all"});
        walking(&fleet.model(), &json!({}), 2, &rounds)
    })
    .await;
    kill_all(&replay, ZEROTH_ORDER_PHASES).await;
}

async fn kill_all(replay: &Replay, phases: Phases) {
    let mut failures = Vec::new();
    for (turn, victim) in PROCESSES.iter().enumerate() {
        for (place, (phase, point)) in phases.iter().enumerate() {
            // Two phases of each process, every phase at least twice.
            let short = (turn + place) % phases.len() < 2;
            let case = format!("{victim} killed while {phase}");
            if !(short || full()) || !chosen(&case) {
                continue;
            }
            let attempt = async || kill_in_phase(replay, victim, *point).await;
            let held = bound::hold_once(&case, CASE, attempt).await;
            failures.extend(held.err().map(|error| format!("{case}: {error}")));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

async fn kill_in_phase(
    replay: &Replay,
    victim: &str,
    point: Failpoint,
) -> Result<Duration, String> {
    let Replay { fleet, .. } = replay;
    let disturbed = if victim.starts_with("worker") && point.name().starts_with("worker") {
        replay.hold_worker(victim, point).await
    } else {
        replay.hold(point).await
    };
    let old = fleet.kill(victim);
    fleet.all_go_on();
    let ended = replay.end(&disturbed).await;
    fleet.back(victim, old).await;
    ended
}

#[tokio::test]
async fn every_fail_point_may_strike() {
    let replay = Replay::prepare(&Setup::sites(3), async |fleet| {
        let digest = fleet.push_model().await;
        with(scored(&fleet.model()), "model", json!({"digest": digest}))
    })
    .await;
    strike_all(&replay, points(Trains::FirstOrder)).await;
}

#[tokio::test]
async fn every_fail_point_may_strike_a_zeroth_order_job() {
    let replay = Replay::prepare(&Setup::sites(3), async |fleet| {
        let digest = fleet.push_model().await;
        let rounds = json!({"count": 2, "quorum": "all"});
        let job = walking(&fleet.model(), &json!({}), 2, &rounds);
        let job = with(job, "evaluation", json!({"choices": [" yes", " no"]}));
        with(job, "model", json!({"digest": digest}))
    })
    .await;
    strike_all(&replay, points(Trains::ZerothOrder)).await;
}

async fn strike_all(replay: &Replay, points: Vec<Failpoint>) {
    let mut failures = Vec::new();
    let points = points.into_iter().filter(|point| chosen(point.name()));
    for point in in_turn(points.collect()) {
        let attempt = async || strike(replay, point).await;
        let held = bound::hold_once(point.name(), CASE, attempt).await;
        failures.extend(held.err().map(|error| format!("{}: {error}", point.name())));
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Whether a case runs: `FEDPIPE_TEST_CASE` chooses those that contain its text.
fn chosen(case: &str) -> bool {
    std::env::var("FEDPIPE_TEST_CASE").map_or(true, |text| case.contains(&text))
}

/// How the sites of a job train.
#[derive(Clone, Copy, PartialEq)]
enum Trains {
    FirstOrder,
    ZerothOrder,
}

impl Trains {
    /// Places where only a job of the other kind comes by.
    fn passes_by(self, point: Failpoint) -> bool {
        let of_scalars = matches!(
            point,
            Failpoint::WorkerTrainBetweenPasses
                | Failpoint::WorkerCatchUpAfterReplay
                | Failpoint::AggregatorIngestAfterScalars
        );
        let of_tensors = matches!(
            point,
            Failpoint::WorkerTrainWhileUploading | Failpoint::AggregatorIngestAfterDownload
        );
        match self {
            Self::FirstOrder => of_scalars,
            Self::ZerothOrder => of_tensors,
        }
    }
}

/// The points of this run: all, or one of each verb, of which a zeroth-order job has its own.
fn points(trains: Trains) -> Vec<Failpoint> {
    // No undisturbed job comes there: cases of their own do, in `retention`, `wedge`, `replan` and `rounds`.
    let by_hand = |point: &&Failpoint| {
        let name = point.name();
        (name.starts_with("api.") && !name.starts_with("api.submit"))
            || name.contains(".fail.")
            || name.contains(".refine.")
            || **point == Failpoint::AggregatorCloseAfterWithdraw
    };
    let all = Failpoint::ALL.iter().filter(|point| !by_hand(point));
    if full() {
        return all
            .copied()
            .filter(|point| !trains.passes_by(*point))
            .collect();
    }
    if trains == Trains::ZerothOrder {
        return vec![
            Failpoint::AggregatorOpenAfterFirstTask,
            Failpoint::AggregatorIngestAfterScalars,
            Failpoint::AggregatorFoldAfterMerge,
            Failpoint::WorkerTrainBetweenPasses,
            Failpoint::WorkerTrainAfterSeal,
            Failpoint::WorkerCatchUpAfterReplay,
        ];
    }
    vec![
        Failpoint::ApiSubmitAfterState,
        Failpoint::ProfilerAdmitAfterState,
        Failpoint::ProfilerProfiledAfterState,
        Failpoint::PlannerPlanAfterState,
        Failpoint::AggregatorStartAfterState,
        Failpoint::AggregatorCloseAfterPublish,
        Failpoint::AggregatorFoldAfterArtifact,
        Failpoint::AggregatorFinalizeAfterState,
        Failpoint::WorkerModelWhileLoading,
        Failpoint::WorkerTrainAfterFirstStep,
        Failpoint::WorkerTrainAfterReport,
        Failpoint::WorkerEvaluateBeforeReport,
    ]
}

/// Whoever dies often stays down longer each time, so one service's points do not follow each other.
fn in_turn(points: Vec<Failpoint>) -> Vec<Failpoint> {
    let mut services: BTreeMap<&str, VecDeque<Failpoint>> = BTreeMap::new();
    for point in points {
        let service = point.name().split('.').next().unwrap_or_default();
        services.entry(service).or_default().push_back(point);
    }
    let mut order: Vec<Failpoint> = Vec::new();
    let mut last = "";
    loop {
        let left = services.iter_mut().filter(|(_, points)| !points.is_empty());
        let best = left.max_by_key(|(service, points)| (**service != last, points.len()));
        let Some((service, points)) = best else {
            return order;
        };
        last = service;
        order.extend(points.pop_front());
    }
}

async fn strike(replay: &Replay, point: Failpoint) -> Result<Duration, String> {
    let Replay { fleet, .. } = replay;
    if point.name().starts_with("worker.model") {
        // A worker that has just started has no model yet.
        let old = fleet.kill("worker-a");
        fleet.back("worker-a", old).await;
    }
    fleet.points().arm(point, Fate::Killed);
    let disturbed = replay.begin().await;
    let ended = replay.end(&disturbed).await;
    if point.name().contains(".settle.") || point.name().contains("finalize.after_") {
        // These come after the end that the API shows, or with it.
        fleet.points().reached(point, Fate::Killed, REACHED).await;
    }
    if fleet.points().disarm(point, Fate::Killed) {
        return Err("nobody came there".to_owned());
    }
    wait::until("everybody is back", REACHED, async || {
        let now = fleet.processes();
        now.len() == PROCESSES.len() && now.values().all(|pid| procs::is_alive(*pid))
    })
    .await;
    ended
}

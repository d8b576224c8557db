//! No job is ever stuck: it goes on, or it ends with a cause that names the site.

use std::time::Duration;

use chassis::clock::Stopwatch;
use chassis::failpoint::Failpoint;
use serde_json::{Value, json};
use testkit::wait;
use tests::job::{job, with};
use tests::points::Fate;
use tests::replay::Replay;
use tests::{Fleet, Setup, Site, bound, procs};

const END: Duration = Duration::from_secs(40);
/// Within this time the API says which site and why.
const VISIBLE: Duration = Duration::from_secs(10);

fn impatient(sites: u8) -> Setup {
    Setup {
        idle: Duration::from_secs(1),
        ..Setup::sites(sites)
    }
}

/// A round that waits until a site of those is given up takes at least its three idle intervals.
const A_WAIT: f64 = 3.0;

fn names(job: &Value, site: &str, word: &str) -> bool {
    let told = |entry: &Value| entry["worker"] == site && entry.to_string().contains(word);
    let told_of = |key: &str| job[key].as_array().is_some_and(|all| all.iter().any(told));
    told_of("waiting_for")
        || told_of("sites")
        || job["cause"]["sites"]
            .as_array()
            .is_some_and(|all| all.iter().any(told))
}

async fn runs_normally(fleet: &Fleet) {
    let id = fleet.api().submit(&job(&fleet.model())).await;
    fleet.api().succeeded(&id, END).await;
}

#[tokio::test]
async fn a_site_that_is_gone_for_good_costs_one_wait_and_no_more() {
    let fleet = Fleet::start(&impatient(3)).await;
    let api = fleet.api();
    let rounds = json!({"count": 5, "quorum": 2});
    fleet
        .points()
        .arm(Failpoint::PlannerPlanAfterPlanStored, Fate::Halted);
    let id = api
        .submit(&with(job(&fleet.model()), "rounds", rounds))
        .await;
    let point = Failpoint::PlannerPlanAfterPlanStored;
    fleet.points().reached(point, Fate::Halted, END).await;
    fleet.halt("worker-c");
    fleet.go_on("planner");
    let told = |job: &Value| names(job, "c", "unreachable");
    api.until(&id, "c is named", VISIBLE, told).await;
    api.succeeded(&id, END).await;
    let seconds: Vec<f64> = api.rounds(&id).await[1..]
        .iter()
        .map(|round| round["seconds"].as_f64().unwrap())
        .collect();
    assert!(seconds[0] < 10.0, "{seconds:?}");
    let waits = |round: &f64| *round >= A_WAIT;
    assert!(!seconds[1..].iter().any(waits), "{seconds:?}");
    fleet.go_on("worker-c");
    runs_normally(&fleet).await;
}

#[tokio::test]
async fn a_worker_that_dies_while_loading_is_named_with_the_cause() {
    let fleet = Fleet::start(&impatient(2)).await;
    let api = fleet.api();
    let only_a = with(
        job(&fleet.model()),
        "data",
        json!({"dataset": "mail", "sites": ["a"]}),
    );
    let (points, point) = (fleet.points(), Failpoint::WorkerModelWhileLoading);
    points.arm(point, Fate::Halted);
    let id = api.submit(&only_a).await;
    points.reached(point, Fate::Halted, END).await;
    let since_the_first = Stopwatch::start();
    // It stands there while the next death is prepared: started again, it would be past the place.
    for _ in 0..2 {
        points.arm(point, Fate::Halted);
        fleet.kill("worker-a");
        points.reached(point, Fate::Halted, END).await;
    }
    fleet.kill("worker-a");
    let ended = api.ended(&id, VISIBLE).await;
    let took = Duration::from_millis(since_the_first.elapsed_ms());
    bound::hold("from the first death to the cause", took, VISIBLE).unwrap();
    assert_eq!(ended["phase"], "failed");
    assert!(names(&ended, "a", "crashed"), "{ended:#}");
    assert!(
        ended["cause"].to_string().contains("loading the model"),
        "{ended:#}"
    );
    runs_normally(&fleet).await;
}

#[tokio::test]
async fn a_worker_that_dies_before_it_has_said_why_says_it_afterwards() {
    let fleet = Fleet::start(&impatient(1)).await;
    let point = Failpoint::WorkerFailAfterSeal;
    fleet.points().arm(point, Fate::Killed);
    let missing = job(&fleet.folder().join("nowhere"));
    let id = fleet.api().submit(&missing).await;
    fleet.points().reached(point, Fate::Killed, END).await;
    let ended = fleet.api().ended(&id, VISIBLE).await;
    assert!(names(&ended, "a", "model_unusable"), "{ended:#}");
    assert_eq!(fleet.deaths("worker-a"), 1);
    runs_normally(&fleet).await;
}

#[tokio::test]
async fn fewer_sites_than_the_quorum_are_said_and_the_job_ends_by_its_deadline() {
    let fleet = Fleet::start(&impatient(2)).await;
    let api = fleet.api();
    let asked = with(
        job(&fleet.model()),
        "rounds",
        json!({"count": 1, "quorum": 3}),
    );
    let id = api.submit(&with(asked, "deadline_seconds", json!(5))).await;
    let told = |job: &Value| {
        job["queue"]["reason"]
            .as_str()
            .is_some_and(|why| why.contains('3'))
    };
    api.until(&id, "the queue says why", VISIBLE, told).await;
    let ended = api.ended(&id, Duration::from_secs(10)).await;
    assert_eq!(ended["cause"]["kind"], "deadline_passed", "{ended:#}");
    runs_normally(&fleet).await;
}

#[tokio::test]
async fn a_network_that_is_gone_for_longer_than_an_upload_changes_nothing() {
    let replay = Replay::prepare(&impatient(3), async |fleet| job(&fleet.model())).await;
    let Replay { fleet, .. } = &replay;
    let point = Failpoint::WorkerTrainWhileUploading;
    fleet.points().arm(point, Fate::Halted);
    let disturbed = replay.begin().await;
    fleet.points().reached(point, Fate::Halted, END).await;
    let nats = fleet.pid("nats");
    fleet.halt("nats");
    let others = fleet.processes();
    let stopped = others
        .values()
        .filter(|pid| **pid != nats && procs::is_stopped(**pid));
    stopped.for_each(|pid| procs::signal(*pid, rustix::process::Signal::CONT));
    // Three idle intervals give a site up; this is longer.
    let away = Duration::from_secs(8);
    let gone = wait::until("NATS dies", END, async || !procs::is_alive(nats));
    wait::never("NATS ended instead of standing still", away, gone).await;
    fleet.all_go_on();
    replay.end(&disturbed).await.unwrap();
}

#[tokio::test]
async fn pauses_come_twice_and_at_any_moment() {
    let replay = Replay::prepare(&Setup::sites(2), async |fleet| {
        with(job(&fleet.model()), "rounds", json!({"count": 3}))
    })
    .await;
    let Replay { fleet, .. } = &replay;
    let (api, point) = (fleet.api(), Failpoint::WorkerTrainAfterFirstStep);

    fleet.points().arm(point, Fate::Halted);
    let disturbed = replay.begin().await;
    let id = &disturbed.id;
    fleet.points().reached(point, Fate::Halted, END).await;
    for _ in 0..2 {
        let answer = api.order(id, "pause").await;
        assert!(answer.status.is_success(), "{answer:?}");
    }
    fleet.all_go_on();
    api.phase(id, "paused", END).await;
    // Armed while the job stands: what is left of it is over in a moment.
    fleet.points().arm(point, Fate::Halted);
    for _ in 0..2 {
        let answer = api.order(id, "resume").await;
        assert!(answer.status.is_success(), "{answer:?}");
    }

    fleet.points().reached(point, Fate::Halted, END).await;
    let answer = api.order(id, "pause?now=true").await;
    assert_eq!(answer.body["phase"], "paused", "{answer:?}");
    fleet.all_go_on();
    api.order(id, "resume").await;
    replay.end(&disturbed).await.unwrap();
}

#[tokio::test]
async fn killing_the_api_in_an_order_loses_no_order() {
    let replay = Replay::prepare(&Setup::sites(2), async |fleet| job(&fleet.model())).await;
    let Replay { fleet, .. } = &replay;
    let hold = Failpoint::WorkerTrainAfterFirstStep;
    fleet.points().arm(hold, Fate::Halted);
    let disturbed = replay.begin().await;
    fleet.points().reached(hold, Fate::Halted, END).await;
    fleet
        .points()
        .arm(Failpoint::ApiPauseAfterState, Fate::Killed);
    fleet.api().order(&disturbed.id, "pause?now=true").await;
    fleet.api().phase(&disturbed.id, "paused", END).await;
    fleet.all_go_on();
    fleet
        .points()
        .arm(Failpoint::ApiResumeAfterState, Fate::Killed);
    fleet.api().order(&disturbed.id, "resume").await;
    replay.end(&disturbed).await.unwrap();

    fleet.points().arm(hold, Fate::Halted);
    let second = replay.begin().await;
    fleet.points().reached(hold, Fate::Halted, END).await;
    fleet
        .points()
        .arm(Failpoint::ApiCancelAfterState, Fate::Killed);
    fleet.api().order(&second.id, "cancel").await;
    // What is decided and said; only the workers were not told.
    fleet
        .points()
        .arm(Failpoint::ApiControlAfterPublish, Fate::Killed);
    fleet.api().order(&second.id, "cancel").await;
    fleet.all_go_on();
    let ended = fleet.api().ended(&second.id, END).await;
    assert_eq!(ended["phase"], "cancelled");
    for point in [
        Failpoint::ApiPauseAfterState,
        Failpoint::ApiResumeAfterState,
        Failpoint::ApiCancelAfterState,
        Failpoint::ApiControlAfterPublish,
    ] {
        assert!(
            !fleet.points().disarm(point, Fate::Killed),
            "{} was not reached",
            point.name()
        );
    }
    runs_normally(fleet).await;
}

#[tokio::test]
async fn three_jobs_on_two_sites_run_in_the_order_of_their_submission() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let api = fleet.api();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(api.submit(&job(&fleet.model())).await);
    }
    let mut spans = Vec::new();
    for id in &ids {
        api.succeeded(id, END).await;
        let events = api.events(id).await;
        let place = |name: &str| events.iter().find(|event| event.name == name).unwrap().id;
        spans.push((place("admitted"), place("finished")));
    }
    assert!(spans.windows(2).all(|two| two[0].1 < two[1].0), "{spans:?}");
}

#[tokio::test]
#[ignore = "a minute and several GB; `./run test --full`"]
async fn many_workers_start_at_once_and_one_job_takes_them_all() {
    let sites: Vec<Site> = (0..144)
        .map(|number| Site::new(&format!("w{number}")))
        .collect();
    let setup = Setup {
        sites,
        idle: Duration::from_secs(10),
        ..Setup::sites(0)
    };
    let fleet = Fleet::start(&setup).await;
    let id = fleet
        .api()
        .submit(&with(job(&fleet.model()), "deadline_seconds", json!(600)))
        .await;
    fleet.api().succeeded(&id, Duration::from_secs(300)).await;
    let rounds = fleet.api().rounds(&id).await;
    for round in &rounds[1..] {
        assert_eq!(round["workers"].as_array().unwrap().len(), 144);
    }
    let worst = fleet
        .processes()
        .values()
        .map(|pid| procs::resident_bytes(*pid))
        .max();
    assert!(worst.unwrap() < 200 << 20, "{worst:?}");
}

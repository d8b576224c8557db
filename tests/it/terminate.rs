//! Processes that are told to end: they end in time and in order, and what was trained is not trained again.

use std::time::Duration;

use chassis::clock::Stopwatch;
use serde_json::{Value, json};
use testkit::wait;
use tests::job::{job, walking, with};
use tests::replay::Replay;
use tests::{Setup, Site, bound, procs};

const SOON: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(60);

/// What every service has at least, from SIGTERM to its end: `terminationGracePeriodSeconds` of the chart's
/// control services, which is less than a worker's.
const GRACE: Duration = Duration::from_secs(30);

/// What it takes in truth.
const DRAIN: Duration = Duration::from_secs(6);

/// Steps after which a worker is told to end, of 24.
const SOME: u64 = 5;

/// Tells a process to end; how long it took to. It has to have ended well.
async fn terminate(replay: &Replay, name: &str) -> Duration {
    let fleet = &replay.fleet;
    let watch = Stopwatch::start();
    let old = fleet.terminate(name);
    let what = format!("{name} ends");
    let ends = wait::until(&what, GRACE + SOON, async || !procs::is_alive(old));
    assert!(
        tokio::time::timeout(GRACE, ends).await.is_ok(),
        "{name} outlives its grace"
    );
    let took = Duration::from_millis(watch.elapsed_ms());
    fleet.back(name, old).await;
    let last = fleet.statuses(name).pop();
    assert_eq!(last.as_deref(), Some("exit code 0"), "{name}");
    took
}

/// Waits until the site has made some steps of the job's first round.
async fn some_steps(replay: &Replay, id: &str, site: &str) {
    let far = |job: &Value| {
        let sites = job["sites"].as_array().cloned().unwrap_or_default();
        sites.iter().any(|one| {
            let done = one["progress"]["done"].as_u64();
            one["worker"] == site && one["stage"] == "training" && done >= Some(SOME)
        })
    };
    let api = replay.fleet.api();
    api.until(id, "it has made some steps", SOON, far).await;
}

/// A worker that is told to end in the middle of a round hands its task back, and goes on with it where it stood. How long
/// it took to end.
async fn goes_on(replay: &Replay) -> Duration {
    let before = replay.fleet.log("worker-a").len();
    let disturbed = replay.begin().await;
    some_steps(replay, &disturbed.id, "a").await;
    let took = terminate(replay, "worker-a").await;
    replay.end(&disturbed).await.unwrap();
    let log = replay.fleet.log("worker-a").split_off(before);
    let steps = |what: &str| {
        let mut lines = log.lines().filter(|line| line.contains(what));
        let line = lines.next().unwrap_or_else(|| panic!("{what}:\n{log}"));
        let (_, rest) = line.split_once("steps").unwrap();
        let digits = rest.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap()
    };
    let kept = steps("the round is kept as far as it came");
    assert!(kept >= SOME, "{kept} steps");
    assert_eq!(steps("the round goes on"), kept);
    took
}

#[tokio::test]
async fn whoever_is_told_to_end_ends_in_time_and_the_job_with_the_same_adapter() {
    let mut setup = Setup::sites(2);
    // Its progress is told each second, and the round lasts for some of them.
    setup.sites[0] = Site::new("a").line("throttle_tokens_per_second = 800");
    let one_round = json!({"count": 1, "quorum": "all"});
    let by_gradients = async |fleet: &tests::Fleet| {
        let mut job = with(job(&fleet.model()), "rounds", one_round.clone());
        job["training"]["local_steps"] = json!(24);
        job
    };
    let replay = Replay::prepare(&setup, by_gradients).await;
    let attempt = async || Ok(goes_on(&replay).await);
    bound::hold_once("worker-a, adamw", DRAIN, attempt)
        .await
        .unwrap();

    // While it trains, everybody else.
    let disturbed = replay.begin().await;
    for name in ["aggregator", "planner", "profiler", "api"] {
        let attempt = async || Ok(terminate(&replay, name).await);
        bound::hold_once(name, DRAIN, attempt).await.unwrap();
    }
    replay.end(&disturbed).await.unwrap();

    let fleet = replay.fleet;
    let by_passes = walking(&fleet.model(), &json!({}), 24, &one_round);
    let id = fleet.api().submit(&by_passes).await;
    let digest = fleet.api().succeeded(&id, END).await;
    let job = with(by_passes, "plan_from", json!(id));
    let replay = Replay { fleet, job, digest };
    let attempt = async || Ok(goes_on(&replay).await);
    bound::hold_once("worker-a, mezo", DRAIN, attempt)
        .await
        .unwrap();
}

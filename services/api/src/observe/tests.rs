//! What is shown of a fleet and its jobs.

use chassis::telemetry::{JOBS_SHOWN, Metric, Picture, WORKERS_SHOWN};
use domain::fleet::{Beat, Stage};
use domain::id::{InstanceId, JobId};
use domain::job::{Job, Phase};
use domain::time::UnixMillis;

use super::ledger::{Entry, committed};
use super::{Seen, picture, shown};
use crate::explain::fixture::{artifact, beat, beat_on, job, registration, training};
use crate::watch::Watch;

const NOW: UnixMillis = UnixMillis(100_000);

fn held(mut job: Job) -> Job {
    let holder: InstanceId = "aggregator-1".parse().expect("legal");
    job.claim(&holder, NOW, NOW.plus(10_000));
    job
}

fn watch(jobs: Vec<Job>, workers: &[&str]) -> Watch {
    let watch = Watch::new(UnixMillis(0));
    jobs.into_iter().for_each(|job| watch.job(job));
    let registrations = workers.iter().map(|name| registration(name, "mail"));
    registrations.for_each(|one| watch.worker(one, UnixMillis(0)));
    watch
}

fn look(watch: &Watch, seen: &Seen) -> Picture {
    picture(&watch.read(), seen, NOW)
}

/// What a job waits for, as `site:what`.
fn waits(picture: &Picture) -> Vec<String> {
    let waits = picture.of(Metric::JobWaiting);
    waits.map(|(labels, _)| labels[1..].join(":")).collect()
}

#[test]
fn a_worker_is_shown_as_its_beats_say() {
    let job = held(training(1, &["works", "gone"]));
    let watch = watch(vec![job.clone()], &["works", "gone", "idle"]);
    watch.beat(beat_on("works", &job, Stage::Training), UnixMillis(98_000));
    let tried_again = Beat {
        retries: 4,
        ..beat_on("works", &job, Stage::Training)
    };
    watch.beat(tried_again, UnixMillis(99_000));
    watch.beat(beat("gone"), UnixMillis(80_000));
    watch.beat(beat("idle"), UnixMillis(99_000));
    let picture = look(&watch, &Seen::default());
    let of = |metric, labels: &[&str]| picture.get(metric, labels);
    assert_eq!(of(Metric::WorkerUp, &["works"]), Some(1.0));
    assert_eq!(of(Metric::WorkerUp, &["gone"]), Some(0.0));
    assert_eq!(of(Metric::WorkerBeatAge, &["gone"]), Some(20.0));
    assert_eq!(of(Metric::WorkerProgressAge, &["works"]), Some(2.0));
    assert_eq!(of(Metric::WorkerProgressAge, &["idle"]), Some(0.0));
    assert_eq!(of(Metric::WorkerStage, &["works", "training"]), Some(1.0));
    assert_eq!(of(Metric::WorkerStage, &["gone", "idle"]), None);
    assert_eq!(of(Metric::WorkerTokens, &["works"]), Some(100.0));
    assert_eq!(of(Metric::WorkerTokens, &["idle"]), None);
    assert_eq!(of(Metric::WorkerRetries, &["works"]), Some(4.0));
    assert_eq!(of(Metric::WorkerRetries, &["idle"]), Some(0.0));
    assert_eq!(of(Metric::WorkerRetries, &["gone"]), None);
}

#[test]
fn what_a_job_waits_for_is_told_in_one_word_for_each_site() {
    let job = held(training(1, &["works", "silent", "away"]));
    let id = job.id.clone();
    let watch = watch(vec![job.clone()], &["works", "silent", "away"]);
    watch.beat(beat_on("works", &job, Stage::Uploading), NOW);
    watch.beat(beat_on("away", &training(2, &[]), Stage::Training), NOW);
    let seen = look(&watch, &Seen::default());
    assert_eq!(
        waits(&seen),
        ["away:elsewhere", "silent:unreachable", "works:uploading"]
    );
    assert_eq!(seen.get(Metric::JobIdle, &[id.as_str()]), Some(0.0));
}

#[test]
fn a_job_without_anybody_at_work_stands_still_and_a_paused_one_does_not() {
    let mut planning = job(1, &["a"]);
    planning.phase = Phase::Planning { resume: None };
    planning.phase_since = UnixMillis(40_000);
    let mut paused = held(training(2, &["a"]));
    paused.pause(UnixMillis(50_000)).expect("legal");
    let (planned, waiting) = (planning.id.clone(), paused.id.clone());
    let seen = look(&watch(vec![planning, paused], &["a"]), &Seen::default());
    assert_eq!(seen.get(Metric::JobIdle, &[planned.as_str()]), Some(60.0));
    assert_eq!(seen.get(Metric::JobIdle, &[waiting.as_str()]), Some(0.0));
    assert_eq!(waits(&seen), [":owner", ":resume"]);
}

#[test]
fn a_committed_round_is_shown_beside_its_plan() {
    let job = held(training(1, &["a"]));
    let id = job.id.clone();
    let summary = serde_json::json!({
        "round": 1, "global": artifact(), "opened_at": 0, "committed_at": 5000, "seconds": 5.0,
        "overhead_seconds": 1.5, "dropped_energy": 0.25, "missing": [],
        "workers": [{ "worker": "a", "rank": 4, "batch": 2, "weight": 1.0, "update": artifact(), "metrics": {
            "records": 8, "tokens": 100, "loss": 2.5, "steps": 4, "compute_seconds": 3.5,
            "tokens_per_second": 28.5, "peak_memory_bytes": 4096, "bytes_up": 10, "bytes_down": 20,
            "control_bytes_up": 30,
        } }],
    });
    let mut seen = Seen::default();
    let entry = Entry {
        round: Some(serde_json::from_value(summary).expect("a round")),
        ..Entry::default()
    };
    seen.ledger.insert(&id, entry);
    let picture = look(&watch(vec![job], &["a"]), &seen);
    let of = |metric| picture.get(metric, &[id.as_str()]);
    assert_eq!(of(Metric::JobRound), Some(1.0));
    assert_eq!(of(Metric::JobRoundSeconds), Some(5.0));
    assert_eq!(of(Metric::JobDroppedEnergy), Some(0.25));
    assert_eq!(of(Metric::JobAccuracy), None);
    let site = |metric| picture.get(metric, &[id.as_str(), "a"]);
    assert_eq!(site(Metric::SiteLoss), Some(2.5));
    assert_eq!(site(Metric::SiteMemoryPeak), Some(4096.0));
    assert_eq!(site(Metric::SitePlannedMemory), None);
}

#[test]
fn the_last_committed_round_follows_from_the_phase() {
    let mut job = training(1, &["a"]);
    assert_eq!(committed(&job), Some(1));
    job.phase = Phase::Evaluating {
        round: 2,
        global: artifact(),
        deadline: NOW,
    };
    assert_eq!(committed(&job), Some(2));
    job.pause(NOW).expect("legal");
    assert_eq!(committed(&job), Some(2));
    job.phase = Phase::Queued;
    assert_eq!(committed(&job), None);
    job.phase = Phase::Finalizing {
        global: artifact(),
        kept: None,
    };
    assert_eq!(committed(&job), Some(job.spec.rounds.count));
}

#[test]
fn many_jobs_and_workers_are_shown_within_bounds_and_the_rest_is_counted() {
    let ended = |mut job: Job, at| {
        job.phase = Phase::Cancelled;
        job.phase_since = at;
        job
    };
    let count = JOBS_SHOWN as u64 + 2;
    let mut jobs: Vec<Job> = (1..count).map(|number| job(number, &[])).collect();
    jobs.push(ended(job(900, &[]), NOW));
    jobs.push(ended(job(901, &[]), UnixMillis(0)));
    let names: Vec<String> = (0..WORKERS_SHOWN + 5).map(|n| format!("w{n:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let picture = look(&watch(jobs, &names), &Seen::default());
    assert_eq!(picture.of(Metric::JobIdle).count(), JOBS_SHOWN);
    assert_eq!(picture.of(Metric::WorkerUp).count(), WORKERS_SHOWN);
    // One job that has not ended, two that have not long ago, and five workers.
    assert_eq!(picture.left_out(), 3 + 5);
    let oldest = JobId::from_bits(1);
    assert_eq!(picture.get(Metric::JobIdle, &[oldest.as_str()]), None);
}

#[test]
fn a_job_in_need_is_shown_however_many_newer_ones_there_are() {
    let newer = (10..).take(JOBS_SHOWN + 5);
    let mut jobs: Vec<Job> = newer.map(|number| job(number, &[])).collect();
    let mut still = held(training(1, &["a"]));
    still.phase_since = UnixMillis(10_000);
    let mut held_up = held(training(2, &["b"]));
    held_up.phase_since = NOW;
    held_up.hold("no space left".to_owned(), UnixMillis(20_000));
    let mut works = held(training(3, &["c"]));
    works.phase_since = UnixMillis(0);
    let mut young = held(training(4, &["d"]));
    young.phase_since = UnixMillis(50_000);
    let at_work = beat_on("c", &works, Stage::Training);
    let [first, second, third, fourth] =
        [&still, &held_up, &works, &young].map(|job| job.id.clone());
    jobs.extend([still, held_up, works, young]);
    let watch = watch(jobs, &["a", "b", "c", "d"]);
    watch.beat(at_work, UnixMillis(99_000));
    let picture = look(&watch, &Seen::default());
    let of = |metric, id: &JobId| picture.get(metric, &[id.as_str()]);
    assert_eq!(of(Metric::JobIdle, &first), Some(90.0));
    assert_eq!(of(Metric::JobHeld, &second), Some(80.0));
    // One moved a second ago, the other has not stood still for long: newer ones come first.
    assert_eq!(of(Metric::JobIdle, &third), None);
    assert_eq!(of(Metric::JobIdle, &fourth), None);
    let known = watch.read();
    let ids: Vec<&JobId> = shown::jobs(&known, NOW)
        .0
        .iter()
        .map(|job| &job.id)
        .collect();
    assert_eq!(ids.len(), JOBS_SHOWN);
    assert_eq!(ids[..2], [&first, &second]);
}

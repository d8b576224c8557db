//! `fedpipe simulate`: the services' own result without the services, and time on a clock of its own.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::command::{Ended, fedpipe};
use tests::job::{job, scored, walking, with};
use tests::{Fleet, Setup, archive};

const END: Duration = Duration::from_secs(60);

/// A fleet that nobody started: a tiny model, tiny data, and a file that says what each site plays.
struct Played {
    folder: TempDir,
}

impl Played {
    /// Sites `a`, `b`, … each with these lines of its table.
    fn sites(lines: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        testkit::model::tiny(&folder.path().join("model"), 1).unwrap();
        let mut fleet = String::new();
        for (name, lines) in ('a'..='z').zip(lines) {
            let mails = testkit::data::mails(folder.path(), &name.to_string(), 24, 1).unwrap();
            let (train, held_out) = (mails.train.display(), mails.held_out.display());
            writeln!(
                fleet,
                "[[workers]]\nname = \"{name}\"\nthreads = 1\n{lines}\n[workers.datasets.mail]\n\
                 train = \"{train}\"\nheld_out = \"{held_out}\"\n"
            )
            .unwrap();
        }
        fs::write(folder.path().join("fleet.toml"), fleet).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The tiny job; what a site measures of its speed has no say in it.
    fn job(&self) -> Value {
        let mut job = scored(&self.path("model"));
        job["adapter"]["rank"] = json!(8);
        job
    }

    async fn run(&self, job: &Value, flags: &[&str]) -> Ended {
        fs::write(self.path("job.json"), job.to_string()).unwrap();
        simulate(&self.path("fleet.toml"), &self.path("job.json"), flags).await
    }
}

/// The job on the fleet of these files.
pub async fn simulate(fleet: &Path, job: &Path, flags: &[&str]) -> Ended {
    let (fleet, job) = (fleet.to_str().unwrap(), job.to_str().unwrap());
    let mut words = vec!["simulate", "--fleet", fleet, "--job", job];
    words.extend(["--quantized-cache", "none", "--json"]);
    words.extend(flags);
    fedpipe(&words).await
}

fn seconds(site: &Value) -> f64 {
    site["spent"]["seconds"].as_f64().unwrap()
}

#[tokio::test]
async fn without_emulation_it_makes_the_running_services_adapter_byte_for_byte() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let mut asked = scored(&fleet.model());
    // Fixed, because what a plan leaves open follows from speeds that no two measurements share.
    asked["adapter"]["rank"] = json!(8);
    let id = fleet.api().submit(&asked).await;
    let digest = fleet.api().succeeded(&id, END).await;

    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.json");
    fs::write(&job, asked.to_string()).unwrap();
    let out = folder.path().join("adapter");
    let flags = ["--out", out.to_str().unwrap()];
    let report = simulate(&fleet.folder().join("fleet.toml"), &job, &flags)
        .await
        .json();

    assert_eq!(report["run"]["adapter"]["sha256"], digest);
    let written = fs::read(out.join("adapter_model.safetensors")).unwrap();
    assert_eq!(archive::digest(&written), digest);
    let kept = fs::read(out.join("report.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&kept).unwrap(), report);
    let config = fs::read(out.join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["r"], 8);

    let rounds = fleet.api().rounds(&id).await;
    let simulated = report["run"]["rounds"].as_array().unwrap();
    assert_eq!(simulated.len() + 1, rounds.len());
    check_score(&report["run"]["start"], &rounds[0]);
    for (round, real) in simulated.iter().zip(&rounds[1..]) {
        assert_eq!(round["global"], real["adapter"]["sha256"], "{real:#}");
        check_score(&round["score"], real);
        let pairs = round["workers"].as_array().unwrap().iter();
        for (worker, real) in pairs.zip(real["workers"].as_array().unwrap()) {
            assert_eq!(worker["worker"], real["worker"]);
            assert_eq!(worker["loss"], real["metrics"]["loss"]);
            assert_eq!(worker["tokens"], real["metrics"]["tokens"]);
        }
    }
}

#[tokio::test]
async fn a_played_zeroth_order_job_ends_in_the_running_services_adapter_too() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    for (count, mezo) in [
        (3, json!({"rates": "model-difference", "trim": 0.34})),
        (3, json!({"seeds": "per-worker", "rates": "round-loss"})),
        // The rates of the seventh round are the first that the first does not count in.
        (7, json!({"rates": "five-round-loss"})),
    ] {
        let rounds = json!({"count": count, "quorum": "all"});
        let mut asked = walking(&fleet.model(), &mezo, 2, &rounds);
        asked["evaluation"] = json!({"choices": [" yes", " no"]});
        let id = fleet.api().submit(&asked).await;
        let digest = fleet.api().succeeded(&id, END).await;
        let folder = tempfile::tempdir().unwrap();
        let job = folder.path().join("job.json");
        fs::write(&job, asked.to_string()).unwrap();
        let fleet_file = fleet.folder().join("fleet.toml");
        let report = simulate(&fleet_file, &job, &[]).await.json();
        assert_eq!(report["run"]["adapter"]["sha256"], digest, "{mezo}");
        for round in report["run"]["rounds"].as_array().unwrap() {
            for worker in round["workers"].as_array().unwrap() {
                assert!(worker["update_bytes"].as_u64().unwrap() < 1024);
                let slopes = &worker["slopes"];
                if mezo["seeds"] == "per-worker" {
                    assert!(slopes.is_null(), "the update is an adapter: {slopes}");
                } else {
                    assert_eq!(slopes["directions"], 2, "one of each step: {slopes}");
                    assert!(slopes["mean_square"].as_f64().unwrap() > 0.0, "{slopes}");
                }
            }
        }
    }
}

fn check_score(score: &Value, real: &Value) {
    let real = &real["evaluation"];
    for figure in ["records", "loss", "balanced_accuracy"] {
        assert_eq!(score[figure], real[figure], "{score:#} {real:#}");
    }
}

#[tokio::test]
async fn a_share_of_the_speed_and_a_slow_link_take_their_time_on_the_clock_alone() {
    // 100 tokens a second, which any machine here passes, so that every figure is known.
    let played = Played::sites(&[
        "throttle_tokens_per_second = 100",
        "throttle_tokens_per_second = 50\nbandwidth_limit = \"10KiB\"",
    ]);
    let report = played
        .run(&played.job(), &["--round-trip", "500ms"])
        .await
        .json();
    let run = &report["run"];
    let mut ends_at = 0.0;
    for round in run["rounds"].as_array().unwrap() {
        let [a, b] = round["workers"].as_array().unwrap().as_slice() else {
            panic!("two sites: {round:#}");
        };
        for (site, rate, link) in [(a, 100.0, None), (b, 50.0, Some(10_240.0))] {
            let tokens = site["tokens"].as_f64().unwrap();
            let spent = &site["spent"];
            close(&spent["compute_seconds"], tokens / rate);
            close(&spent["round_trip_seconds"], 1.0);
            let sent = |bytes: f64| link.map_or(0.0, |rate| bytes / rate);
            let up = site["update_bytes"].as_f64().unwrap();
            close(&spent["upload_seconds"], sent(up));
            let down = run["adapter"]["bytes"].as_f64().unwrap();
            close(&spent["download_seconds"], sent(down));
            let parts = ["compute", "download", "upload", "round_trip"];
            let parts = parts.map(|part| spent[format!("{part}_seconds")].as_f64().unwrap());
            close(&spent["seconds"], parts.iter().sum());
        }
        let (slow, fast) = (seconds(b), seconds(a));
        assert!(slow > fast);
        close(&round["together"]["apart"], (slow - fast) / slow);
        close(&a["wait_seconds"], slow - fast);
        close(&b["wait_seconds"], 0.0);
        close(&round["began_at"], ends_at);
        ends_at += slow + round["merge_seconds"].as_f64().unwrap();
        close(&round["ends_at"], ends_at);
    }
    close(&run["seconds"], ends_at);
    let here = run["real_seconds"].as_f64().unwrap();
    assert!(here < ends_at, "{here} s passed here, {ends_at} s there");
}

fn close(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-6, "{found} and {expected}");
}

#[tokio::test]
async fn it_trains_until_the_virtual_time_is_over_and_says_when_a_target_was_reached() {
    let played = Played::sites(&["throttle_tokens_per_second = 100"; 2]);
    let once = played.run(&played.job(), &[]).await.json();
    let rounds = once["run"]["rounds"].as_array().unwrap();
    let longest = rounds[0]["together"]["slowest_seconds"].as_f64().unwrap();
    // Longer than five rounds of any draw of records, shorter than nine.
    let until = format!("{}s", (7.0 * longest).ceil());
    let start = once["run"]["start"]["loss"].as_f64().unwrap();
    let targets = [
        "--until",
        &until,
        "--target-loss",
        &start.to_string(),
        "--target-accuracy",
        "1.01",
    ];
    let report = played.run(&played.job(), &targets).await.json();
    let rounds = report["run"]["rounds"].as_array().unwrap();
    assert!((5..9).contains(&rounds.len()), "{} rounds", rounds.len());
    let ended = report["run"]["seconds"].as_f64().unwrap();
    assert!(ended <= (7.0 * longest).ceil() + 0.5, "{ended}");
    let last = rounds.last().unwrap();
    assert_eq!(last["score"]["complete"], true);
    assert_eq!(report["targets"]["loss"]["seconds"], 0.0);
    assert_eq!(
        report["targets"]["balanced_accuracy"]["seconds"],
        Value::Null
    );

    let words = ["longer than", "--until"];
    let ended = played.run(&played.job(), &["--until", "1ms"]).await;
    ended.failed(&words[1..]);
}

#[tokio::test]
async fn a_site_is_measured_once_for_the_same_questions_and_again_for_others() {
    let played = Played::sites(&["", "speed = 0.5"]);
    let file = played.path("profiles.json");
    let flags = ["--plan-only", "--profiles", file.to_str().unwrap()];
    let measured = |ended: &Ended| ended.err.matches("measuring").count();
    let first = played.run(&played.job(), &flags).await;
    assert_eq!(measured(&first), 2, "{first:?}");
    let kept = fs::read(&file).unwrap();

    let mut other = played.job();
    other["training"]["seed"] = json!(8);
    other["training"]["local_steps"] = json!(3);
    let again = played.run(&other, &flags).await;
    assert_eq!(measured(&again), 0, "{again:?}");
    assert_eq!(fs::read(&file).unwrap(), kept);

    other["training"]["sequence_length"] = json!(48);
    let ended = played.run(&other, &flags).await;
    assert_eq!(measured(&ended), 2, "{ended:?}");
    fs::write(&file, "{}").unwrap();
    played.run(&other, &flags).await.failed(&["measurements"]);
}

#[tokio::test]
async fn a_plan_alone_trains_nothing_and_what_cannot_be_planned_is_said() {
    let played = Played::sites(&["", ""]);
    fs::remove_file(played.path("b.train.jsonl")).unwrap();
    let ended = played.run(&played.job(), &["--plan-only"]).await;
    ended.failed(&["1 of 2 sites", "b ", "cannot be read"]);
    let mut asked = played.job();
    asked["rounds"]["quorum"] = json!("auto");
    let report = played.run(&asked, &["--plan-only"]).await.json();
    let planned: Vec<&String> = report["plan"]["workers"]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    assert_eq!(planned, ["a"]);

    let played = Played::sites(&["", ""]);
    let report = played.run(&played.job(), &["--plan-only"]).await.json();
    assert_eq!(report["run"], Value::Null);
    assert_eq!(report["plan"]["workers"]["a"]["batch"], 4);
    assert!(report["planned_together"]["apart"].is_number());
    let absent = with(
        job(&played.path("model")),
        "data",
        json!({"dataset": "other"}),
    );
    let ended = played.run(&absent, &["--plan-only"]).await;
    ended.failed(&["no site", "other"]);
}

#[tokio::test]
async fn ranks_that_are_given_take_the_place_of_the_planned_ones() {
    let played = Played::sites(&["", ""]);
    let report = played.run(&played.job(), &["--ranks", "a=2"]).await.json();
    let round = &report["run"]["rounds"][0];
    let ranks = [&round["workers"][0]["rank"], &round["workers"][1]["rank"]];
    assert_eq!(ranks, [&json!(2), &json!(8)]);
    let bytes = |site: usize| round["workers"][site]["update_bytes"].as_u64().unwrap();
    assert!(3 * bytes(0) < bytes(1) + bytes(0), "{round:#}");
    for (ranks, words) in [("a=9", "rank_max"), ("z=2", "no site z")] {
        let ended = played.run(&played.job(), &["--ranks", ranks]).await;
        ended.failed(&["--ranks", words]);
    }
}

/// Rounds of four steps whose batch and rank are the planner's choice.
fn open_job(played: &Played) -> Value {
    let mut asked = job(&played.path("model"));
    asked["training"]["batch"] = json!("auto");
    asked["training"]["local_steps"] = json!(4);
    asked["rounds"]["count"] = json!(4);
    asked
}

/// Has the kept measurement of this site tell a machine that is so many times faster.
fn faster(file: &Path, site: &str, times: f64) {
    let mut kept: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let all = kept["measurements"].as_object_mut().unwrap().values_mut();
    for one in all.filter(|one| one["worker"] == site) {
        for mode in one["measurement"]["modes"].as_array_mut().unwrap() {
            for sample in mode["samples"].as_array_mut().unwrap() {
                let seconds = sample["step_seconds"].as_f64().unwrap();
                sample["step_seconds"] = json!(seconds / times);
            }
        }
    }
    fs::write(file, kept.to_string()).unwrap();
}

#[tokio::test]
async fn a_site_that_is_slower_than_it_was_measured_is_planned_anew_by_the_virtual_clock() {
    let (fast, slow) = (
        "throttle_tokens_per_second = 1000",
        "throttle_tokens_per_second = 100",
    );
    let played = Played::sites(&[fast, slow]);
    let asked = open_job(&played);
    let file = played.path("profiles.json");
    let flags = ["--profiles", file.to_str().unwrap()];
    let undisturbed = played.run(&asked, &flags).await.json();
    assert_eq!(undisturbed["run"]["looks"], json!([]));

    faster(&file, "b", 10.0);
    let report = played.run(&asked, &flags).await.json();
    let looks = report["run"]["looks"].as_array().unwrap();
    let [look] = looks.as_slice() else {
        panic!("one look: {looks:#?}");
    };
    assert_eq!(look["after"], 2);
    let drifted: Vec<&String> = look["drifted"].as_object().unwrap().keys().collect();
    assert_eq!(drifted, ["b"]);
    let by = &look["drifted"]["b"];
    assert_eq!(by["quantity"], "seconds");
    let share = by["observed"].as_f64().unwrap() / by["predicted"].as_f64().unwrap();
    assert!((5.0..20.0).contains(&share), "{look:#}");
    assert_eq!(
        [
            &look["plan"]["version"],
            &look["plan"]["parent"],
            &look["plan"]["from_round"]
        ],
        [&json!(2), &json!(1), &json!(3)],
        "{look:#}"
    );
    assert_eq!(report["plan"]["version"], 1);

    // The plan that knows better asks less of the slow site, and is right about the time.
    let rounds = report["run"]["rounds"].as_array().unwrap();
    let slowest = |round: usize| {
        rounds[round]["together"]["slowest_seconds"]
            .as_f64()
            .unwrap()
    };
    assert!(
        slowest(2) < 0.8 * slowest(1),
        "{} and {}: {look:#}",
        slowest(1),
        slowest(2)
    );
    // Its batch alone may have borne what the clock asks. Where ranks must, see below.
    check_shrunk(&report["run"]);
    let predicted = look["plan"]["round_seconds"].as_f64().unwrap();
    let off = slowest(2) / predicted;
    assert!(
        (0.5..2.0).contains(&off),
        "{} s instead of {predicted} s",
        slowest(2)
    );
}

/// Whose ranks fell stands with the first round of the plan that has them lower, here the third of four, and with no other.
/// Returns these sites.
fn check_shrunk(run: &Value) -> BTreeSet<String> {
    let named = |list: &Value| -> BTreeSet<String> {
        let sites = list.as_array().into_iter().flatten();
        let names = sites.map(|site| site["worker"].as_str().unwrap().to_owned());
        names.collect()
    };
    let rounds = run["rounds"].as_array().unwrap();
    let shrunk: Vec<BTreeSet<String>> = rounds.iter().map(|one| named(&one["shrunk"])).collect();
    let none = BTreeSet::new();
    let of_the_plan = named(&run["looks"][0]["plan"]["shrunk"]);
    let expected = [&none, &none, &of_the_plan, &none];
    assert!(shrunk.iter().eq(expected), "{shrunk:?}: {:#}", run["looks"]);
    of_the_plan
}

/// Batch and steps are fixed, so that ranks alone can bear what a slower site has no time for; what they take of it is
/// their upload, over a link of a known rate.
#[tokio::test]
async fn ranks_that_a_slower_site_has_no_time_for_fall_and_their_first_round_says_whose() {
    const TIMES: f64 = 10.0;
    // Any machine here passes it, so that what a step takes is known.
    let pace = "throttle_tokens_per_second = 100";
    let linked = format!("{pace}\nbandwidth_limit = \"3KiB\"");
    let played = Played::sites(&[pace, linked.as_str()]);
    let mut asked = job(&played.path("model"));
    let (steps, rounds) = (8.0, 4.0);
    asked["training"]["local_steps"] = json!(8);
    asked["rounds"]["count"] = json!(4);
    let file = played.path("profiles.json");
    let flags = ["--profiles", file.to_str().unwrap()];
    let plan_only = [&flags[..], &["--plan-only"][..]].concat();
    let measured = played.run(&asked, &plan_only).await.json();
    assert_eq!(measured["run"], Value::Null);
    faster(&file, "b", TIMES);

    // As the file has it, b has time for all its ranks beside a; as it is, for 3/5 of their upload.
    let planned = played.run(&asked, &plan_only).await.json();
    let predicted = &planned["plan"]["workers"]["b"]["predicted"];
    let figure = |name: &str| predicted[name].as_f64().unwrap();
    let more = (TIMES - 1.0) * steps * figure("step_seconds");
    let upload = figure("upload_bytes") / 3072.0;
    let longest = figure("round_seconds") + more - 0.4 * upload;
    // A plan keeps 5 % free before a deadline.
    let deadline = (1.05 * rounds * longest).floor();
    asked["deadline_seconds"] = json!(deadline as u64);

    let report = played.run(&asked, &flags).await.json();
    assert_eq!(
        report["plan"]["workers"]["b"]["ranks"],
        planned["plan"]["workers"]["b"]["ranks"]
    );
    let looks = report["run"]["looks"].as_array().unwrap();
    let [look] = looks.as_slice() else {
        panic!("one look: {looks:#?}");
    };
    let why = look["plan"]["replaces"][0].as_str().unwrap_or_default();
    assert!(why.starts_with("what b trains takes "), "{look:#}");
    let shrunk = check_shrunk(&report["run"]);
    assert_eq!(shrunk, BTreeSet::from(["b".to_owned()]), "{look:#}");
    let told = &report["run"]["rounds"][2]["shrunk"][0];
    assert!(told["dropped_energy"].as_f64().unwrap() > 0.0, "{told:#}");
}

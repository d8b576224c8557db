//! What a plan says of memory holds under the worker's own limit: the job runs to its end, or the site
//! is refused with what is missing. SmolLM2-135M in place of a model that fits everywhere.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tests::job::{job, with};
use tests::{Fleet, Setup, Site};

const END: Duration = Duration::from_secs(600);

/// Limits in MiB, from hopeless to ample.
const LIMITS: [u64; 6] = [120, 300, 450, 560, 700, 1000];

/// Records whose lengths vary from a few tokens to more than the job allows.
fn records(folder: &Path) -> PathBuf {
    let mut text = String::new();
    for number in 0..48_usize {
        let words = "the patch for lunch and a loan to see ".repeat(1 + (number * 7) % 23);
        let answer = if number % 2 == 0 { " yes" } else { " no" };
        let line = json!({"prompt": format!("{number}: {words}Spam?"), "completion": answer});
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    }
    let path = folder.join("uneven.jsonl");
    std::fs::write(&path, text).unwrap();
    path
}

/// A job whose rank and batch are left to the planner.
fn open_job(model: &Path) -> Value {
    let adapter = json!({"targets": ["q", "k", "v", "o", "gate", "up", "down"], "rank": "auto",
                         "rank_max": 16, "alpha": 32.0});
    let training = json!({"optimizer": "adamw", "local_steps": 4, "batch": "auto",
                          "sequence_length": 128, "learning_rate": 1e-4, "seed": 7});
    let evaluation = json!({"choices": [" yes", " no"], "every": 1});
    let open = with(with(job(model), "adapter", adapter), "training", training);
    let open = with(open, "evaluation", evaluation);
    let open = with(open, "rounds", json!({"count": 2}));
    with(open, "deadline_seconds", json!(3600))
}

#[tokio::test]
async fn a_plan_keeps_within_the_workers_limit_or_says_what_is_missing() {
    if !tests::full() {
        eprintln!("skipped: needs FEDPIPE_TEST_FULL");
        return;
    }
    let Some(model) = testkit::model::real("FEDPIPE_SMOLLM2") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let data = records(folder.path());
    let mut table = "limit  rank batch  predicted  observed (MiB), or why not\n".to_owned();
    for limit in LIMITS {
        let mut setup = Setup::sites(1);
        setup.idle = Duration::from_secs(20);
        let limited = Site::new("a").line(&format!("memory_limit = \"{limit}MiB\""));
        setup.sites[0] = limited.line("probe_seconds = 20");
        setup.sites[0].train = Some(data.clone());
        let fleet = Fleet::start(&setup).await;
        let id = fleet.api().submit(&open_job(&model)).await;
        let ended = fleet.api().ended(&id, END).await;
        assert_eq!(
            fleet.deaths("worker-a"),
            0,
            "{limit} MiB: {ended:#}\n{table}"
        );
        let row = if ended["phase"] == "succeeded" {
            succeeded(&fleet, &id, limit).await
        } else {
            let message = ended["cause"]["message"].as_str().unwrap();
            let sites = ended["cause"]["sites"].to_string();
            assert!(sites.contains("out_of_memory"), "{limit} MiB: {ended:#}");
            assert!(sites.contains("missing"), "{limit} MiB: {ended:#}");
            message.to_owned() + &sites
        };
        let _ = writeln!(table, "{limit:5}  {row}");
    }
    eprintln!("{table}");
}

/// What was planned and what was observed; what was observed is below the limit.
async fn succeeded(fleet: &Fleet, id: &str, limit: u64) -> String {
    let mib = |bytes: &Value| bytes.as_f64().unwrap() / f64::from(1 << 20);
    let plan = fleet.api().get(&format!("/v1/jobs/{id}/plan")).await.body;
    let plan = &plan["workers"]["a"];
    let predicted = mib(&plan["predicted"]["peak_memory_bytes"]);
    let rounds = fleet.api().rounds(id).await;
    let worker = |round: &Value| round["workers"][0].clone();
    let peaks = rounds[1..]
        .iter()
        .map(|round| mib(&worker(round)["metrics"]["peak_memory_bytes"]));
    let observed = peaks.fold(0.0, f64::max);
    assert!(observed <= limit as f64, "{observed} MiB of {limit}");
    let (rank, batch) = (worker(&rounds[1])["rank"].clone(), plan["batch"].clone());
    let why = &plan["why"]["text"];
    format!("{rank:>4} {batch:>5}  {predicted:9.1}  {observed:8.1}\n       {why}")
}

//! First- and zeroth-order sites in one job.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chassis::failpoint::Failpoint;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::job::{job, with};
use tests::points::Fate;
use tests::replay::Replay;
use tests::{Fleet, Setup, full};

use crate::simulate::simulate;

/// Patience with a machine that needs half a minute to measure each of three sites, one after another.
const END: Duration = Duration::from_secs(600);

/// Enough long records for steps that need far more memory with gradients than without.
fn records(folder: &Path) -> PathBuf {
    let mut text = String::new();
    for number in 0..256 {
        let words = "the patch for lunch and a loan ".repeat(8);
        let answer = if number % 2 == 0 { " yes" } else { " no" };
        let line = json!({"prompt": format!("{number}: {words}Spam?"), "completion": answer});
        writeln!(text, "{line}").unwrap();
    }
    let path = folder.join("long.jsonl");
    std::fs::write(&path, text).unwrap();
    path
}

/// What a step computes is left to the planner; its size is not. What was measured for it is reused, because its model is
/// known by its digest.
async fn open_job(fleet: &Fleet) -> Value {
    let training = json!({"optimizer": "auto", "local_steps": 2, "batch": 256, "sequence_length": 240,
                          "learning_rate": 1e-3, "seed": 7, "mezo": {"clip": 50.0}});
    let digest = fleet.push_model().await;
    let asked = with(job(&fleet.model()), "model", json!({"digest": digest}));
    let asked = with(asked, "training", training);
    let adapter = json!({"targets": ["q", "v"], "rank": 4, "rank_max": 4, "alpha": 8.0});
    let asked = with(asked, "adapter", adapter);
    let asked = with(asked, "precision", json!({"compute": "f32", "base": "f32"}));
    with(asked, "deadline_seconds", json!(END.as_secs()))
}

async fn plan(fleet: &Fleet, id: &str) -> Value {
    fleet.api().get(&format!("/v1/jobs/{id}/plan")).await.body
}

/// Bytes between what the least step by gradients needs and what one without needs: an eighth more than the latter, for a
/// busy machine may have measured steps that recompute their activations too little to tell what they need.
fn between(worker: &Value) -> u64 {
    let rejected = worker["why"]["rejected"].as_array().unwrap();
    let needed = |change: &str| {
        let other = rejected.iter().find(|one| one["change"] == change);
        other.and_then(|one| one["memory_bytes"].as_u64())
    };
    let zeroth_order = needed("optimizer").unwrap();
    let kept = worker["predicted"]["peak_memory_bytes"].as_u64().unwrap();
    let gradients = needed("checkpoint").map_or(kept, |other| other.min(kept));
    let limit = zeroth_order + zeroth_order / 8;
    assert!(
        gradients > limit + (2 << 20),
        "{gradients} bytes with gradients, {zeroth_order} without"
    );
    limit
}

/// A fleet whose site c has no room for gradients, and a job that it has done.
struct Mixed {
    fleet: Fleet,
    job: Value,
    id: String,
    digest: String,
    /// Bytes that c may use.
    limit: u64,
    _records: TempDir,
}

impl Mixed {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = records(folder.path());
        let mut setup = Setup {
            // Ten times as long all sites together may measure themselves.
            idle: Duration::from_secs(20),
            reuse_profiles: true,
            ..Setup::sites(3)
        };
        for site in &mut setup.sites {
            site.train = Some(data.clone());
        }
        let c = setup.sites.pop().unwrap();
        let limit = {
            let alone = Setup {
                sites: vec![c.clone()],
                ..setup.clone()
            };
            let fleet = Fleet::start(&alone).await;
            let id = fleet.api().submit(&open_job(&fleet).await).await;
            fleet.api().succeeded(&id, END).await;
            let plan = plan(&fleet, &id).await;
            assert_eq!(plan["workers"]["c"]["optimizer"], "adamw", "{plan:#}");
            between(&plan["workers"]["c"])
        };
        let small = c.line(&format!("memory_limit = \"{}KiB\"", limit >> 10));
        setup.sites.push(small);
        let fleet = Fleet::start(&setup).await;
        let job = open_job(&fleet).await;
        let id = fleet.api().submit(&job).await;
        let digest = fleet.api().succeeded(&id, END).await;
        check_kinds(&plan(&fleet, &id).await);
        assert_eq!(fleet.deaths("worker-c"), 0);
        Self {
            fleet,
            job,
            id,
            digest,
            limit,
            _records: folder,
        }
    }
}

/// Sites a and b train by gradients, c does not.
fn check_kinds(plan: &Value) {
    let workers = &plan["workers"];
    let own = ["a", "b", "c"].map(|name| workers[name]["optimizer"].as_str().unwrap());
    assert_eq!(own, ["adamw", "adamw", "mezo"], "{plan:#}");
}

#[tokio::test]
async fn a_site_without_room_for_gradients_sends_scalars_and_the_others_tensors() {
    let mixed = Mixed::start().await;
    let Mixed { fleet, id, .. } = &mixed;
    let plan = plan(fleet, id).await;
    let why = plan["workers"]["c"]["why"]["text"].as_str().unwrap();
    assert!(why.contains("No step by gradients fits here"), "{why}");
    let rounds = fleet.api().rounds(id).await;
    for round in &rounds[1..] {
        let figures = round["workers"].as_array().unwrap();
        let figure = |at: usize, name: &str| figures[at]["metrics"][name].as_u64().unwrap();
        assert!(figure(0, "bytes_up") > 1024 && figure(1, "bytes_up") > 1024);
        assert!(figure(2, "bytes_up") < 1024, "scalars up");
        assert!(figure(2, "bytes_down") > 1024, "tensors down");
        assert!(figure(2, "peak_memory_bytes") <= mixed.limit);
    }
    check_simulated(&mixed, &rounds).await;
}

/// A simulation of the same fleet and job makes the same adapters.
async fn check_simulated(mixed: &Mixed, rounds: &[Value]) {
    let Mixed { fleet, job, .. } = mixed;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.json");
    std::fs::write(&file, job.to_string()).unwrap();
    let (model, fleet_file) = (fleet.model(), fleet.folder().join("fleet.toml"));
    let flags = ["--model", model.to_str().unwrap()];
    let report = simulate(&fleet_file, &file, &flags).await.json();
    check_kinds(&report["plan"]);
    let simulated = report["run"]["rounds"].as_array().unwrap();
    assert_eq!(simulated.len() + 1, rounds.len());
    for (round, real) in simulated.iter().zip(&rounds[1..]) {
        assert_eq!(round["global"], real["adapter"]["sha256"], "{real:#}");
    }
    assert_eq!(report["run"]["adapter"]["sha256"], mixed.digest);
}

#[tokio::test]
async fn a_kill_changes_nothing_where_some_sites_send_scalars_and_others_tensors() {
    let Mixed {
        fleet,
        job,
        id,
        digest,
        // Bound, so that the sites' records stay.
        _records,
        ..
    } = Mixed::start().await;
    let job = with(job, "plan_from", json!(id));
    let replay = Replay { fleet, job, digest };
    // c alone walks, a and b alone upload.
    let places = [
        Failpoint::WorkerTrainBetweenPasses,
        Failpoint::WorkerTrainWhileUploading,
        Failpoint::AggregatorIngestAfterScalars,
        Failpoint::AggregatorIngestAfterDownload,
        Failpoint::AggregatorFoldAfterMerge,
    ];
    let (api, points) = (replay.fleet.api(), replay.fleet.points());
    for point in places.into_iter().take(if full() { 5 } else { 2 }) {
        points.arm(point, Fate::Killed);
        let disturbed = replay.begin().await;
        let ended = api.succeeded(&disturbed.id, END).await;
        assert_eq!(ended, replay.digest, "{}", point.name());
        let reached = !points.disarm(point, Fate::Killed);
        assert!(reached, "nobody came to {}", point.name());
    }
}

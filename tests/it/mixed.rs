//! First- and zeroth-order sites in one job.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tests::job::{job, with};
use tests::{Fleet, Setup, Site};

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

/// What a step computes is left to the planner; its size is not.
fn open_job(fleet: &Fleet) -> Value {
    let training = json!({"optimizer": "auto", "local_steps": 2, "batch": 256, "sequence_length": 240,
                          "learning_rate": 1e-3, "seed": 7, "mezo": {"clip": 50.0}});
    let asked = with(job(&fleet.model()), "training", training);
    let adapter = json!({"targets": ["q", "v"], "rank": 4, "rank_max": 4, "alpha": 8.0});
    let asked = with(asked, "adapter", adapter);
    let asked = with(asked, "precision", json!({"compute": "f32", "base": "f32"}));
    with(asked, "deadline_seconds", json!(END.as_secs()))
}

async fn plan(fleet: &Fleet, id: &str) -> Value {
    fleet.api().get(&format!("/v1/jobs/{id}/plan")).await.body
}

/// Bytes between what the least step by gradients needs and what one without needs.
fn between(worker: &Value) -> u64 {
    let rejected = worker["why"]["rejected"].as_array().unwrap();
    let needed = |change: &str| {
        let other = rejected.iter().find(|one| one["change"] == change);
        other.and_then(|one| one["memory_bytes"].as_u64())
    };
    let zeroth_order = needed("optimizer").unwrap();
    let kept = worker["predicted"]["peak_memory_bytes"].as_u64().unwrap();
    let gradients = needed("checkpoint").map_or(kept, |other| other.min(kept));
    assert!(
        gradients > zeroth_order + (2 << 20),
        "{gradients} bytes with gradients, {zeroth_order} without"
    );
    zeroth_order + (gradients - zeroth_order) / 2
}

#[tokio::test]
async fn a_site_without_room_for_gradients_sends_scalars_and_the_others_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let data = records(folder.path());
    let mut setup = Setup::sites(3);
    // Ten times as long all sites together may measure themselves.
    setup.idle = Duration::from_secs(20);
    for site in &mut setup.sites {
        site.train = Some(data.clone());
    }
    let limit = {
        let fleet = Fleet::start(&setup).await;
        let id = fleet.api().submit(&open_job(&fleet)).await;
        fleet.api().succeeded(&id, END).await;
        let plan = plan(&fleet, &id).await;
        assert_eq!(plan["workers"]["c"]["optimizer"], "adamw", "{plan:#}");
        between(&plan["workers"]["c"])
    };
    let small = Site::new("c").line(&format!("memory_limit = \"{}KiB\"", limit >> 10));
    setup.sites[2] = small;
    setup.sites[2].train = Some(data);
    let fleet = Fleet::start(&setup).await;
    let id = fleet.api().submit(&open_job(&fleet)).await;
    fleet.api().succeeded(&id, END).await;
    let plan = plan(&fleet, &id).await;
    let workers = &plan["workers"];
    let own = ["a", "b", "c"].map(|name| workers[name]["optimizer"].as_str().unwrap());
    assert_eq!(own, ["adamw", "adamw", "mezo"]);
    let why = workers["c"]["why"]["text"].as_str().unwrap();
    assert!(why.contains("No step by gradients fits here"), "{why}");
    assert_eq!(fleet.deaths("worker-c"), 0);
    let rounds = fleet.api().rounds(&id).await;
    for round in &rounds[1..] {
        let figures = round["workers"].as_array().unwrap();
        let figure = |at: usize, name: &str| figures[at]["metrics"][name].as_u64().unwrap();
        assert!(figure(0, "bytes_up") > 1024 && figure(1, "bytes_up") > 1024);
        assert!(figure(2, "bytes_up") < 1024, "scalars up");
        assert!(figure(2, "bytes_down") > 1024, "tensors down");
        assert!(figure(2, "peak_memory_bytes") <= limit);
    }
}

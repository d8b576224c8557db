//! A job through all five processes.

use std::collections::BTreeMap;
use std::time::Duration;

use chassis::clock::Stopwatch;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::wait;
use tests::job::{job, scored, with};
use tests::{Fleet, Setup, Site, archive, bound, procs};

const END: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_job_trains_through_all_processes_and_its_plan_replays_to_the_same_adapter() {
    let mut setup = Setup::sites(3);
    setup.sites[2] = Site::new("c").line("throttle_tokens_per_second = 800");
    let fleet = Fleet::start(&setup).await;
    let api = fleet.api();
    let id = api.submit(&scored(&fleet.model())).await;
    let digest = api.succeeded(&id, END).await;

    let names: Vec<String> = api.events(&id).await.into_iter().map(|e| e.name).collect();
    let round = ["opened", "closed", "merged", "evaluated"];
    let expected = [
        &[
            "submitted",
            "admitted",
            "profiled",
            "planned",
            "merged",
            "evaluated",
        ][..],
        &round,
        &round,
        &["finished"],
    ];
    assert_eq!(names, expected.concat());

    check_rounds(&api.rounds(&id).await);
    check_report(&api.report(&id).await, &digest);
    check_archive(&fleet, &id, &digest).await;

    let overhead = bound::least_overhead(&api.rounds(&id).await[1..], setup.idle);
    assert!(overhead < 1.0, "{overhead} s");

    let replayed = with(scored(&fleet.model()), "plan_from", json!(id));
    let again = api.submit(&replayed).await;
    assert_eq!(api.succeeded(&again, END).await, digest);
}

#[tokio::test]
async fn sites_train_on_the_base_and_in_the_arithmetic_that_the_job_names() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let api = fleet.api();
    for (base, compute) in [("nf4", "f32"), ("int8", "int8"), ("bf16", "bf16")] {
        let precision = json!({"base": base, "compute": compute});
        let job = with(job(&fleet.model()), "precision", precision);
        let id = api.submit(&job).await;
        api.succeeded(&id, END).await;
        let plan = api.get(&format!("/v1/jobs/{id}/plan")).await.body;
        let workers = plan["workers"].as_object().unwrap();
        assert_eq!(workers.len(), 2, "{plan:#}");
        for worker in workers.values() {
            let kernel = worker["kernel"].as_str().unwrap();
            assert_eq!(worker["base"], base, "{worker:#}");
            assert!(kernel.contains(&format!("-{compute}-")), "{worker:#}");
        }
    }
}

fn check_rounds(rounds: &[Value]) {
    let numbers: Vec<u64> = rounds.iter().filter_map(|r| r["round"].as_u64()).collect();
    assert_eq!(numbers, [0, 1, 2]);
    for round in rounds {
        let evaluation = &round["evaluation"];
        assert_eq!(evaluation["records"], 24, "{round:#}");
        assert!(evaluation["balanced_accuracy"].is_number(), "{round:#}");
        assert_eq!(round["missing"], json!([]));
    }
    for round in &rounds[1..] {
        let workers = round["workers"].as_array().unwrap();
        assert_eq!(workers.len(), 3);
        for worker in workers {
            let metrics = &worker["metrics"];
            assert_eq!(
                (&metrics["records"], &metrics["steps"]),
                (&json!(8), &json!(2))
            );
            assert!(metrics["bytes_up"].as_u64().unwrap() > 0, "{worker:#}");
        }
    }
}

fn check_report(report: &Value, digest: &str) {
    assert_eq!(report["adapter"]["sha256"], digest);
    assert_eq!(report["rounds"].as_array().unwrap().len(), 3);
    assert_eq!(report["evaluations"].as_array().unwrap().len(), 3);
    let plans = report["plan"]["workers"].as_object().unwrap();
    for plan in plans.values() {
        assert!(!plan["why"]["text"].as_str().unwrap().is_empty());
    }
}

async fn check_archive(fleet: &Fleet, id: &str, digest: &str) {
    let path = format!("/v1/jobs/{id}/adapter");
    let got = fleet.api().bytes(Method::GET, &path, None).await;
    let (status, bytes) = got.unwrap();
    assert!(status.is_success(), "{status}");
    let files = archive::files(&bytes);
    let names: Vec<&String> = files.keys().collect();
    assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors"]);
    let config: Value = serde_json::from_slice(&files["adapter_config.json"]).unwrap();
    assert_eq!(
        (&config["r"], &config["lora_alpha"]),
        (&json!(8), &json!(16.0))
    );
    let found = archive::digest(&files["adapter_model.safetensors"]);
    assert_eq!(found, digest);
}

#[tokio::test]
async fn three_idle_workers_cost_next_to_nothing() {
    let mut setup = Setup::sites(3);
    setup.idle = Duration::from_secs(60);
    let fleet = Fleet::start(&setup).await;
    let used = || -> BTreeMap<String, f64> {
        let all = fleet.processes().into_iter();
        all.map(|(name, pid)| (name, procs::cpu_seconds(pid)))
            .collect()
    };
    let (watch, before) = (Stopwatch::start(), used());
    let rest = Duration::from_secs(6);
    wait::never("somebody dies of idleness", rest, async {
        wait::until("one is missing", END, async || fleet.processes().len() < 8).await;
    })
    .await;
    let seconds = watch.seconds();
    let after = used().into_iter();
    let shares: BTreeMap<String, f64> = after
        .map(|(name, used)| {
            let before = before.get(&name).copied().unwrap_or(used);
            (name, (used - before) / seconds)
        })
        .collect();
    let of = |group: &dyn Fn(&str) -> bool| -> f64 {
        let own = shares.iter().filter(|(name, _)| group(name));
        own.map(|(_, share)| share).sum()
    };
    let workers = of(&|name| name.starts_with("worker"));
    assert!(workers < 0.01, "{workers} of a core: {shares:?}");
    // The NATS server's own clocks alone take 0.015 to 0.025.
    let others = of(&|name| !name.starts_with("worker") && name != "nats");
    assert!(others < 0.02, "{others} of a core: {shares:?}");
    for (name, pid) in fleet.processes() {
        let bytes = procs::resident_bytes(pid);
        assert!(bytes < 150 << 20, "{name} holds {bytes} bytes");
    }
}

//! A small machine that plays others is held to what it plays.

use std::time::Duration;

use serde_json::{Value, json};
use tests::job::{job, with};
use tests::{Fleet, Setup, Site, Wire};

const END: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_plan_that_is_too_large_dies_of_the_workers_own_limit() {
    let mut setup = Setup::sites(1);
    setup.sites[0] = Site::new("a").line("memory_limit = \"256MiB\"");
    let fleet = Fleet::start(&setup).await;
    let api = fleet.api();
    let id = api.submit(&job(&fleet.model())).await;
    api.succeeded(&id, END).await;

    // No planner would make such a plan.
    let wire = Wire::tap(&fleet).await;
    let key = format!("{id}.1");
    let mut plan = wire.value("fedpipe_plans", &key).await;
    plan["workers"]["a"]["batch"] = json!(20_000);
    wire.overwrite("fedpipe_plans", &key, &plan).await;
    let too_large = api
        .submit(&with(job(&fleet.model()), "plan_from", json!(id)))
        .await;
    let ended = api.ended(&too_large, END).await;
    assert_eq!(ended["phase"], "failed", "{ended:#}");
    let site = &ended["cause"]["sites"][0];
    assert_eq!(
        (&site["worker"], &site["trouble"]),
        (&json!("a"), &json!("out_of_memory")),
        "{ended:#}"
    );
    assert_eq!(fleet.deaths("worker-a"), 1);

    let id = api.submit(&job(&fleet.model())).await;
    api.succeeded(&id, END).await;
}

#[tokio::test]
async fn a_throttled_worker_is_no_faster_than_it_may_be() {
    let mut setup = Setup::sites(2);
    setup.sites[1] = Site::new("b").line("throttle_tokens_per_second = 400");
    let fleet = Fleet::start(&setup).await;
    let id = fleet.api().submit(&job(&fleet.model())).await;
    fleet.api().succeeded(&id, END).await;
    let rounds = fleet.api().rounds(&id).await;
    let speed = |round: &Value, name: &str| {
        let workers = round["workers"].as_array().unwrap();
        let of = workers
            .iter()
            .find(|worker| worker["worker"] == name)
            .unwrap();
        of["metrics"]["tokens_per_second"].as_f64().unwrap()
    };
    for round in &rounds[1..] {
        let (free, held) = (speed(round, "a"), speed(round, "b"));
        assert!((200.0..=420.0).contains(&held), "{held}");
        assert!(free > 2.0 * held, "{free} and {held}");
    }
}

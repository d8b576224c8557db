//! A site that sends what its plan does not say: refused by name, the others go on.

use std::time::Duration;

use artifacts::Transfer;
use bus::{Bus, Connect};
use chassis::failpoint::Failpoint;
use contract::message::report::{Head, Updated};
use contract::permission::Role;
use domain::artifact::{ArtifactRef, Digest};
use domain::id::Epoch;
use domain::round::{Update, UpdateMetrics};
use reqwest::Method;
use serde_json::{Value, json};
use tests::job::{job, with};
use tests::points::Fate;
use tests::{Fleet, Setup, archive};

const END: Duration = Duration::from_secs(40);

/// What the forger has: a true adapter of the job's shape, and where to put others.
struct Forger<'a> {
    fleet: &'a Fleet,
    bus: Bus,
    store: artifacts::Store,
    adapter: Vec<u8>,
}

#[tokio::test]
async fn an_update_that_does_not_match_the_plan_is_refused_and_the_round_closes_without_it() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let api = fleet.api();
    let full_rank = asked(&fleet, 8);
    let id = api.submit(&full_rank).await;
    api.succeeded(&id, END).await;
    let path = format!("/v1/jobs/{id}/adapter");
    let (_, tar) = api.bytes(Method::GET, &path, None).await.unwrap();
    let adapter = archive::files(&tar)["adapter_model.safetensors"].clone();
    let forger = Forger {
        fleet: &fleet,
        bus: connect(&fleet).await,
        store: store(&fleet),
        adapter,
    };

    let mut poisoned = forger.adapter.clone();
    let end = poisoned.len();
    poisoned[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut cut = forger.adapter.clone();
    cut.truncate(end / 2);
    let good = forger.adapter.clone();
    forger
        .refused("NaN in a tensor", &full_rank, &poisoned, |update| update)
        .await;
    forger
        .refused("a file cut short", &full_rank, &cut, |update| update)
        .await;
    forger
        .refused("of another rank", &asked(&fleet, 4), &good, |update| update)
        .await;
    let huge = |mut update: Update| {
        update.adapter.bytes = 10 << 30;
        update
    };
    forger.refused("of 10 GB", &full_rank, &good, huge).await;
    let wrong = |mut update: Update| {
        update.adapter.sha256 = Digest::from_bytes(&[7; 32]);
        update
    };
    forger
        .refused("with another digest", &full_rank, &good, wrong)
        .await;
    let nan = |mut update: Update| {
        update.metrics.loss = f64::NAN;
        update
    };
    forger
        .refused("with a loss that is no number", &full_rank, &good, nan)
        .await;
    let outside = |mut update: Update| {
        update.adapter.key = update.adapter.key.replace("/updates/c/", "/updates/a/");
        update
    };
    forger
        .refused("under another site's key", &full_rank, &good, outside)
        .await;

    let id = api.submit(&full_rank).await;
    api.succeeded(&id, END).await;
    assert_eq!(
        api.rounds(&id).await[1]["workers"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

fn asked(fleet: &Fleet, rank: u16) -> Value {
    let adapter = json!({"targets": ["q", "v"], "rank": rank, "rank_max": 8, "alpha": 16.0});
    let rounds = json!({"count": 1, "quorum": 2});
    with(
        with(job(&fleet.model()), "adapter", adapter),
        "rounds",
        rounds,
    )
}

async fn connect(fleet: &Fleet) -> Bus {
    let connect = Connect {
        url: fleet.nats_url(),
        user: Some("worker-c".to_owned()),
        password: Some(fleet.password("worker-c")),
        credentials_file: None,
    };
    let role = Role::Worker("c".parse().unwrap());
    Bus::connect(&connect, &role).await.unwrap()
}

fn store(fleet: &Fleet) -> artifacts::Store {
    let config = artifacts::Config {
        url: format!("file://{}", fleet.state().join("objects").display()),
        ..artifacts::Config::default()
    };
    artifacts::Store::open(&config).unwrap()
}

impl Forger<'_> {
    /// Site c answers the first round with these bytes, changed so.
    async fn refused(
        &self,
        what: &str,
        job: &Value,
        bytes: &[u8],
        change: impl Fn(Update) -> Update,
    ) {
        let Self { fleet, .. } = self;
        let (api, hold) = (fleet.api(), Failpoint::PlannerPlanAfterPlanStored);
        fleet.points().arm(hold, Fate::Halted);
        let id = api.submit(job).await;
        fleet.points().reached(hold, Fate::Halted, END).await;
        fleet.halt("worker-c");
        let prefix = format!("jobs/{id}/updates/c/1");
        let transfer = Transfer::default();
        let stored = self
            .store
            .put_bytes(&prefix, bytes.to_vec(), &transfer)
            .await;
        fleet.go_on("planner");
        let open = api.phase(&id, "training", END).await;
        let updated = Updated {
            head: Head {
                worker: "c".parse().unwrap(),
                job: id.parse().unwrap(),
                epoch: Epoch(open["epoch"].as_u64().unwrap()),
            },
            round: 1,
            update: change(update(stored.unwrap())),
        };
        self.bus.publish(&updated, None).await.unwrap();
        let ended = api.ended(&id, END).await;
        fleet.go_on("worker-c");
        assert_eq!(ended["phase"], "succeeded", "{what}: {ended:#}");
        let events = api.events(&id).await;
        let said = events.iter().find(|event| event.name == "refused");
        let said = said.unwrap_or_else(|| panic!("{what}: nobody said so: {events:#?}"));
        assert_eq!(said.detail["site"]["worker"], "c", "{what}: {said:?}");
        assert_eq!(
            said.detail["site"]["trouble"], "update_refused",
            "{what}: {said:?}"
        );
        eprintln!("{what}: {}", said.detail["site"]["detail"]);
        let rounds = api.rounds(&id).await;
        assert_eq!(rounds[1]["workers"].as_array().unwrap().len(), 2, "{what}");
    }
}

fn update(adapter: ArtifactRef) -> Update {
    let metrics = UpdateMetrics {
        records: 8,
        tokens: 100,
        loss: 1.0,
        steps: 2,
        compute_seconds: 0.1,
        tokens_per_second: 1000.0,
        peak_memory_bytes: 1,
        bytes_up: 1,
        bytes_down: 1,
        control_bytes_up: 1,
    };
    Update { adapter, metrics }
}

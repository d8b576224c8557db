//! A site that sends what its plan does not say, or what nobody can read: lost by name, the others go on.

use std::time::Duration;

use async_nats::HeaderMap;
use chassis::failpoint::Failpoint;
use contract::message::report::{Evaluated, Failed, Head};
use domain::artifact::{ArtifactRef, Digest};
use domain::cause::{DETAIL_LIMIT, Trouble};
use domain::id::Epoch;
use domain::round::{Score, Update};
use reqwest::Method;
use serde_json::{Value, json};
use tests::forger::{self, Forger};
use tests::job::{job, scored, with};
use tests::points::Fate;
use tests::{Fleet, Setup, Wire, archive};

const END: Duration = Duration::from_secs(40);

/// What the forger of site c has: a true adapter of the job's shape.
struct Cases<'a> {
    fleet: &'a Fleet,
    forger: Forger,
    wire: Wire,
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
    let cases = Cases {
        fleet: &fleet,
        forger: Forger::of(&fleet, "c").await,
        wire: Wire::tap(&fleet).await,
        adapter,
    };

    let mut poisoned = cases.adapter.clone();
    let end = poisoned.len();
    poisoned[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut cut = cases.adapter.clone();
    cut.truncate(end / 2);
    let good = cases.adapter.clone();
    cases
        .refused("NaN in a tensor", &full_rank, &poisoned, |update| update)
        .await;
    cases
        .refused("a file cut short", &full_rank, &cut, |update| update)
        .await;
    cases
        .refused("of another rank", &asked(&fleet, 4), &good, |update| update)
        .await;
    let huge = |mut update: Update| {
        update.adapter.bytes = 10 << 30;
        update
    };
    cases.refused("of 10 GB", &full_rank, &good, huge).await;
    let wrong = |mut update: Update| {
        update.adapter.sha256 = Digest::from_bytes(&[7; 32]);
        update
    };
    cases
        .refused("with another digest", &full_rank, &good, wrong)
        .await;
    let nan = |mut update: Update| {
        update.metrics.loss = f64::NAN;
        update
    };
    cases
        .refused("with a loss that is no number", &full_rank, &good, nan)
        .await;
    let outside = |mut update: Update| {
        update.adapter.key = update.adapter.key.replace("/updates/c/", "/updates/a/");
        update
    };
    cases
        .refused("under another site's key", &full_rank, &good, outside)
        .await;
    let earlier = |mut update: Update| {
        update.adapter.key = update.adapter.key.replace("/updates/c/1/", "/updates/c/0/");
        update
    };
    cases
        .refused("of another round", &full_rank, &good, earlier)
        .await;
    let heavy = |mut update: Update| {
        update.metrics.records = 1_000_000;
        update
    };
    cases
        .refused("that claims a million records", &full_rank, &good, heavy)
        .await;
    cases.unreadable(&full_rank).await;
    let refused = counted(&fleet).await;
    assert_eq!(refused, 10, "each is counted once");

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

/// A moment of a job in which a process is held, and the phase that it has then: nobody has asked its sites yet.
#[derive(Debug, Clone, Copy)]
struct Moment {
    point: Failpoint,
    process: &'static str,
    phase: &'static str,
}

const PROFILING: Moment = Moment {
    point: Failpoint::ProfilerAdmitAfterState,
    process: "profiler",
    phase: "profiling",
};
const TRAINING: Moment = Moment {
    point: Failpoint::AggregatorStartAfterState,
    process: "aggregator",
    phase: "training",
};
/// Of the untrained adapter, in a job that is scored.
const EVALUATING: Moment = Moment {
    phase: "evaluating",
    ..TRAINING
};

/// A job whose site c says this at this moment, before it is asked: whatever it is, the job succeeds.
async fn despite(
    fleet: &Fleet,
    moment: Moment,
    job: &Value,
    say: &impl AsyncFn(&str, u64),
) -> String {
    let api = fleet.api();
    fleet.points().arm(moment.point, Fate::Halted);
    let id = api.submit(job).await;
    fleet
        .points()
        .reached(moment.point, Fate::Halted, END)
        .await;
    let held = api.phase(&id, moment.phase, END).await;
    say(&id, held["epoch"].as_u64().unwrap()).await;
    fleet.go_on(moment.process);
    api.succeeded(&id, END).await;
    id
}

/// Why site c was lost.
async fn lost(fleet: &Fleet, id: &str) -> Value {
    let events = fleet.api().events(id).await;
    let said = events.iter().find(|event| event.name == "lost");
    let said = said.unwrap_or_else(|| panic!("nobody said so: {events:#?}"));
    assert_eq!(said.detail["site"]["worker"], "c", "{said:?}");
    said.detail["site"].clone()
}

/// Who gave no score of the untrained adapter, and why.
async fn unscored(fleet: &Fleet, id: &str) -> Value {
    let rounds = fleet.api().rounds(id).await;
    let missing = rounds[0]["evaluation"]["missing"].as_array().unwrap();
    let [site] = missing.as_slice() else {
        panic!("{missing:#?}")
    };
    assert_eq!(site["worker"], "c");
    // A site without a score trains all the same.
    assert_eq!(rounds[1]["workers"].as_array().unwrap().len(), 3);
    site.clone()
}

#[tokio::test]
async fn a_report_of_any_kind_that_cannot_be_read_costs_its_site_and_never_the_job() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let wire = Wire::tap(&fleet).await;
    let (trained, evaluated) = (asked(&fleet, 4), asked_of(scored(&fleet.model()), 4));
    for (moment, kind, job, trouble) in [
        // Whoever cannot be understood in what it measures is not asked to measure again.
        (PROFILING, "probed", &trained, "plan_unsupported"),
        (PROFILING, "failed", &trained, "internal"),
        (TRAINING, "failed", &trained, "internal"),
        (EVALUATING, "evaluated", &evaluated, "internal"),
        (EVALUATING, "failed", &evaluated, "internal"),
    ] {
        let said = async |id: &str, epoch: u64| {
            let subject = format!("fedpipe.v1.report.c.{id}.{epoch}.{kind}");
            let said = wire.say(&subject, HeaderMap::new(), b"x".to_vec()).await;
            assert!(said, "the stream keeps it");
        };
        let id = despite(&fleet, moment, job, &said).await;
        let site = match moment.phase {
            "evaluating" => unscored(&fleet, &id).await,
            _ => lost(&fleet, &id).await,
        };
        let detail = site["detail"].as_str().unwrap();
        eprintln!("{}, {kind}: {detail}", moment.phase);
        assert_eq!(site["trouble"], trouble, "{site:#}");
        assert!(detail.contains("cannot read"), "{site:#}");
        let letter = format!("fedpipe.v1.dead.{}.report.c.{id}.*.{kind}", moment.process);
        // Again if somebody wrote the job before the site was lost in it.
        assert!(wire.held("FEDPIPE_DEAD", &letter).await >= 1, "{letter}");
    }
}

#[tokio::test]
async fn figures_and_words_that_no_store_holds_cost_their_site_and_never_the_job() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let forger = Forger::of(&fleet, "c").await;
    let head = |id: &str, epoch: u64| Head {
        worker: "c".parse().unwrap(),
        job: id.parse().unwrap(),
        epoch: Epoch(epoch),
    };
    let endless = async |id: &str, epoch: u64| {
        let failed = Failed {
            head: head(id, epoch),
            task: "train".to_owned(),
            trouble: Trouble::DiskFull,
            detail: "x".repeat(900_000),
        };
        forger.say(&failed).await;
    };
    for moment in [PROFILING, TRAINING] {
        let id = despite(&fleet, moment, &asked(&fleet, 4), &endless).await;
        let site = lost(&fleet, &id).await;
        assert_eq!(site["trouble"], "disk_full");
        assert_eq!(site["detail"].as_str().unwrap().len(), DETAIL_LIMIT);
    }

    let infinite = async |id: &str, epoch: u64| {
        let score = Score {
            seconds: f64::INFINITY,
            ..Score::default()
        };
        let evaluated = Evaluated {
            head: head(id, epoch),
            round: 0,
            score,
        };
        forger.say(&evaluated).await;
    };
    let job = asked_of(scored(&fleet.model()), 4);
    let id = despite(&fleet, EVALUATING, &job, &infinite).await;
    let site = unscored(&fleet, &id).await;
    assert_eq!(site["trouble"], "not_finite");
    assert_eq!(site["detail"], "no site can have counted its seconds");
}

/// Updates that the aggregator has counted as refused.
async fn counted(fleet: &Fleet) -> u64 {
    let file = fleet.state().join("run/aggregator.health");
    let address = std::fs::read_to_string(file).unwrap();
    let url = format!("http://{}/metrics", address.trim());
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let refused = text
        .lines()
        .filter(|line| line.starts_with("fedpipe_updates_refused_total"));
    let counts = refused.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    counts.sum::<f64>() as u64
}

fn asked(fleet: &Fleet, rank: u16) -> Value {
    asked_of(job(&fleet.model()), rank)
}

fn asked_of(job: Value, rank: u16) -> Value {
    let adapter = json!({"targets": ["q", "v"], "rank": rank, "rank_max": 8, "alpha": 16.0});
    let rounds = json!({"count": 1, "quorum": 2});
    with(with(job, "adapter", adapter), "rounds", rounds)
}

impl Cases<'_> {
    /// Site c answers the first round with these bytes, changed so.
    async fn refused(
        &self,
        what: &str,
        job: &Value,
        bytes: &[u8],
        change: impl Fn(Update) -> Update,
    ) {
        self.answered(
            what,
            job,
            async |id, epoch, stored| {
                let forged = change(forger::update(stored));
                self.forger.report(id, epoch, 1, forged).await;
            },
            bytes,
        )
        .await;
    }

    /// Site c answers the first round with bytes that are no report.
    async fn unreadable(&self, job: &Value) {
        let report = async |id: &str, epoch: u64, _| {
            let subject = format!("fedpipe.v1.report.c.{id}.{epoch}.updated");
            let said = self
                .wire
                .say(&subject, HeaderMap::new(), b"x".to_vec())
                .await;
            assert!(said, "the stream keeps it");
        };
        let what = "a report that cannot be read";
        self.answered(what, job, report, b"x").await;
    }

    /// Site c answers the first round so: it is refused by name, and the others go on.
    async fn answered(
        &self,
        what: &str,
        job: &Value,
        report: impl AsyncFn(&str, u64, ArtifactRef),
        bytes: &[u8],
    ) {
        let Self { fleet, .. } = self;
        let (api, hold) = (fleet.api(), Failpoint::PlannerPlanAfterPlanStored);
        fleet.points().arm(hold, Fate::Halted);
        let id = api.submit(job).await;
        fleet.points().reached(hold, Fate::Halted, END).await;
        fleet.halt("worker-c");
        let stored = self.forger.store(&id, 1, bytes).await;
        fleet.go_on("planner");
        let open = api.phase(&id, "training", END).await;
        let epoch = open["epoch"].as_u64().unwrap();
        report(&id, epoch, stored).await;
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

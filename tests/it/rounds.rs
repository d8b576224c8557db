//! Whom a round asks, who is late for it, what its updates weigh, and which round's adapter is kept.

use std::collections::BTreeSet;
use std::time::Duration;

use artifacts::Transfer;
use chassis::failpoint::Failpoint;
use domain::artifact::ArtifactRef;
use serde_json::{Value, json};
use tests::forger::{self, Forger};
use tests::job::{job, scored, with};
use tests::points::Fate;
use tests::replay::Replay;
use tests::tensors::{self, Adapter, Factors};
use tests::{Api, Fleet, Setup, Wire};

const END: Duration = Duration::from_secs(60);
/// Largest adapter file here.
const LIMIT: u64 = 16 << 20;

/// The workers of a round, and the earlier round that each one's update is of.
pub fn workers(round: &Value) -> Vec<(&str, Option<u64>)> {
    let all = round["workers"].as_array().unwrap().iter();
    all.map(|one| (one["worker"].as_str().unwrap(), one["trained_in"].as_u64()))
        .collect()
}

fn names(list: &Value) -> Vec<&str> {
    let all = list.as_array().unwrap().iter();
    all.map(|one| one.as_str().unwrap()).collect()
}

/// The epoch in which a round was opened.
pub async fn epoch(api: &Api, id: &str, round: u64) -> u64 {
    let events = api.events(id).await;
    let opened = |event: &&tests::api::Event| {
        event.name == "opened" && event.detail["round"].as_u64() == Some(round)
    };
    events.iter().find(opened).unwrap().epoch
}

#[tokio::test]
async fn a_round_asks_the_sites_that_were_drawn_and_a_killed_aggregator_asks_the_same() {
    let sampled = json!({"count": 4, "quorum": "all", "sample": 2});
    let replay = Replay::prepare(&Setup::sites(4), async |fleet| {
        with(job(&fleet.model()), "rounds", sampled)
    })
    .await;
    let Replay { fleet, .. } = &replay;
    let wire = Wire::tap(fleet).await;
    // What seed 7 draws in rounds 1 to 4: see `aggregator::rounds::ask`.
    let drawn = [["a", "c"], ["a", "d"], ["b", "c"], ["a", "b"]];
    for point in [
        Failpoint::AggregatorOpenAfterFirstTask,
        Failpoint::AggregatorFoldAfterState,
    ] {
        fleet.points().arm(point, Fate::Killed);
        let disturbed = replay.begin().await;
        replay.end(&disturbed).await.unwrap();
        assert!(!fleet.points().disarm(point, Fate::Killed), "not reached");
        let rounds = fleet.api().rounds(&disturbed.id).await;
        for (round, expected) in rounds[1..].iter().zip(drawn) {
            assert_eq!(names(&round["asked"]), expected);
            assert_eq!(workers(round), expected.map(|name| (name, None)));
            assert_eq!(round["missing"], json!([]));
        }
        // Who was not drawn was given nothing to do.
        let reports = format!("fedpipe.v1.report.*.{}.*.updated", disturbed.id);
        assert_eq!(wire.held("FEDPIPE_REPORTS", &reports).await, 8);
        let events = fleet.api().events(&disturbed.id).await;
        let opened = events.iter().find(|event| event.name == "opened").unwrap();
        assert_eq!(names(&opened.detail["asked"]), drawn[0]);
    }
}

#[tokio::test]
async fn a_site_that_is_lost_makes_room_for_one_that_was_not_drawn() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let api = fleet.api();
    // The one site that is asked stands still in the middle of its training, and is given up.
    let training = Failpoint::WorkerTrainAfterFirstStep;
    fleet.points().arm(training, Fate::Halted);
    let rounds = json!({"count": 2, "sample": 1});
    let id = api
        .submit(&with(job(&fleet.model()), "rounds", rounds))
        .await;
    api.succeeded(&id, END).await;
    assert!(
        !fleet.points().disarm(training, Fate::Halted),
        "not reached"
    );
    fleet.all_go_on();
    let rounds = api.rounds(&id).await;
    assert_eq!(names(&rounds[1]["asked"]).len(), 2);
    let lost = rounds[1]["missing"][0]["worker"].as_str().unwrap();
    let trained = workers(&rounds[1]);
    assert_eq!(trained.len(), 1);
    assert_ne!(trained[0].0, lost);
    assert_eq!(names(&rounds[2]["asked"]).len(), 1);
}

#[tokio::test]
async fn a_site_that_is_late_is_dropped_and_asked_again() {
    let patient = Setup {
        idle: Duration::from_secs(4),
        ..Setup::sites(3)
    };
    let fleet = Fleet::start(&patient).await;
    let api = fleet.api();
    let wire = Wire::tap(&fleet).await;
    let decided = Failpoint::AggregatorCloseAfterDecision;
    fleet.points().arm(decided, Fate::Halted);
    let rounds = json!({"count": 4, "quorum": 2, "deadline": 8});
    let id = api
        .submit(&with(job(&fleet.model()), "rounds", rounds))
        .await;
    fleet.points().reached(decided, Fate::Halted, END).await;
    fleet.halt("worker-c");
    let withdrawn = Failpoint::AggregatorCloseAfterWithdraw;
    fleet.go_on("aggregator");
    let path = |job: &Value| job["phase"] == "training" && job["round"] == 2;
    api.until(&id, "round 2 is open", END, path).await;
    fleet.points().arm(withdrawn, Fate::Halted);
    fleet.points().reached(withdrawn, Fate::Halted, END).await;
    let late = epoch(api, &id, 2).await;
    let task = format!("fedpipe.v1.task.c.{id}.{late}.*");
    assert_eq!(wire.held("FEDPIPE_TASKS", &task).await, 0);
    fleet.all_go_on();
    api.succeeded(&id, END).await;
    let rounds = api.rounds(&id).await;
    assert_eq!(workers(&rounds[2]), [("a", None), ("b", None)]);
    assert_eq!(rounds[2]["missing"][0]["worker"], "c");
    assert_eq!(rounds[2]["missing"][0]["trouble"], "too_late");
    let back = |round: &Value| workers(round).contains(&("c", None));
    assert!(rounds[3..].iter().any(back), "c was not asked again");
    let report = format!("fedpipe.v1.report.c.{id}.{late}.updated");
    assert_eq!(wire.held("FEDPIPE_REPORTS", &report).await, 0);
}

#[tokio::test]
async fn the_best_round_is_kept_and_patience_ends_a_job_early_whoever_is_killed() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let api = fleet.api();
    // Without learning every score is the same: none is better than that of the untrained adapter.
    let mut still = scored(&fleet.model());
    still["training"]["learning_rate"] = json!(0.0);
    still["rounds"] = json!({"count": 6, "quorum": "all", "keep": "best", "patience": 2});
    for point in [
        Failpoint::AggregatorEvaluateAfterScores,
        Failpoint::AggregatorEvaluateAfterState,
        Failpoint::AggregatorFinalizeAfterReport,
    ] {
        fleet.points().arm(point, Fate::Killed);
        let id = api.submit(&still).await;
        let adapter = api.succeeded(&id, END).await;
        assert!(!fleet.points().disarm(point, Fate::Killed), "not reached");
        let rounds = api.rounds(&id).await;
        assert_eq!(rounds.len(), 3, "it stops after two rounds");
        assert_eq!(rounds[0]["adapter"]["sha256"], adapter.as_str());
        let job = api.job(&id).await;
        assert_eq!(
            (&job["kept"]["round"], &job["kept"]["last"]),
            (&json!(0), &json!(2))
        );
        let events = api.events(&id).await;
        let said = |name: &str| {
            let all = events.iter().filter(|event| event.name == name);
            all.map(|event| event.detail.clone()).collect::<Vec<_>>()
        };
        assert_eq!(said("stopped").len(), 1, "{events:#?}");
        assert_eq!(said("stopped")[0]["round"], 2);
        assert_eq!(said("finished")[0]["kept"]["round"], 0);
        let report = api.report(&id).await;
        assert_eq!(report["kept"]["round"], 0);
        let why = report["kept"]["stopped_early"].as_str().unwrap();
        assert!(
            why.starts_with("none of the last 2 scores was better"),
            "{why}"
        );
        assert_eq!(report["evaluations"].as_array().unwrap().len(), 3);
    }

    // With much learning the loss goes up and down; which round is best is known from the scores.
    let mut wild = with(scored(&fleet.model()), "evaluation", json!({}));
    wild["training"]["learning_rate"] = json!(0.3);
    wild["rounds"] = json!({"count": 4, "quorum": "all", "keep": "best"});
    let id = api.submit(&wild).await;
    let adapter = api.succeeded(&id, END).await;
    let rounds = api.rounds(&id).await;
    let loss = |round: &Value| round["evaluation"]["loss"].as_f64().unwrap();
    let losses: Vec<f64> = rounds.iter().map(loss).collect();
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let best = losses.iter().position(|loss| *loss == least).unwrap();
    assert_eq!(rounds.len(), 5);
    assert_eq!(
        api.job(&id).await["kept"]["round"],
        json!(best),
        "{losses:?}"
    );
    assert_eq!(rounds[best]["adapter"]["sha256"], adapter.as_str());
}

#[tokio::test]
async fn an_update_weighs_by_its_records_by_its_tokens_or_as_much_as_any_other() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let api = fleet.api();
    let mut shares = Vec::new();
    for weights in ["samples", "tokens", "equal"] {
        let asked = with(
            job(&fleet.model()),
            "aggregation",
            json!({"weights": weights}),
        );
        let id = api.submit(&asked).await;
        api.succeeded(&id, END).await;
        let rounds = api.rounds(&id).await;
        let all = rounds[1]["workers"].as_array().unwrap();
        let figure = |worker: &Value| match weights {
            "samples" => worker["metrics"]["records"].as_f64().unwrap(),
            "tokens" => worker["metrics"]["tokens"].as_f64().unwrap(),
            _ => 1.0,
        };
        let sum: f64 = all.iter().map(figure).sum();
        for worker in all {
            let off = worker["weight"].as_f64().unwrap() - figure(worker) / sum;
            assert!(off.abs() < 1e-12, "{weights}: {worker:#}");
            shares.push(worker["weight"].to_string());
        }
    }
    let (by_records, others) = shares.split_at(3);
    let (by_tokens, equal) = others.split_at(3);
    let distinct = |shares: &[String]| shares.iter().collect::<BTreeSet<_>>().len();
    assert_eq!((distinct(by_records), distinct(equal)), (1, 1));
    assert!(distinct(by_tokens) > 1, "every site trained as many tokens");
}

#[tokio::test]
async fn a_job_that_contradicts_itself_is_refused_with_what_would_be_right() {
    let fleet = Fleet::start(&Setup::sites(1)).await;
    let check = async |rounds: Value, field: &str, says: &str| {
        let asked = with(job(&fleet.model()), "rounds", rounds);
        let key = format!("key-{}", chassis::clock::random_token());
        let answer = fleet.api().try_submit(&asked, &key).await;
        assert_eq!(answer.status.as_u16(), 422, "{answer:?}");
        let text = answer.body.to_string();
        assert!(text.contains(field) && text.contains(says), "{text}");
    };
    check(json!({"keep": "best"}), "rounds.keep", "give `evaluation`").await;
    let credit = json!({"late": "credit", "quorum": "all"});
    check(credit, "rounds.late", "use `late: drop`").await;
    let more = json!({"sample": 1, "quorum": 2});
    check(more, "rounds.quorum", "1 sites that a round asks").await;
}

/// The leading slices of an adapter.
fn leading(adapter: &Adapter, rank: usize) -> Adapter {
    let cut = |factors: &Factors| {
        let Factors { inp, out, .. } = *factors;
        let rows = factors.b.chunks(factors.rank);
        Factors {
            rank,
            inp,
            out,
            a: factors.a[..rank * inp].to_vec(),
            b: rows.flat_map(|row| &row[..rank]).copied().collect(),
        }
    };
    let all = adapter.iter();
    all.map(|(name, factors)| (name.clone(), cut(factors)))
        .collect()
}

async fn stored(fleet: &Fleet, artifact: &Value) -> Adapter {
    let artifact: ArtifactRef = serde_json::from_value(artifact.clone()).unwrap();
    let store = fleet.objects();
    let transfer = Transfer::default();
    let bytes = store.get_bytes(&artifact, LIMIT, &transfer).await;
    tensors::read(&bytes.unwrap())
}

#[tokio::test]
async fn a_late_update_counts_in_the_next_round_as_the_change_of_what_it_had_loaded() {
    let patient = Setup {
        idle: Duration::from_secs(6),
        ..Setup::sites(3)
    };
    let fleet = Fleet::start(&patient).await;
    let (api, points) = (fleet.api(), fleet.points());
    let wire = Wire::tap(&fleet).await;
    // Every merge fits into this rank: nothing is dropped, and the formula holds to rounding.
    let adapter = json!({"targets": ["q", "v"], "rank": 4, "rank_max": 48, "alpha": 48.0});
    let mut asked = with(job(&fleet.model()), "adapter", adapter);
    asked["retention"] = json!({"keep_updates": true});
    asked["rounds"] = json!({"count": 4, "quorum": 2, "deadline": 15, "late": "credit", "staleness_discount": 0.5});
    let decided = Failpoint::AggregatorCloseAfterDecision;
    points.arm(decided, Fate::Halted);
    let id = api.submit(&asked).await;
    points.reached(decided, Fate::Halted, END).await;
    // Round 1 is decided. Site c stands still, so round 2 closes at its deadline without it.
    fleet.halt("worker-c");
    fleet.go_on("aggregator");
    let open = |job: &Value| job["phase"] == "training" && job["round"] == 2;
    api.until(&id, "round 2 is open", END, open).await;
    points.arm(decided, Fate::Halted);
    points.reached(decided, Fate::Halted, END).await;
    let late = json!([{"worker": "c", "round": 2}]);
    assert_eq!(api.job(&id).await["late"], late);
    let of_round_2 = epoch(api, &id, 2).await;

    // Round 3 is open, and stays so until somebody goes on: then c's update of round 2 arrives.
    let trains = Failpoint::WorkerTrainAfterFirstStep;
    points.arm(trains, Fate::Halted);
    fleet.go_on("aggregator");
    points.reached(trains, Fate::Halted, END).await;
    let [before, loaded] = [1, 2].map(|round| format!("{id}.round.{round}"));
    let loaded_by_c = stored(&fleet, &wire.value("fedpipe_jobs", &before).await["global"]).await;
    let in_time = stored(&fleet, &wire.value("fedpipe_jobs", &loaded).await["global"]).await;
    let mut state = 1u64;
    let mut number = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * 0.1
    };
    let widths = in_time.iter();
    let made: Adapter = widths
        .map(|(name, widths)| (name.clone(), Factors::made(4, widths, &mut number)))
        .collect();
    let forger = Forger::of(&fleet, "c").await;
    let update = forger.store(&id, 2, &tensors::write(&made)).await;
    // Killed when it has the update, when it has decided, and when it has merged: the record says what
    // is merged of whom, and with what it started from.
    let kills = [
        Failpoint::AggregatorIngestAfterDownload,
        decided,
        Failpoint::AggregatorFoldAfterMerge,
    ];
    kills
        .iter()
        .for_each(|point| points.arm(*point, Fate::Killed));
    forger
        .report(&id, of_round_2, 2, forger::update(update))
        .await;
    let ingested = Failpoint::AggregatorIngestAfterDownload;
    points.reached(ingested, Fate::Killed, END).await;
    fleet.all_go_on();
    api.succeeded(&id, END).await;
    for point in kills {
        assert!(
            !points.disarm(point, Fate::Killed),
            "{} was not reached",
            point.name()
        );
    }

    let rounds = api.rounds(&id).await;
    assert_eq!(workers(&rounds[2]), [("a", None), ("b", None)]);
    assert_eq!(rounds[2]["missing"][0]["trouble"], "too_late");
    assert_eq!(names(&rounds[3]["asked"]), ["a", "b"]);
    assert_eq!(rounds[3]["missing"], json!([]));
    assert_eq!(
        workers(&rounds[3]),
        [("a", None), ("b", None), ("c", Some(2))]
    );
    assert_eq!(workers(&rounds[4]), [("a", None), ("b", None), ("c", None)]);
    let events = api.events(&id).await;
    let closed = events.iter().filter(|event| event.name == "closed");
    let closed: Vec<&Value> = closed.map(|event| &event.detail["credited"]).collect();
    assert_eq!(closed[2], &json!([{"worker": "c", "round": 2}]));

    // 8 records each, the late one's weigh half.
    let summary = wire.value("fedpipe_jobs", &format!("{id}.round.3")).await;
    let shares = [0.4, 0.4, 0.2];
    let all = summary["workers"].as_array().unwrap();
    for (worker, share) in all.iter().zip(shares) {
        let off = worker["weight"].as_f64().unwrap() - share;
        assert!(off.abs() < 1e-12, "{worker:#}");
    }
    let found = stored(&fleet, &summary["global"]).await;
    let starts = [&in_time, &in_time, &loaded_by_c].map(|start| leading(start, 4));
    for (name, merged) in &found {
        let mut expected = in_time[name].product();
        let mut as_if_in_time = expected.clone();
        for (number, (worker, share)) in all.iter().zip(shares).enumerate() {
            let update = stored(&fleet, &worker["update"]).await[name].product();
            let start = starts[number][name].product();
            let other = starts[0][name].product();
            for at in 0..expected.len() {
                expected[at] += share * (update[at] - start[at]);
                as_if_in_time[at] += share * (update[at] - other[at]);
            }
        }
        let off = tensors::off(&merged.product(), &expected);
        assert!(off < 1e-4, "{name}: {off}");
        let off = tensors::off(&as_if_in_time, &expected);
        assert!(off > 1e-3, "{name}: what c had loaded makes no difference");
    }
}

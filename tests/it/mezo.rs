//! Zeroth-order jobs through the real services: scalars on the wire, replayed wherever they are needed.

use std::time::Duration;

use async_nats::Message as Heard;
use chassis::failpoint::Failpoint;
use contract::message::report::{Head, Walked};
use domain::artifact::Digest;
use domain::id::Epoch;
use domain::zeroth::Scalars;
use futures::StreamExt;
use serde_json::{Value, json};
use tests::forger::Forger;
use tests::job::{walking, with};
use tests::points::Fate;
use tests::replay::Replay;
use tests::{Fleet, Setup, Wire, full};

const END: Duration = Duration::from_secs(90);

fn workers(round: &Value) -> &Vec<Value> {
    round["workers"].as_array().unwrap()
}

fn figure(worker: &Value, name: &str) -> u64 {
    worker["metrics"][name].as_u64().unwrap()
}

#[tokio::test]
async fn scalars_and_tensors_end_in_the_same_adapter() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let count = if full() { 20 } else { 4 };
    let rounds = json!({"count": count, "quorum": "all"});
    let asked = |wire: &str| {
        let mezo = json!({"seeds": "per-worker", "wire": wire, "perturbations": 2});
        walking(&fleet.model(), &mezo, 3, &rounds)
    };
    let first = fleet.api().submit(&asked("scalars")).await;
    let by_scalars = fleet.api().succeeded(&first, END).await;
    let second = with(asked("tensors"), "plan_from", json!(first));
    let second = fleet.api().submit(&second).await;
    let by_tensors = fleet.api().succeeded(&second, END).await;
    assert_eq!(by_scalars, by_tensors);
    let (scalars, tensors) = (
        fleet.api().rounds(&first).await,
        fleet.api().rounds(&second).await,
    );
    assert_eq!(scalars.len(), count + 1);
    for (one, other) in scalars.iter().zip(&tensors).skip(1) {
        assert_eq!(one["adapter"]["sha256"], other["adapter"]["sha256"]);
        let weights = |round: &Value| -> Vec<f64> {
            let all = workers(round).iter();
            all.map(|worker| worker["weight"].as_f64().unwrap())
                .collect()
        };
        assert_eq!(weights(one), weights(other));
        let [a, b, c] = weights(one)[..] else {
            panic!("three sites: {one:#}")
        };
        assert!(a != b && b != c && a != c, "{a} {b} {c}");
        for (scalars, tensors) in workers(one).iter().zip(workers(other)) {
            let sent = [scalars, tensors].map(|worker| figure(worker, "bytes_up"));
            assert!(sent[0] < 1024 && sent[1] > 4 * 1024, "{sent:?}");
        }
    }
    let digests: Vec<&Value> = scalars
        .iter()
        .map(|one| &one["adapter"]["sha256"])
        .collect();
    assert!(digests.windows(2).all(|two| two[0] != two[1]), "it learns");
}

/// What a site sends of a round, seen on the wire.
fn seen(message: &Heard) -> (String, u64, Walked) {
    let headers = message.headers.as_ref().unwrap();
    let header = |name| headers.get(name).map(|value| value.as_str());
    let walked = contract::decode(
        header(contract::envelope::KIND_HEADER),
        header(contract::envelope::VERSION_HEADER),
        &message.payload,
    );
    let lines = headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        let line = move |value: &async_nats::HeaderValue| name.len() + value.as_str().len() + 4;
        values.iter().map(line).collect::<Vec<_>>()
    });
    let bytes = message.subject.len() + message.payload.len() + lines.sum::<usize>() + 12;
    let worker = message.subject.split('.').nth(3).unwrap().to_owned();
    (worker, bytes as u64, walked.unwrap())
}

#[tokio::test]
async fn a_site_sends_less_than_a_kilobyte_a_round_and_fetches_nothing_after_the_first() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let wire = Wire::tap(&fleet).await;
    let mut heard = wire.hear("fedpipe.v1.report.*.*.*.walked").await;
    let rounds = json!({"count": 3, "quorum": "all"});
    let mut asked = walking(&fleet.model(), &json!({"clip": 50.0}), 30, &rounds);
    asked["evaluation"] = json!({"choices": [" yes", " no"]});
    let id = fleet.api().submit(&asked).await;
    fleet.api().succeeded(&id, END).await;
    let all = fleet.api().rounds(&id).await;
    let mut messages = Vec::new();
    while messages.len() < 9 {
        let message = tokio::time::timeout(END, heard.next()).await.unwrap();
        messages.push(seen(&message.unwrap()));
    }
    for (worker, bytes, walked) in &messages {
        assert_eq!(walked.scalars.values().len(), 30);
        let payload = contract::encode(walked).unwrap().len();
        assert!(payload <= 4 * 30 + 512, "{worker}: {payload}");
        assert_eq!(walked.metrics.bytes_up, *bytes, "{worker}: as it was sent");
        assert!(*bytes < 1024, "{worker}: {bytes}");
        eprintln!(
            "{worker}: {bytes} bytes up, {} of control",
            walked.metrics.control_bytes_up
        );
        assert!(walked.metrics.control_bytes_up <= 8192);
        assert!(walked.metrics.loss.is_finite() && walked.metrics.skipped_steps == 0);
        // The adapter that the site trained from, by its file, is the one that the server made.
        let before = &all[walked.round as usize - 1]["adapter"]["sha256"];
        assert_eq!(walked.start.as_str(), before.as_str().unwrap());
    }
    for (number, round) in all.iter().enumerate() {
        let fetched = round["evaluation"]["bytes_down"].as_u64().unwrap();
        assert_eq!(
            fetched > 0,
            number == 0,
            "round {number} is replayed to be scored"
        );
        for worker in workers(round) {
            assert_eq!(figure(worker, "bytes_down"), 0, "{number}: {worker:#}");
            assert!(figure(worker, "bytes_up") < 1024);
        }
    }
}

#[tokio::test]
async fn a_site_that_missed_ten_rounds_or_comes_late_reaches_the_same_adapter() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let rounds = json!({"count": 14, "quorum": "all", "sample": 1});
    let mut asked = walking(&fleet.model(), &json!({}), 2, &rounds);
    // Of what this seed draws: one site is asked in round 1 and then in round 13, one in round 4 for the first time.
    asked["training"]["seed"] = json!(4);
    let id = fleet.api().submit(&asked).await;
    fleet.api().succeeded(&id, END).await;
    let all = fleet.api().rounds(&id).await;
    // A site reports the digest of the file that it trained from: with an adapter that differed by a bit it would have
    // fetched another, which below nobody did, or been refused (see `retrace`).
    let events = fleet.api().events(&id).await;
    assert!(events.iter().all(|event| event.name != "refused"));
    let mut gaps = Vec::new();
    let mut firsts = Vec::new();
    for name in ["a", "b", "c"] {
        let mut last = None;
        for (number, round) in all.iter().enumerate().skip(1) {
            let Some(own) = workers(round).iter().find(|one| one["worker"] == name) else {
                continue;
            };
            let fetched = figure(own, "bytes_down");
            match last {
                None => {
                    assert!(fetched > 0, "{name} has nothing to replay from in {number}");
                    firsts.push(number);
                }
                Some(before) => {
                    assert_eq!(fetched, 0, "{name} replays {before} to {number}");
                    gaps.push(number - before);
                }
            }
            last = Some(number);
        }
    }
    assert!(
        firsts.iter().any(|first| *first > 1),
        "nobody came late: {firsts:?}"
    );
    assert!(
        gaps.iter().any(|gap| *gap > 10),
        "nobody missed ten rounds: {gaps:?}"
    );
}

#[tokio::test]
async fn a_site_whose_adapter_is_lost_or_damaged_fetches_it_and_the_end_is_the_same() {
    let mezo = json!({});
    let replay = Replay::prepare(&Setup::sites(3), async |fleet| {
        walking(
            &fleet.model(),
            &mezo,
            2,
            &json!({"count": 3, "quorum": "all"}),
        )
    })
    .await;
    let Replay { fleet, .. } = &replay;
    let disturbed = replay.hold(Failpoint::AggregatorFoldAfterState).await;
    // After round 1: their workers are idle; b loses what it would replay from, c's is cut.
    let old = ["worker-b", "worker-c"].map(|name| (name, fleet.kill(name)));
    std::fs::remove_dir_all(adapters_of(fleet, "b")).unwrap();
    let mut cut = 0;
    for entry in std::fs::read_dir(adapters_of(fleet, "c")).unwrap() {
        let path = entry.unwrap().path();
        let file = std::fs::OpenOptions::new().write(true).open(path);
        file.unwrap().set_len(100).unwrap();
        cut += 1;
    }
    assert_eq!(cut, 1, "the adapter that round 1 began with");
    fleet.all_go_on();
    replay.end(&disturbed).await.unwrap();
    for (name, old) in old {
        fleet.back(name, old).await;
    }
    let rounds = fleet.api().rounds(&disturbed.id).await;
    let fetched = |round: usize, name: &str| {
        let own = workers(&rounds[round])
            .iter()
            .find(|one| one["worker"] == name);
        figure(own.unwrap(), "bytes_down")
    };
    assert!(fetched(2, "b") > 0, "it has nothing to replay from");
    assert!(
        fetched(2, "c") > 0,
        "what it would replay from is not whole"
    );
    assert_eq!((fetched(2, "a"), fetched(3, "b")), (0, 0));
}

/// Where a worker keeps merged adapters.
fn adapters_of(fleet: &Fleet, name: &str) -> std::path::PathBuf {
    let file = fleet.state().join(format!("config/worker-{name}.toml"));
    let text = std::fs::read_to_string(&file).unwrap();
    let site: toml::Table = text.parse().unwrap();
    std::path::Path::new(site["state_dir"].as_str().unwrap()).join("global")
}

/// Where all walk along the same directions: `kills`.
#[tokio::test]
async fn a_kill_changes_nothing_where_each_site_walks_its_own_way() {
    let replay = Replay::prepare(&Setup::sites(3), async |fleet| {
        let rounds = json!({"count": 2, "quorum": "all"});
        walking(&fleet.model(), &json!({"seeds": "per-worker"}), 2, &rounds)
    })
    .await;
    for point in [
        Failpoint::WorkerTrainBetweenPasses,
        Failpoint::WorkerTrainBeforeUpload,
        Failpoint::AggregatorIngestAfterScalars,
        Failpoint::AggregatorFoldAfterArtifact,
    ] {
        replay.fleet.points().arm(point, Fate::Killed);
        let disturbed = replay.begin().await;
        let ended = replay.end(&disturbed).await;
        let reached = !replay.fleet.points().disarm(point, Fate::Killed);
        assert!(reached, "nobody came to {}", point.name());
        ended.unwrap_or_else(|why| panic!("{}: {why}", point.name()));
    }
}

/// A site that forges its scalars.
struct Cases<'a> {
    fleet: &'a Fleet,
    forger: Forger,
    job: Value,
    honest: Walked,
}

#[tokio::test]
async fn scalars_that_are_not_those_of_the_round_are_refused_by_name() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let wire = Wire::tap(&fleet).await;
    let mut heard = wire.hear("fedpipe.v1.report.c.*.*.walked").await;
    let mezo = json!({"seeds": "per-worker", "clip": 1000.0});
    let job = walking(&fleet.model(), &mezo, 4, &json!({"count": 1, "quorum": 2}));
    let id = fleet.api().submit(&job).await;
    fleet.api().succeeded(&id, END).await;
    let (_, _, honest) = seen(&heard.next().await.unwrap());
    let cases = Cases {
        fleet: &fleet,
        forger: Forger::of(&fleet, "c").await,
        job: with(job, "plan_from", json!(id)),
        honest,
    };
    // The same again by hand counts: what is refused below is refused for what is changed.
    assert_eq!(cases.answered(|_| {}).await, None);
    let scalars = |change: fn(&mut Vec<f32>)| {
        move |walked: &mut Walked| {
            let mut values = walked.scalars.values().to_vec();
            change(&mut values);
            walked.scalars = Scalars::new(values);
        }
    };
    cases
        .refused(
            "has 3 scalars where its plan asks for 4",
            scalars(|all| {
                all.remove(1);
            }),
        )
        .await;
    cases
        .refused(
            "has 5 scalars where its plan asks for 4",
            scalars(|all| {
                all.insert(1, all[1]);
            }),
        )
        .await;
    cases
        .refused("where it did not come to", scalars(|all| all.swap(1, 2)))
        .await;
    cases
        .refused("no number", scalars(|all| all[2] = f32::INFINITY))
        .await;
    cases
        .refused("training.mezo.clip", scalars(|all| all[2] = 1000.5))
        .await;
    cases
        .refused(
            "skipped 1 steps and tells 0",
            scalars(|all| all[3] = Scalars::SKIPPED),
        )
        .await;
    cases
        .refused("of generator 2, the job's of generator 1", |walked| {
            walked.generator = 2;
        })
        .await;
    cases
        .refused("not round 1 from", |walked| {
            walked.start = Digest::from_bytes(&[7; 32]);
        })
        .await;
}

impl Cases<'_> {
    async fn refused(&self, because: &str, change: impl Fn(&mut Walked)) {
        let detail = self.answered(change).await;
        let detail = detail.unwrap_or_else(|| panic!("nobody said: {because}"));
        assert!(detail.contains(because), "{because}: {detail}");
    }

    /// Site c answers the round with its own honest report, changed so; why that is refused, if it is.
    async fn answered(&self, change: impl Fn(&mut Walked)) -> Option<String> {
        let Self { fleet, .. } = self;
        let (api, hold) = (fleet.api(), Failpoint::PlannerPlanAfterPlanStored);
        fleet.points().arm(hold, Fate::Halted);
        let id = api.submit(&self.job).await;
        fleet.points().reached(hold, Fate::Halted, END).await;
        fleet.halt("worker-c");
        fleet.go_on("planner");
        let open = api.phase(&id, "training", END).await;
        let mut walked = self.honest.clone();
        walked.head = Head {
            worker: walked.head.worker,
            job: id.parse().unwrap(),
            epoch: Epoch(open["epoch"].as_u64().unwrap()),
        };
        change(&mut walked);
        self.forger.say(&walked).await;
        let ended = api.ended(&id, END).await;
        fleet.go_on("worker-c");
        assert_eq!(ended["phase"], "succeeded", "{ended:#}");
        let events = api.events(&id).await;
        let said = events.iter().find(|event| event.name == "refused");
        let rounds = api.rounds(&id).await;
        let counted = workers(&rounds[1]).len();
        assert_eq!(counted, if said.is_some() { 2 } else { 3 });
        said.map(|event| {
            assert_eq!(event.detail["site"]["worker"], "c");
            event.detail["site"]["detail"].as_str().unwrap().to_owned()
        })
    }
}

#[tokio::test]
async fn a_site_shares_no_scalar_of_fewer_than_eight_records_unless_it_consents() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let mut asked = walking(
        &fleet.model(),
        &json!({}),
        4,
        &json!({"count": 1, "quorum": "all"}),
    );
    asked["training"]["batch"] = json!(4);
    let id = fleet.api().submit(&asked).await;
    let ended = fleet.api().ended(&id, END).await;
    assert_eq!(ended["phase"], "failed", "{ended:#}");
    let cause = ended["cause"].to_string();
    assert!(cause.contains("the scalar of a step"), "{cause}");
}

#[tokio::test]
async fn a_step_whose_loss_is_no_number_moves_nothing_and_is_counted() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let rounds = json!({"count": 1, "quorum": "all"});
    // A tiny μ under a huge scale: the first losses are numbers, and their slope leads so far that none after is.
    let mezo = json!({"perturbation": 1e-8});
    let mut asked = walking(&fleet.model(), &mezo, 4, &rounds);
    asked["adapter"]["alpha"] = json!(1e26);
    asked["training"]["learning_rate"] = json!(10.0);
    let id = fleet.api().submit(&asked).await;
    fleet.api().succeeded(&id, END).await;
    for worker in workers(&fleet.api().rounds(&id).await[1]) {
        assert_eq!(figure(worker, "skipped_steps"), 3, "{worker:#}");
        assert!(worker["metrics"]["loss"].as_f64().unwrap().is_finite());
    }
}

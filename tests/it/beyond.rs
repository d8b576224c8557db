//! Zeroth-order jobs with what goes beyond the paper, through the real services.

use std::time::Duration;

use contract::Message;
use contract::message::report::Walked;
use futures::StreamExt;
use serde_json::{Value, json};
use tests::job::walking;
use tests::{Fleet, Setup, Wire};

use crate::simulate::simulate;

const END: Duration = Duration::from_secs(90);
/// What sites report of zeroth-order rounds.
const WALKED: &str = "fedpipe.v1.report.*.*.*.walked";

fn walked(payload: &[u8]) -> Walked {
    let version = <Walked as Message>::VERSION.to_string();
    contract::decode(Some(Walked::KIND), Some(&version), payload).unwrap()
}

fn own<'a>(round: &'a Value, name: &str) -> Option<&'a Value> {
    let workers = round["workers"].as_array().unwrap();
    workers.iter().find(|one| one["worker"] == name)
}

fn figure(worker: &Value, name: &str) -> u64 {
    worker["metrics"][name].as_u64().unwrap()
}

/// A bound on the variance for which about three of six directions are enough.
async fn enough_for_three(fleet: &Fleet, wire: &Wire) -> f64 {
    let mut heard = wire.hear(WALKED).await;
    let once = json!({"count": 1, "quorum": "all"});
    let asked = walking(&fleet.model(), &json!({"perturbations": 6}), 2, &once);
    let id = fleet.api().submit(&asked).await;
    fleet.api().succeeded(&id, END).await;
    let mut squares = Vec::new();
    for _ in 0..3 {
        let message = tokio::time::timeout(END, heard.next()).await.unwrap();
        let walked = walked(&message.unwrap().payload);
        squares.extend(
            walked
                .scalars
                .values()
                .iter()
                .map(|one| f64::from(*one).powi(2)),
        );
    }
    squares.iter().sum::<f64>() / squares.len() as f64 / 3.0
}

/// A site that comes late or missed rounds makes scale and mask itself, and the adapter by them: had it one bit of
/// another the server would refuse what it says to start from.
#[tokio::test]
async fn with_mask_scale_and_bounded_variance_late_sites_reach_the_same_adapter() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let wire = Wire::tap(&fleet).await;
    let variance = enough_for_three(&fleet, &wire).await;
    let mut heard = wire.hear(WALKED).await;
    let rounds = json!({"count": 14, "quorum": "all", "sample": 1});
    let mezo = json!({
        "perturbations": 6, "variance": variance, "abreast": 2,
        "mask": {"share": 0.5, "after": 2}, "scaling": {"weight": 0.3, "rounds": 3},
    });
    let mut asked = walking(&fleet.model(), &mezo, 2, &rounds);
    // One site is asked in round 1 and then in round 13, one in round 4 for the first time.
    asked["training"]["seed"] = json!(4);
    let id = fleet.api().submit(&asked).await;
    fleet.api().succeeded(&id, END).await;
    let events = fleet.api().events(&id).await;
    assert!(events.iter().all(|event| event.name != "refused"));
    let plan = fleet.api().get(&format!("/v1/jobs/{id}/plan")).await.body;
    assert_eq!(plan["workers"]["a"]["abreast"], 2, "{plan:#}");
    let mut directions = Vec::new();
    for _ in 0..14 {
        let message = tokio::time::timeout(END, heard.next()).await.unwrap();
        let payload = message.unwrap().payload;
        let walked = walked(&payload);
        assert_eq!(
            walked.scalars.values().len(),
            2 * 6,
            "no more than without a bound"
        );
        assert!(payload.len() <= 4 * 2 * 6 + 512, "{}", payload.len());
        directions.push(walked.scalars.directions(6));
    }
    assert!(directions.iter().all(|count| (4..=12).contains(count)));
    assert!(directions.iter().any(|count| *count < 12), "{directions:?}");
    let all = fleet.api().rounds(&id).await;
    let size = figure(own(&all[1], first_of(&all[1])).unwrap(), "bytes_down");
    let (mut late, mut missed) = (0, 0);
    for name in ["a", "b", "c"] {
        let mut last = None;
        for (number, round) in all.iter().enumerate().skip(1) {
            let Some(own) = own(round, name) else {
                continue;
            };
            let fetched = figure(own, "bytes_down");
            match last {
                None => late += u32::from(number > 1),
                Some(before) => {
                    // The adapter is replayed; what the mask goes by is fetched once.
                    assert!(
                        fetched <= size,
                        "{name} in {number} after {before}: {fetched}"
                    );
                    missed += u32::from(number - before > 2);
                    if before > 3 {
                        assert_eq!(fetched, 0, "{name} in {number} after {before}");
                    }
                }
            }
            last = Some(number);
        }
    }
    assert!(late > 0 && missed > 0, "{late} {missed}");
}

fn first_of(round: &Value) -> &str {
    round["workers"][0]["worker"].as_str().unwrap()
}

/// A simulation makes mask and scale of the rounds before as sites and server do, and stops at as many directions.
#[tokio::test]
async fn with_mask_scale_and_bounded_variance_a_played_job_ends_in_the_running_services_adapter() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let wire = Wire::tap(&fleet).await;
    let variance = enough_for_three(&fleet, &wire).await;
    let mask = json!({"share": 0.5, "after": 1});
    // Of the fourth round's scale the first is no part any more.
    let scaling = json!({"weight": 0.3, "rounds": 2});
    let rounds = json!({"count": 4, "quorum": "all"});
    for mezo in [
        json!({"perturbations": 6, "variance": variance, "mask": mask, "scaling": scaling}),
        json!({"seeds": "per-worker", "perturbations": 6, "variance": variance, "mask": mask}),
    ] {
        let asked = walking(&fleet.model(), &mezo, 2, &rounds);
        let id = fleet.api().submit(&asked).await;
        let digest = fleet.api().succeeded(&id, END).await;
        let folder = tempfile::tempdir().unwrap();
        let job = folder.path().join("job.json");
        std::fs::write(&job, asked.to_string()).unwrap();
        let fleet_file = fleet.folder().join("fleet.toml");
        let report = simulate(&fleet_file, &job, &[]).await.json();
        let played = report["run"]["rounds"].as_array().unwrap();
        let all = fleet.api().rounds(&id).await;
        assert_eq!(played.len() + 1, all.len());
        for (round, real) in played.iter().zip(&all[1..]) {
            let number = &real["round"];
            let made = &real["adapter"]["sha256"];
            assert_eq!(&round["global"], made, "round {number} of {mezo}");
        }
        assert_eq!(report["run"]["adapter"]["sha256"], digest, "{mezo}");
        if mezo["seeds"] != "per-worker" {
            check_directions(played);
        }
    }
}

/// The bound spared some of the twelve directions of two steps, and never left a step with one.
fn check_directions(played: &[Value]) {
    let workers = played
        .iter()
        .flat_map(|round| round["workers"].as_array().unwrap());
    let counts = workers.map(|worker| worker["slopes"]["directions"].as_u64().unwrap());
    let counts: Vec<u64> = counts.collect();
    assert!(
        counts.iter().all(|count| (4..=12).contains(count)),
        "{counts:?}"
    );
    assert!(counts.iter().any(|count| *count < 12), "{counts:?}");
}

#[tokio::test]
async fn with_a_mask_scalars_and_tensors_end_in_the_same_adapter() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let rounds = json!({"count": 3, "quorum": "all"});
    let asked = |wire: &str| {
        let mask = json!({"share": 0.3, "after": 1});
        let mezo = json!({"seeds": "per-worker", "wire": wire, "mask": mask});
        walking(&fleet.model(), &mezo, 2, &rounds)
    };
    let mut ends = Vec::new();
    for wire in ["scalars", "tensors"] {
        let id = fleet.api().submit(&asked(wire)).await;
        ends.push(fleet.api().succeeded(&id, END).await);
    }
    assert_eq!(ends[0], ends[1]);
}

#[tokio::test]
async fn what_has_no_meaning_is_refused_with_its_row() {
    let fleet = Fleet::start(&Setup::sites(1)).await;
    let rounds = json!({"count": 1, "quorum": "all"});
    let mezo = json!({"seeds": "per-worker", "scaling": {}});
    let asked = walking(&fleet.model(), &mezo, 2, &rounds);
    let answer = fleet.api().try_submit(&asked, "beyond").await;
    assert_eq!(answer.status.as_u16(), 422, "{:#}", answer.body);
    let text = answer.body.to_string();
    assert!(text.contains("training.mezo.scaling"), "{text}");
}

//! Training settings and measures of a job, through all processes.

use std::time::Duration;

use chassis::failpoint::Failpoint;
use serde_json::{Value, json};
use tests::job::{job, with};
use tests::points::Fate;
use tests::replay::Replay;
use tests::{Fleet, Setup};

const END: Duration = Duration::from_secs(60);

/// Everything that follows from the place of a step in the whole job, or from draws of its own.
fn scheduled(fleet: &Fleet) -> Value {
    let training = json!({
        "optimizer": "adamw", "local_steps": 3, "batch_tokens": 192, "accumulate": 2, "sequence_length": 96,
        "learning_rate": 1e-2, "schedule": "cosine", "warmup_ratio": 0.25, "dropout": 0.1, "weight_decay": 0.01,
        "seed": 7,
    });
    with(job(&fleet.model()), "training", training)
}

#[tokio::test]
async fn a_schedule_dropout_and_packed_batches_are_the_same_after_a_kill() {
    let replay = Replay::prepare(&Setup::sites(2), async |fleet| scheduled(fleet)).await;
    let step = Failpoint::WorkerTrainAfterFirstStep;
    replay.fleet.points().arm(step, Fate::Killed);
    let disturbed = replay.begin().await;
    replay.end(&disturbed).await.unwrap();
    assert!(
        !replay.fleet.points().disarm(step, Fate::Killed),
        "not reached"
    );
    let rounds = replay.fleet.api().rounds(&disturbed.id).await;
    for worker in rounds[1..]
        .iter()
        .flat_map(|round| round["workers"].as_array().unwrap())
    {
        let metrics = &worker["metrics"];
        assert_eq!(metrics["steps"], 3, "{worker:#}");
        // Six batches of at most 192 tokens, each at least half full.
        let tokens = metrics["tokens"].as_u64().unwrap();
        assert!(tokens <= 6 * 192 && tokens > 3 * 192, "{worker:#}");
    }
    // Without the schedule it is another adapter.
    let mut constant = replay.job.clone();
    constant["training"]["schedule"] = json!("constant");
    let id = replay.fleet.api().submit(&constant).await;
    assert_ne!(replay.fleet.api().succeeded(&id, END).await, replay.digest);
}

#[tokio::test]
async fn rounds_are_scored_by_generated_answers_and_the_best_is_kept_by_them() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let api = fleet.api();
    let evaluation = json!({"answers": {"records": 8, "tokens": 4}, "measure": "rouge_l"});
    let rounds = json!({"count": 3, "quorum": "all", "keep": "best", "patience": 1});
    let asked = with(job(&fleet.model()), "evaluation", evaluation);
    let id = api.submit(&with(asked, "rounds", rounds)).await;
    api.succeeded(&id, END).await;
    let rounds = api.rounds(&id).await;
    let mut best = (0, f64::MIN);
    for (number, round) in rounds.iter().enumerate() {
        let evaluation = &round["evaluation"];
        let answers = &evaluation["answers"];
        assert_eq!(answers["records"], 16, "two sites of eight: {round:#}");
        for figure in ["exact_match", "f1", "bleu"] {
            assert!(answers[figure].is_number(), "{round:#}");
        }
        let (loss, perplexity) = (&evaluation["loss"], &evaluation["perplexity"]);
        let apart = loss.as_f64().unwrap().exp() - perplexity.as_f64().unwrap();
        assert!(apart.abs() < 1e-6, "{round:#}");
        let figure = answers["rouge_l"].as_f64().unwrap();
        if figure > best.1 {
            best = (number, figure);
        }
    }
    let report = api.report(&id).await;
    assert_eq!(report["kept"]["round"], best.0, "{:#}", report["kept"]);
    assert_eq!(report["kept"]["figure"]["measure"], "rouge_l");
    let events = api.events(&id).await;
    let scored = events.iter().filter(|event| event.name == "evaluated");
    for event in scored {
        assert_eq!(event.detail["figure"]["measure"], "rouge_l", "{event:?}");
    }
    let address = std::fs::read_to_string(fleet.state().join("run/api.address")).unwrap();
    let api = format!("http://{}", address.trim());
    let shown = tests::command::fedpipe(&["job", "rounds", &id, "--api", &api])
        .await
        .good();
    for word in ["rouge l", "exact match", "perplexity"] {
        assert!(shown.contains(word), "{shown}");
    }
}

//! A loss among a few words, `training.choices`, through the services: whatever the steps, the simulation's too.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tests::job::{job, walking, with};
use tests::{Fleet, Setup, Site};

use crate::simulate::simulate;

const END: Duration = Duration::from_secs(60);

fn loss(round: &Value) -> f64 {
    round["evaluation"]["loss"].as_f64().unwrap()
}

#[tokio::test]
async fn sites_learn_which_of_a_few_words_follows_with_and_without_gradients() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let folder = tempfile::tempdir().unwrap();
    let choices = json!([" yes", " no"]);
    let mut by_gradients = job(&fleet.model());
    by_gradients["adapter"]["rank"] = json!(8);
    by_gradients["training"]["local_steps"] = json!(8);
    let rounds = json!({"count": 2, "quorum": "all"});
    for mut asked in [
        by_gradients,
        walking(&fleet.model(), &json!({}), 3, &rounds),
        walking(
            &fleet.model(),
            &json!({"seeds": "per-worker", "abreast": 4, "perturbations": 2}),
            3,
            &rounds,
        ),
    ] {
        asked["training"]["choices"] = choices.clone();
        // Scored among the same words, although it does not say them.
        asked["evaluation"] = json!({});
        let id = fleet.api().submit(&asked).await;
        let digest = fleet.api().succeeded(&id, END).await;
        let all = fleet.api().rounds(&id).await;
        // To know nothing of hundreds of words would be more than 5.
        assert!((0.0..3.0).contains(&loss(&all[0])), "{:#}", all[0]);
        let scored = &all[2]["evaluation"];
        assert!(scored["balanced_accuracy"].is_number(), "{scored:#}");
        for round in &all[1..] {
            for worker in round["workers"].as_array().unwrap() {
                let loss = worker["metrics"]["loss"].as_f64().unwrap();
                assert!((0.0..3.0).contains(&loss), "{worker:#}");
            }
        }
        if asked["training"]["optimizer"] == "adamw" {
            assert!(loss(&all[2]) < loss(&all[0]) - 0.1, "{:#}", all[2]);
        }
        let job = folder.path().join("job.json");
        fs::write(&job, asked.to_string()).unwrap();
        let played = simulate(&fleet.folder().join("fleet.toml"), &job, &[]).await;
        let played = played.json();
        assert_eq!(played["run"]["adapter"]["sha256"], digest);
        assert_eq!(played["run"]["rounds"][1]["score"]["loss"], scored["loss"]);
    }
}

#[tokio::test]
async fn a_choice_of_several_tokens_is_refused_by_its_name() {
    let fleet = Fleet::start(&Setup::sites(1)).await;
    let mut asked = job(&fleet.model());
    asked["training"]["choices"] = json!([" yes", " certainly not"]);
    let asked = with(asked, "evaluation", json!({}));
    let id = fleet.api().submit(&asked).await;
    let ended = fleet.api().ended(&id, END).await;
    assert_eq!(ended["phase"], "failed", "{ended:#}");
    let why = ended["cause"]["sites"][0]["detail"].to_string();
    assert!(
        why.contains("certainly not") && why.contains("tokens of the model's"),
        "{why}"
    );
}

#[tokio::test]
async fn choices_that_leave_a_site_few_records_are_refused_there() {
    let folder = tempfile::tempdir().unwrap();
    let train = folder.path().join("train.jsonl");
    // Of forty records seven are answered with yes or no.
    let lines = (0..40).map(|number| {
        let answer = ["yes", "no", "perhaps"][if number < 7 { number % 2 } else { 2 }];
        json!({"prompt": format!("{number}: so? Answer:"), "completion": format!(" {answer}")})
    });
    let lines: Vec<String> = lines.map(|line| line.to_string()).collect();
    fs::write(&train, lines.join("\n")).unwrap();
    let site = Site {
        train: Some(train),
        ..Site::new("a")
    };
    let fleet = Fleet::start(&Setup {
        sites: vec![site],
        ..Setup::sites(0)
    })
    .await;
    let mut asked = job(&fleet.model());
    asked["training"]["choices"] = json!([" yes", " no"]);
    let id = fleet.api().submit(&asked).await;
    let ended = fleet.api().ended(&id, END).await;
    assert_eq!(ended["phase"], "failed", "{ended:#}");
    let site = &ended["cause"]["sites"][0];
    assert_eq!(site["trouble"], "policy_refused", "{site:#}");
    let why = site["detail"].as_str().unwrap();
    assert!(why.contains("over 7 records, fewer than 8"), "{why}");
}

//! Conversations through the real services: the model's own chat template, loss on the assistant's turns alone, at every site.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::command::fedpipe;
use tests::job::{job, with};
use tests::{Fleet, Setup, archive};

const END: Duration = Duration::from_secs(120);
/// Longer than any of the conversations, so that no turn is dropped.
const LENGTH: u64 = 128;
/// Of a conversation below: three letters, two letters, and what ends either turn.
const LEARNED: u64 = 3 + 1 + 2 + 1;

/// Conversations of two exchanges; the first answer is what was asked for, the second is always the same.
fn conversations(path: &Path, count: usize, shift: usize) {
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let mut lines = String::new();
    for number in 0..count {
        let letter = char::from(b'a' + ((number + shift) % 26) as u8);
        let turns = [
            turn("system", "Be brief."),
            turn("user", &format!("Which, {letter} {number}?")),
            turn("assistant", &letter.to_string().repeat(3)),
            turn("user", "Sure?"),
            turn("assistant", "ok"),
        ];
        writeln!(lines, "{}", json!({ "messages": turns })).unwrap();
    }
    std::fs::write(path, lines).unwrap();
}

/// Two sites of unequal size.
fn setup(folder: &Path) -> Setup {
    let mut setup = Setup::sites(2);
    for (site, (count, shift)) in setup.sites.iter_mut().zip([(36, 0), (18, 7)]) {
        let [train, held_out] =
            ["train", "held"].map(|part| folder.join(format!("{}.{part}.jsonl", site.name)));
        conversations(&train, count, shift);
        conversations(&held_out, 12, shift + 3);
        (site.train, site.held_out) = (Some(train), Some(held_out));
    }
    setup
}

fn asked(model: &Path) -> Value {
    let training = json!({
        "optimizer": "adamw", "local_steps": 24, "batch": 4, "sequence_length": LENGTH, "learning_rate": 2e-2, "seed": 7,
    });
    let asked = with(job(model), "training", training);
    with(asked, "evaluation", json!({}))
}

#[tokio::test]
async fn a_fleet_learns_what_the_assistant_says_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::start(&setup(folder.path())).await;
    let id = fleet.api().submit(&asked(&fleet.model())).await;
    fleet.api().succeeded(&id, END).await;

    let report = fleet.api().report(&id).await;
    let scores = report["evaluations"].as_array().unwrap();
    assert_eq!(scores.len(), 3);
    for score in scores {
        assert_eq!(score["records"], 24, "{score}");
        let learned = &score["detail"]["score"]["labelled_tokens"];
        assert_eq!(learned, &json!(24 * LEARNED), "{score}");
    }
    let loss = |score: &Value| score["loss"].as_f64().unwrap();
    let (first, last) = (loss(&scores[0]), loss(&scores[2]));
    assert!(last < 0.9 * first, "{first} to {last}");

    // One machine alone, with the same template, comes to the same loss.
    let path = format!("/v1/jobs/{id}/adapter");
    let (status, bytes) = fleet.api().bytes(Method::GET, &path, None).await.unwrap();
    assert_eq!(status, 200);
    let place = folder.path().join("adapter");
    std::fs::create_dir_all(&place).unwrap();
    for (name, content) in archive::files(&bytes) {
        std::fs::write(place.join(name), content).unwrap();
    }
    let both = ["a", "b"].map(|site| folder.path().join(format!("{site}.held.jsonl")));
    let both = both.map(|path| std::fs::read_to_string(path).unwrap());
    let held_out = folder.path().join("both.jsonl");
    std::fs::write(&held_out, both.concat()).unwrap();
    let [model, adapter, data] =
        [fleet.model(), place, held_out].map(|path| path.display().to_string());
    let length = LENGTH.to_string();
    let eval = ["eval", "--model", &model, "--adapter", &adapter];
    let how = ["--data", &data, "--sequence-length", &length, "--json"];
    let found = fedpipe(&[&eval[..], &how].concat()).await.json();
    assert_eq!(found["records"], 24, "{found}");
    let alone = found["loss"].as_f64().unwrap();
    assert!(
        (alone - last).abs() < 1e-4,
        "{alone} alone, {last} in the fleet"
    );
}

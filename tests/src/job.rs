//! The small job that the cases vary.

use std::path::Path;

use serde_json::{Value, json};

/// Two rounds of two steps on every site, unscored.
#[must_use]
pub fn job(model: &Path) -> Value {
    json!({
        "name": "tiny",
        "model": {"source": format!("file://{}", model.display())},
        "data": {"dataset": "mail"},
        "adapter": {"targets": ["q", "v", "down"], "rank": "auto", "rank_max": 8, "alpha": 16.0},
        "training": {"optimizer": "adamw", "local_steps": 2, "batch": 4, "sequence_length": 96,
                     "learning_rate": 1e-2, "seed": 7},
        // Which arithmetic is faster on a model this small is left to chance.
        "precision": {"compute": "f32"},
        // All, so that the result is a function of the inputs whatever a case does.
        "rounds": {"count": 2, "quorum": "all"},
        "deadline_seconds": 120,
    })
}

/// The same, its adapter scored before, between and after.
#[must_use]
pub fn scored(model: &Path) -> Value {
    with(
        job(model),
        "evaluation",
        json!({"choices": [" yes", " no"]}),
    )
}

/// The same job with one top-level field replaced.
#[must_use]
pub fn with(mut job: Value, field: &str, value: Value) -> Value {
    job[field] = value;
    job
}

/// A job of zeroth-order training alone: eight records a step, so that no scalar says anything of fewer.
#[must_use]
pub fn walking(model: &Path, mezo: &Value, steps: u32, rounds: &Value) -> Value {
    let training = json!({
        "optimizer": "mezo", "local_steps": steps, "batch": 8, "sequence_length": 64,
        "learning_rate": 1e-3, "seed": 7, "mezo": mezo,
    });
    let adapter = json!({"targets": ["q", "v"], "rank": 4, "rank_max": 4, "alpha": 8.0});
    // Sites' records are of different length, so by tokens no two sites weigh the same.
    let aggregation = json!({"strategy": "sum", "weights": "tokens"});
    let asked = with(job(model), "training", training);
    let asked = with(with(asked, "adapter", adapter), "aggregation", aggregation);
    with(asked, "rounds", rounds.clone())
}

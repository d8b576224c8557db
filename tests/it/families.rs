//! A family whose weights have other names than a Llama's goes through the real services: measured, planned, trained, merged,
//! and published under the names that PEFT finds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tests::job::{job, with};
use tests::{Fleet, Setup, archive};

const END: Duration = Duration::from_secs(120);

/// A tiny random checkpoint of the family, as transformers saves it.
fn model(family: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = tests.join("../libs/engine/tests/reference/architectures");
    all.join(family).canonicalize().unwrap()
}

fn asked(family: &str, targets: &Value) -> Value {
    let adapter = json!({"targets": targets, "rank": "auto", "rank_max": 4, "alpha": 8.0});
    let mut asked = with(job(&model(family)), "adapter", adapter);
    // A window of Mistral's ends its context.
    asked["training"]["sequence_length"] = json!(64);
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_of_decoders_is_trained_by_a_fleet_under_its_own_names() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    for (family, targets, modules, layer, weights) in [
        ("gpt2", json!("auto"), 4, "transformer.h.", 4 * 2),
        (
            "gpt2",
            json!(["c_attn", "mlp.c_proj"]),
            2,
            "transformer.h.",
            2 * 2,
        ),
        ("gemma3", json!(["q", "down"]), 2, "model.layers.", 2 * 6),
        ("mistral", json!(["q", "down"]), 2, "model.layers.", 2 * 2),
        ("qwen2", json!(["q", "down"]), 2, "model.layers.", 2 * 2),
        ("qwen3", json!(["q", "down"]), 2, "model.layers.", 2 * 2),
    ] {
        let id = fleet.api().submit(&asked(family, &targets)).await;
        fleet.api().succeeded(&id, END).await;
        let path = format!("/v1/jobs/{id}/adapter");
        let (status, bytes) = fleet.api().bytes(Method::GET, &path, None).await.unwrap();
        assert_eq!(status, 200);
        let files = archive::files(&bytes);
        let file = SafeTensors::deserialize(&files["adapter_model.safetensors"]).unwrap();
        let names: BTreeSet<&str> = file.names().into_iter().collect();
        let start = format!("base_model.model.{layer}");
        assert!(
            names.iter().all(|name| name.starts_with(&start)),
            "{names:?}"
        );
        assert!(names.len() <= 2 * weights && !names.is_empty(), "{names:?}");
        let config: Value = serde_json::from_slice(&files["adapter_config.json"]).unwrap();
        assert!(
            config["target_modules"].as_array().unwrap().len() <= modules,
            "{config}"
        );
        assert_eq!(config["fan_in_fan_out"], json!(family == "gpt2"));
    }
    // What the model does not have is named.
    let id = fleet
        .api()
        .submit(&asked("gpt2", &json!(["q", "c_attn"])))
        .await;
    let ended = fleet.api().ended(&id, END).await;
    assert_eq!(ended["phase"], "failed", "{ended}");
    assert!(
        ended
            .to_string()
            .contains("model.layers.0.self_attn.q_proj"),
        "{ended}"
    );
}

//! `?format=merged` and `?format=gguf`: the job's model with its adapter in its weights, made of what lies in storage.

use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use domain::artifact::Digest;
use domain::job::Job;
use domain::job::Phase;
use domain::job::spec::Model;
use engine::adapter::Adapter;
use engine::control::Control;
use engine::evaluate::Evaluator;
use engine::model::LoadOptions;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::service::Service;

const TOKENS: [u32; 9] = [5, 17, 3, 60, 8, 8, 41, 2, 33];

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../libs/engine/tests/reference")
}

/// Has a job end with this adapter of a model that was pushed.
async fn finish(service: &Service, id: &str, (model, adapter): (&str, &str), labels: &[&str]) {
    let read = |name: &str| std::fs::read(reference().join(adapter).join(name)).expect("a file");
    let adapter = service.put(id, read("adapter_model.safetensors")).await;
    let config = service.put(id, read("adapter_config.json")).await;
    let path = reference().join(model);
    let pushed = service
        .objects
        .push_model(&path, &artifacts::Transfer::default())
        .await
        .expect("pushed");
    let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    let change = |job: &mut Job| {
        job.spec.model = Model {
            digest: Some(pushed.digest.clone()),
            source: None,
        };
        job.spec.training.labels = labels.clone();
        job.phase = Phase::Succeeded {
            adapter: adapter.clone(),
            config: config.clone(),
            report: config.clone(),
        };
    };
    service.change(id, change).await;
}

/// What the API hands out, unpacked into a folder.
async fn handed_out(service: &Service, id: &str, format: &str) -> tempfile::TempDir {
    let path = format!("/v1/jobs/{id}/adapter?format={format}");
    let response = service.request(Method::GET, &path).send().await;
    let response = response.expect("answers");
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.bytes().await.expect("a whole body");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
    assert_eq!(headers["content-length"], bytes.len().to_string().as_str());
    let folder = tempfile::tempdir().expect("a folder");
    let weights = match format {
        "gguf" => {
            assert_eq!(headers["content-type"], "application/octet-stream");
            std::fs::write(folder.path().join("model.gguf"), &bytes).expect("written");
            "model.gguf"
        }
        _ => {
            assert_eq!(headers["content-type"], "application/x-tar");
            for entry in tar::Archive::new(&*bytes).entries().expect("an archive") {
                let mut entry = entry.expect("an entry");
                let name = entry.path().expect("a path").display().to_string();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).expect("content");
                std::fs::write(folder.path().join(name), content).expect("written");
            }
            "model.safetensors"
        }
    };
    let content = std::fs::read(folder.path().join(weights)).expect("weights");
    let digest = Digest::from_bytes(&sha2::Sha256::digest(&content).into());
    assert_eq!(headers["fedpipe-adapter-sha256"], digest.as_str());
    folder
}

fn logits(model: &Path, adapter: Option<&str>) -> Vec<f32> {
    let options = LoadOptions {
        threads: NonZeroUsize::MIN,
        ..LoadOptions::default()
    };
    let model = engine::model::Model::load(model, &options).expect("a model");
    let adapter = adapter.map(|name| {
        let adapter = Adapter::load(&reference().join(name), &model.weights());
        adapter.expect("an adapter")
    });
    let mut evaluator = Evaluator::new(&model, adapter.as_ref()).expect("it fits");
    evaluator.logits(&TOKENS, &Control::new()).expect("logits")
}

/// How far the one is from the other, relative to the largest.
fn apart(one: &[f32], other: &[f32]) -> f32 {
    let largest = other.iter().fold(0f32, |most, value| most.max(value.abs()));
    let pairs = one.iter().zip(other);
    pairs.fold(0f32, |most, (one, other)| most.max((one - other).abs())) / largest
}

#[tokio::test]
async fn the_model_with_its_adapter_is_handed_out_as_one_in_either_format() {
    let service = Service::start().await;
    let id = service.submit().await;
    for model in ["tiny", "tiny.gguf"] {
        finish(&service, &id, (model, "tiny-uneven"), &[]).await;
        let want = logits(&reference().join(model), Some("tiny-uneven"));
        let bare = logits(&reference().join(model), None);
        for format in ["merged", "gguf"] {
            let made = handed_out(&service, &id, format).await;
            let off = apart(&logits(made.path(), None), &want);
            // Of a file of integers what changes is in 16 bits.
            assert!(off < 2e-2, "{model} as {format}: {off}");
            assert!(apart(&bare, &want) > 5.0 * off, "{model} as {format}");
        }
    }
}

#[tokio::test]
async fn an_encoder_is_handed_out_with_its_head_and_the_jobs_labels() {
    let service = Service::start().await;
    let id = service.submit().await;
    let labels = ["meeting", "goal", "money"];
    let own = ("encoder", "encoder/adapter");
    finish(&service, &id, own, &labels).await;
    let made = handed_out(&service, &id, "merged").await;
    let config = std::fs::read(made.path().join("config.json")).expect("a configuration");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    let names = json!({"0": "meeting", "1": "goal", "2": "money"});
    assert_eq!(config["id2label"], names);
    assert!(made.path().join("tokenizer.json").is_file());
    let path = format!("/v1/jobs/{id}/adapter?format=gguf");
    let (status, problem) = service.get(&path).await;
    let detail = problem["detail"].as_str().expect("a detail");
    assert_eq!(status, 409, "{problem}");
    assert!(detail.contains("exported as peft or merged"), "{detail}");
    // The job says other classes than its adapter tells apart.
    finish(&service, &id, own, &labels[..2]).await;
    let path = format!("/v1/jobs/{id}/adapter?format=merged");
    let (status, problem) = service.get(&path).await;
    assert_eq!(status, 409, "{problem}");
}

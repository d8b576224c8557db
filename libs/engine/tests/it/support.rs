//! What the tests share: the tiny models, and the reference values.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use engine::control::Control;
use engine::data::{Batch, Row};
use engine::model::{Base, LoadOptions, Model};
use serde::Deserialize;

pub fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(name)
}

pub fn options(base: Base, threads: usize) -> LoadOptions {
    LoadOptions {
        base,
        threads: NonZeroUsize::new(threads).expect("a thread"),
        ..LoadOptions::default()
    }
}

pub fn tiny() -> Model {
    Model::load(&reference("tiny"), &options(Base::F32, 2)).expect("the tiny model")
}

pub fn control() -> Control {
    Control::new()
}

pub fn read<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let text = std::fs::read(reference(name)).expect("a reference file");
    serde_json::from_slice(&text).expect("reference values")
}

/// `tiny.json`
#[derive(Deserialize)]
pub struct Tiny {
    pub prompt: Vec<u32>,
    pub logits: Vec<f32>,
    pub gguf_logits: Vec<f32>,
    pub adapter_logits: Vec<f32>,
    pub uneven_logits: Vec<f32>,
    pub batches: Vec<Vec<ReferenceRow>>,
    pub plain: Training,
    pub decayed: Training,
}

#[derive(Deserialize)]
pub struct ReferenceRow {
    tokens: Vec<u32>,
    labelled: Vec<bool>,
}

#[derive(Deserialize)]
pub struct Training {
    pub rate: f32,
    #[serde(default)]
    pub weight_decay: f32,
    #[serde(default)]
    pub clip_norm: f32,
    pub losses: Vec<f64>,
}

pub fn batch(rows: &[ReferenceRow]) -> Batch {
    let row = |(record, row): (usize, &ReferenceRow)| Row {
        tokens: row.tokens.clone(),
        labelled: row.labelled.clone(),
        class: None,
        record,
    };
    Batch {
        rows: rows.iter().enumerate().map(row).collect(),
    }
}

/// Asserts that every value is within `tolerance` of the wanted one, relative to the largest.
#[track_caller]
pub fn close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(1f32, |most, v| most.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            (g - w).abs() <= tolerance * largest,
            "value {i}: got {g}, want {w}"
        );
    }
}

//! What was measured of one worker, and the cost model fitted to it.

use serde::{Deserialize, Serialize};

use crate::adapter::WeightShape;
use crate::artifact::Digest;
use crate::id::WorkerName;

/// One measured training configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Records per step.
    pub batch: u16,
    /// Tokens of a step, all records together.
    pub tokens: u32,
    /// Trainable parameters of the adapter.
    pub parameters: u64,
    /// Seconds of one optimizer step, the speed limit of an emulated site included.
    pub step_seconds: f64,
    /// Peak of the process's heap during the step, in bytes.
    pub peak_memory_bytes: u64,
}

/// What a worker measured beside its own data. Every number here is listed in `docs/privacy.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Digest of the model measured, if it came by digest.
    pub model: Option<Digest>,
    /// Version of the engine and of its kernels.
    pub kernel: String,
    /// Weights that can carry an adapter, with their shapes.
    pub weights: Vec<WeightShape>,
    /// Blocks of the model.
    pub layers: u16,
    /// Bytes of heap with the model loaded and nothing training.
    pub base_memory_bytes: u64,
    /// Bytes the worker may use.
    pub memory_limit_bytes: u64,
    /// Compute threads.
    pub threads: u16,
    /// Training steps measured, at least three.
    pub samples: Vec<Sample>,
    /// Tokens a second of forward passes alone.
    pub forward_tokens_per_second: f64,
    /// Upload to object storage, bytes a second.
    pub upload_bytes_per_second: f64,
    /// Download from object storage, bytes a second.
    pub download_bytes_per_second: f64,
    /// Round trip to the message bus, in milliseconds.
    pub round_trip_ms: f64,
    /// Usable training records.
    pub records: u64,
    /// Held-out records.
    pub held_out: u64,
    /// Records that could not be read.
    pub skipped: u64,
    /// Mean tokens of a record after truncation.
    pub mean_tokens: f64,
}

/// Linear cost of one training step, fitted per worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostModel {
    /// Seconds of a step whatever its size.
    pub seconds_fixed: f64,
    /// Seconds per token.
    pub seconds_per_token: f64,
    /// Seconds per token and trainable parameter.
    pub seconds_per_token_parameter: f64,
    /// Bytes whatever the step's size: base, buffers.
    pub memory_fixed: f64,
    /// Bytes per token of a step.
    pub memory_per_token: f64,
    /// Bytes per trainable parameter.
    pub memory_per_parameter: f64,
}

impl CostModel {
    /// Predicted seconds of one step.
    #[must_use]
    pub fn step_seconds(&self, tokens: f64, parameters: u64) -> f64 {
        let per_token =
            self.seconds_per_token + self.seconds_per_token_parameter * parameters as f64;
        self.seconds_fixed + tokens * per_token
    }

    /// Predicted peak of the heap during training, in bytes.
    #[must_use]
    pub fn peak_memory_bytes(&self, tokens: f64, parameters: u64) -> f64 {
        self.memory_fixed
            + self.memory_per_token * tokens
            + self.memory_per_parameter * parameters as f64
    }
}

/// A worker's measurement with its fitted cost model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Whose.
    pub worker: WorkerName,
    /// What was measured.
    pub measurement: Measurement,
    /// What was fitted to it.
    pub cost: CostModel,
    /// Largest relative error of the fit's step time over the samples.
    pub fit_error: f64,
}

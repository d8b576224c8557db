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
    /// Tokens of the step that was timed, all records together.
    pub tokens: u32,
    /// Tokens of the largest step that was made: that of the peak. 0 where none was larger.
    #[serde(default)]
    pub longest_tokens: u32,
    /// Trainable parameters of the adapter.
    pub parameters: u64,
    /// Seconds of one optimizer step, the speed limit of an emulated site included.
    pub step_seconds: f64,
    /// The most that counted against the worker's limit, from reading the merged adapter to having the
    /// update's file in memory, in bytes: all private writable memory of the process, not heap alone.
    pub peak_memory_bytes: u64,
}

impl Sample {
    /// Tokens of the step that made the peak.
    #[must_use]
    pub fn peak_tokens(&self) -> f64 {
        f64::from(self.tokens.max(self.longest_tokens))
    }
}

/// How much single records' gradients differ, at the start of the job. `variance / signal` is the
/// gradient's noise scale in records (McCandlish et al., arXiv 1812.06162).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GradientNoise {
    /// Estimate of the squared norm of the mean gradient; noise can make it negative.
    pub signal: f64,
    /// Estimate of the trace of the covariance of one record's gradient.
    pub variance: f64,
    /// Records that it averages.
    pub records: u64,
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
    /// Bytes that counted against the limit with the model loaded and nothing training.
    pub base_memory_bytes: u64,
    /// Bytes the worker may use, all private writable memory counted.
    pub memory_limit_bytes: u64,
    /// Compute threads.
    pub threads: u16,
    /// Training steps measured, at least three.
    pub samples: Vec<Sample>,
    /// Forward passes measured, with a whole merged adapter as scoring loads it.
    #[serde(default)]
    pub scoring: Vec<Sample>,
    /// How noisy the gradient is, if enough records could be averaged.
    #[serde(default)]
    pub noise: Option<GradientNoise>,
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
    /// Bytes of scoring whatever the number of tokens: base, the whole merged adapter, buffers.
    #[serde(default)]
    pub scoring_memory_fixed: f64,
    /// Bytes per token that is scored at once.
    #[serde(default)]
    pub scoring_memory_per_token: f64,
}

impl CostModel {
    /// Predicted seconds of one step.
    #[must_use]
    pub fn step_seconds(&self, tokens: f64, parameters: u64) -> f64 {
        let per_token =
            self.seconds_per_token + self.seconds_per_token_parameter * parameters as f64;
        self.seconds_fixed + tokens * per_token
    }

    /// Predicted peak of training, in bytes that count against the limit.
    #[must_use]
    pub fn peak_memory_bytes(&self, tokens: f64, parameters: u64) -> f64 {
        self.memory_fixed
            + self.memory_per_token * tokens
            + self.memory_per_parameter * parameters as f64
    }

    /// Predicted peak of scoring so many tokens at once, in bytes that count against the limit.
    #[must_use]
    pub fn scoring_memory_bytes(&self, tokens: f64) -> f64 {
        self.scoring_memory_fixed + self.scoring_memory_per_token * tokens
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
    /// How far a measured peak was above what the other samples alone predict of it, relative, at
    /// the worst sample; 0 if none was.
    #[serde(default)]
    pub memory_error: f64,
}

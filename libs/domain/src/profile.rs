//! What was measured of one worker, and the cost models fitted to it: one for each way in which it can
//! compute a step.

mod legality;

use serde::{Deserialize, Serialize};

use crate::adapter::{Encoder, WeightName, WeightShape};
use crate::artifact::Digest;
use crate::id::WorkerName;
use crate::job::spec::{Base, Optimizer};

/// How a step is computed; nothing in it is `auto`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mode {
    /// Precision of the frozen base.
    pub base: Base,
    /// Version of the engine and of its kernels: the arithmetic and the instructions for it.
    pub kernel: String,
    /// Whether activations are recomputed block by block.
    pub checkpoint: bool,
    /// First- or zeroth-order.
    pub optimizer: Optimizer,
}

/// One measured training configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Records per step.
    pub batch: u16,
    /// Tokens of the step that was timed, all records together.
    pub tokens: u32,
    /// Sum over the step's rows of the square of each one's tokens: what attention grows with. 0 where
    /// it was not told.
    #[serde(default)]
    pub squares: f64,
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

/// What was measured in one mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModeMeasurement {
    /// The mode.
    pub mode: Mode,
    /// Bytes that counted against the limit with the model loaded so and nothing training.
    pub base_memory_bytes: u64,
    /// Training steps measured, at least three.
    pub samples: Vec<Sample>,
    /// Forward passes measured, with a whole merged adapter as scoring loads it.
    pub scoring: Vec<Sample>,
    /// Mean loss of the probe's records with the untrained adapter, in this mode's arithmetic: what
    /// it is above that of another mode is what its rounding costs. Absent where too few records
    /// were averaged for it to leave the site.
    pub loss: Option<f64>,
}

/// How the importance of weights was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportanceMethod {
    /// Singular values of the mean gradient of each frozen weight, from a random sketch of it.
    Sketch,
    /// The smoothed sensitivity of the triplets of an adapter in SVD form (AdaLoRA, arXiv 2303.10512).
    Adalora,
}

/// Bytes of a merged adapter's parameter that a pass of scoring holds; twice as many while it is read.
pub const SCORED_PARAMETER_BYTES: f64 = 4.0;

/// What the first directions of one weight's gradient, or adapter, hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightImportance {
    /// Which weight.
    pub name: WeightName,
    /// The energy of each direction, `σ_j²` of the mean gradient, or its score, descending, up to the job's highest rank.
    /// The planner makes a weight's worth of them.
    pub energies: Vec<f32>,
}

/// What each weight is worth training, on the worker's own records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Importance {
    /// How it was found.
    pub method: ImportanceMethod,
    /// Every target weight, in the model's order.
    pub weights: Vec<WeightImportance>,
    /// Spearman's rank correlation of the weights' energies between two seeds of the probe, from -1 to 1.
    pub agreement: f64,
    /// Records that it averages.
    pub records: u64,
}

/// What a worker measured beside its own data. Every number here is listed in `docs/privacy.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Digest of the model measured, if it came by digest.
    pub model: Option<Digest>,
    /// Weights that can carry an adapter, with their shapes.
    pub weights: Vec<WeightShape>,
    /// The family of the model where it is an encoder; a decoder's is BERT's, and means nothing.
    #[serde(default, skip_serializing_if = "Encoder::is_bert")]
    pub encoder: Encoder,
    /// Blocks of the model.
    pub layers: u16,
    /// Bytes the worker may use, all private writable memory counted.
    pub memory_limit_bytes: u64,
    /// Compute threads.
    pub threads: u16,
    /// Every mode that was measured. What was not is not here: nothing is known of it.
    #[serde(default)]
    pub modes: Vec<ModeMeasurement>,
    /// How noisy the gradient is, if enough records could be averaged.
    #[serde(default)]
    pub noise: Option<GradientNoise>,
    /// What each weight is worth, if it was asked for and could be measured here.
    #[serde(default)]
    pub importance: Option<Importance>,
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
    /// Mean of the square of a record's tokens after truncation; 0 where it was not told.
    #[serde(default)]
    pub mean_squares: f64,
}

impl Measurement {
    /// What was measured in a mode.
    #[must_use]
    pub fn mode(&self, mode: &Mode) -> Option<&ModeMeasurement> {
        self.modes.iter().find(|measured| measured.mode == *mode)
    }

    /// The mean square of a record's tokens, never below that of records of equal length.
    #[must_use]
    pub fn mean_squares(&self) -> f64 {
        self.mean_squares.max(self.mean_tokens * self.mean_tokens)
    }
}

/// Tokens whose logits exist together where a loss is computed: memory grows faster up to so many than beyond.
pub const OUTPUT_BLOCK: usize = 256;

/// Linear cost of one training step, fitted per worker and mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostModel {
    /// Seconds of a step whatever its size.
    pub seconds_fixed: f64,
    /// Seconds per token.
    pub seconds_per_token: f64,
    /// Seconds per token and trainable parameter.
    pub seconds_per_token_parameter: f64,
    /// Seconds per square of a row's tokens: attention's.
    #[serde(default)]
    pub seconds_per_square: f64,
    /// Bytes whatever the step's size: base, buffers.
    pub memory_fixed: f64,
    /// Bytes per token of a step.
    pub memory_per_token: f64,
    /// Bytes per token of the first [`OUTPUT_BLOCK`] of a step: their logits, which later ones take turns with.
    #[serde(default)]
    pub memory_per_block_token: f64,
    /// Bytes per trainable parameter.
    pub memory_per_parameter: f64,
    /// Bytes of scoring whatever the number of tokens: base, the whole merged adapter, buffers.
    #[serde(default)]
    pub scoring_memory_fixed: f64,
    /// Bytes per token that is scored at once.
    #[serde(default)]
    pub scoring_memory_per_token: f64,
}

/// Tokens of a step that have logits of their own at one time, of so many.
#[must_use]
pub const fn block_tokens(tokens: f64) -> f64 {
    tokens.min(OUTPUT_BLOCK as f64)
}

impl CostModel {
    /// Predicted seconds of one step over so many tokens; `squares` is the sum over its rows of the
    /// square of each one's tokens.
    #[must_use]
    pub fn step_seconds(&self, tokens: f64, squares: f64, parameters: u64) -> f64 {
        let per_token =
            self.seconds_per_token + self.seconds_per_token_parameter * parameters as f64;
        self.seconds_fixed + tokens * per_token + squares * self.seconds_per_square
    }

    /// Predicted peak of training, in bytes that count against the limit.
    #[must_use]
    pub fn peak_memory_bytes(&self, tokens: f64, parameters: u64) -> f64 {
        self.memory_fixed
            + self.memory_per_token * tokens
            + self.memory_per_block_token * block_tokens(tokens)
            + self.memory_per_parameter * parameters as f64
    }

    /// Predicted peak of scoring so many tokens at once, in bytes that count against the limit.
    #[must_use]
    pub fn scoring_memory_bytes(&self, tokens: f64) -> f64 {
        self.scoring_memory_fixed + self.scoring_memory_per_token * tokens
    }

    /// Every coefficient: each is a number from 0 in a model that was fitted.
    #[must_use]
    pub const fn coefficients(&self) -> [f64; 10] {
        [
            self.seconds_fixed,
            self.seconds_per_token,
            self.seconds_per_token_parameter,
            self.seconds_per_square,
            self.memory_fixed,
            self.memory_per_token,
            self.memory_per_block_token,
            self.memory_per_parameter,
            self.scoring_memory_fixed,
            self.scoring_memory_per_token,
        ]
    }
}

/// One mode's cost model and how far it may be off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModeProfile {
    /// The mode.
    pub mode: Mode,
    /// What was fitted to its samples.
    pub cost: CostModel,
    /// Largest relative error of the fit's step time over the samples.
    pub fit_error: f64,
    /// How far a measured peak was above what the other samples alone predict of it, relative, at
    /// the worst sample; 0 if none was.
    pub memory_error: f64,
    /// Undisturbed rounds that refined it.
    pub observations: u32,
}

/// A worker's measurement with its fitted cost models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Whose.
    pub worker: WorkerName,
    /// What was measured.
    pub measurement: Measurement,
    /// What was fitted to each of its modes, in the measurement's order.
    #[serde(default)]
    pub modes: Vec<ModeProfile>,
    /// The last round of the job whose observation refined it; 0: none.
    #[serde(default)]
    pub refined_to: u32,
    /// The last round of the job after which the site was taken for another machine; 0: none.
    #[serde(default)]
    pub settled_to: u32,
    /// The last round of the job by which its importance was brought up to date; 0: none.
    #[serde(default)]
    pub weighed_to: u32,
}

impl Profile {
    /// The cost model of a mode.
    #[must_use]
    pub fn mode(&self, mode: &Mode) -> Option<&ModeProfile> {
        self.modes.iter().find(|fitted| fitted.mode == *mode)
    }
}

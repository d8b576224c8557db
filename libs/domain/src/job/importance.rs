//! The job file's `adapter.importance`: how it is found what each weight is worth.

use serde::{Deserialize, Serialize};

/// How it is found what each weight is worth training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Importance {
    /// Singular values of the mean gradient of each frozen weight, from a random sketch.
    #[default]
    Sketch,
    /// The smoothed sensitivity of an adapter in SVD form, over at least 40 steps (AdaLoRA).
    Adalora,
    /// Not at all: every weight is worth the same.
    Uniform,
}

//! In which precision tensors are written, and how far rounding may move them.

use candle_core::quantized::GgmlDType;

/// In which precision an export is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// As the model came. What the adapter changes and the model has in integers becomes f16, and so does
    /// all of a model in integers where the format has none.
    #[default]
    Source,
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    F16,
    /// Brain floating point.
    Bf16,
    /// Blocks of 32 integers of 8 bits with a scale each (gguf alone).
    Q8,
}

impl Precision {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8 => "q8_0",
        }
    }

    /// The kind that is asked for; none: that of the source.
    pub(super) const fn kind(self) -> Option<GgmlDType> {
        match self {
            Self::Source => None,
            Self::F32 => Some(GgmlDType::F32),
            Self::F16 => Some(GgmlDType::F16),
            Self::Bf16 => Some(GgmlDType::BF16),
            Self::Q8 => Some(GgmlDType::Q8_0),
        }
    }
}

/// The kind itself where it is a floating-point one, else f16.
pub(super) const fn floating(kind: GgmlDType) -> GgmlDType {
    match kind {
        GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => kind,
        _ => GgmlDType::F16,
    }
}

/// Its name in messages.
pub(super) const fn name(kind: GgmlDType) -> &'static str {
    match kind {
        GgmlDType::F32 => "f32",
        GgmlDType::F16 => "f16",
        GgmlDType::BF16 => "bf16",
        GgmlDType::Q8_0 => "q8_0",
        _ => "integers",
    }
}

/// How far the norm of the difference of logits may be from the engine's, relative to their norm, where
/// tensors were rounded to this kind. f32 differs by the order of sums alone; the others are at least twice what
/// a random model, for which rounding is hardest, comes to (`tests/it/exports.rs`). Rounding moves each *weight*
/// by far less, which is checked apart.
pub(super) const fn logits_bound(kind: GgmlDType) -> f64 {
    match kind {
        GgmlDType::F32 => 1e-4,
        GgmlDType::F16 => 1e-2,
        GgmlDType::BF16 => 6e-2,
        _ => 1e-1,
    }
}

/// How far rounding to `kind` may move `value`, the largest of whose block is `largest`.
pub(super) fn weight_bound(kind: GgmlDType, value: f32, largest: f32) -> f32 {
    match kind {
        GgmlDType::F32 => 0.0,
        // Half of the last of 11 or 8 binary places; below the normal numbers, half of the smallest step.
        GgmlDType::F16 => (value.abs() / 2048.0).max(3.0e-8),
        GgmlDType::BF16 => value.abs() / 256.0,
        // Half a step of 1/127 of the largest, whose scale is itself rounded to f16.
        _ => largest * (0.5 / 127.0 + 1.0 / 2048.0) + 3.0e-8,
    }
}

//! The adapter as a GGUF file for llama.cpp.
//!
//! Of the model only what describes it is read (`config.json`, or the beginning of its GGUF file): how many rows a
//! head has, for llama.cpp has those of queries and keys in another order.

use std::path::Path;

use bytes::Bytes;
use engine::export::{Error, gguf_lora};
use engine::model::Config;

use super::Format;
use super::model::elsewhere;
use crate::problem::{Kind, Problem};

/// Largest adapter that is converted here, in bytes: it is held in memory, some times over.
pub const LIMIT_BYTES: u64 = 256 << 20;

/// Converts; blocks.
pub fn convert(
    adapter: &Path,
    peft: &Bytes,
    model: &Config,
    name: &str,
    to: &Path,
) -> Result<(), Problem> {
    let tensors = std::fs::read(adapter).map_err(|error| super::local(&error))?;
    gguf_lora::convert((&tensors, peft), model, name, to).map_err(|error| {
        if matches!(error, Error::Encoder) {
            return Problem::new(Kind::Conflict, error.to_string());
        }
        tracing::warn!(
            error = bus::drive::error_chain(&error),
            "adapter cannot be converted"
        );
        elsewhere(
            Format::GgufLora,
            "the job's adapter cannot be said as a gguf file here",
        )
    })
}

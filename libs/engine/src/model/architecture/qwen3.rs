//! Qwen3: no biases, and each head of the queries and keys is normalized over its width before it is rotated.

use super::{Facts, Window};

pub(super) const FACTS: Facts = Facts {
    class: "Qwen3ForCausalLM",
    model_type: "qwen3",
    gguf: "qwen3",
    gated: true,
    biases: false,
    head_norms: true,
    turned: false,
    window: Window::Used,
    ..super::LLAMA
};

//! Qwen2 and Qwen2.5: biases of queries, keys and values; a window only where `use_sliding_window` says so.

use super::{Facts, Window};

pub(super) const FACTS: Facts = Facts {
    class: "Qwen2ForCausalLM",
    model_type: "qwen2",
    gguf: "qwen2",
    gated: true,
    biases: true,
    head_norms: false,
    turned: false,
    window: Window::Used,
    ..super::LLAMA
};

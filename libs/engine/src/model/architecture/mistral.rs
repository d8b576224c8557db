//! Mistral: a Llama whose first versions see a window of the last tokens. A window is taken as the end of the context: up to
//! its length both are the same.

use super::{Facts, Window};

pub(super) const FACTS: Facts = Facts {
    class: "MistralForCausalLM",
    model_type: "mistral",
    gguf: "llama",
    gated: true,
    biases: false,
    head_norms: false,
    turned: true,
    window: Window::Given,
    ..super::LLAMA
};

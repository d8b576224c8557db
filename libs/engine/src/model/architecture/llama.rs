//! Llama: the plain form of the shared block. Llama 3's scaled rotations are settings (`model::rope`).

use super::{Facts, Window};

pub(super) const FACTS: Facts = Facts {
    class: "LlamaForCausalLM",
    model_type: "llama",
    gguf: "llama",
    biases: false,
    head_norms: false,
    turned: true,
    window: Window::Never,
};

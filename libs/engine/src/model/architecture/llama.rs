//! Llama: the plain form of the shared block. Llama 3's scaled rotations are settings (`model::rope`).

use super::{Curve, Facts, Norms, Window};

pub(super) const FACTS: Facts = Facts {
    class: "LlamaForCausalLM",
    model_type: "llama",
    gguf: "llama",
    gated: true,
    biases: false,
    head_norms: false,
    turned: true,
    window: Window::Never,
    norm: Norms::Rms,
    post_norms: false,
    curve: Curve::Silu,
    all_biases: false,
    learned_positions: false,
    scaled_embedding: false,
    without_head: &[],
    tied: false,
};

//! GPT-2: learned positions, layer normalization, biases everywhere, a feed-forward network without a gate, and queries,
//! keys and values in one weight. Folders hold the weights transposed (`source::gpt2`).

use super::{Curve, Facts, Norms, Window};

pub(super) const FACTS: Facts = Facts {
    class: "GPT2LMHeadModel",
    model_type: "gpt2",
    gguf: "gpt2",
    gated: false,
    biases: true,
    head_norms: false,
    turned: false,
    window: Window::Never,
    norm: Norms::Layer,
    post_norms: false,
    curve: Curve::GeluTanh,
    all_biases: true,
    learned_positions: true,
    scaled_embedding: false,
    without_head: &[],
    tied: true,
};

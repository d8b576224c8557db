//! Gemma 3, text alone: normalizations before and behind each half of a block, normalized heads, GELU in the gate, an
//! embedding that is scaled, and windows with rotations of their own in all layers but every sixth.

use super::{Curve, Facts, Norms, Window};

pub(super) const FACTS: Facts = Facts {
    class: "Gemma3ForCausalLM",
    model_type: "gemma3_text",
    gguf: "gemma3",
    gated: true,
    biases: false,
    head_norms: true,
    turned: false,
    window: Window::Layers,
    norm: Norms::RmsLessOne,
    post_norms: true,
    curve: Curve::GeluTanh,
    all_biases: false,
    learned_positions: false,
    scaled_embedding: true,
    without_head: &[],
    tied: true,
};

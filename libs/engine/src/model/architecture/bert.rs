//! BERT: an encoder. Every token sees the whole text, normalizations stand behind each half of a block, positions are a
//! table, and a pooled first token is classified (`model::encoder`, `compute::encoder`).

use super::{Facts, Window};

pub(super) const FACTS: Facts = Facts {
    class: "BertForSequenceClassification",
    model_type: "bert",
    gguf: "",
    gated: false,
    biases: true,
    head_norms: false,
    turned: false,
    window: Window::Never,
    without_head: &["BertModel", "BertForMaskedLM", "BertForPreTraining"],
    ..super::LLAMA
};

//! `RoBERTa`: BERT's blocks with positions that begin behind the number of the token that fills texts up, no pooler, and a
//! head of two layers (`model::encoder`, `compute::encoder`). `XLM-RoBERTa` is the same with words of a hundred languages.

use super::Facts;

pub(super) const FACTS: Facts = Facts {
    class: "RobertaForSequenceClassification",
    model_type: "roberta",
    without_head: &["RobertaModel", "RobertaForMaskedLM"],
    ..super::bert::FACTS
};

/// `XLM-RoBERTa`'s names; its tensors have `RoBERTa`'s.
pub(super) const XLM: Facts = Facts {
    class: "XLMRobertaForSequenceClassification",
    model_type: "xlm-roberta",
    without_head: &["XLMRobertaModel", "XLMRobertaForMaskedLM"],
    ..super::bert::FACTS
};

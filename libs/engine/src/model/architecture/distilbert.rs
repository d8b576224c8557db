//! `DistilBERT`: BERT's blocks under other names, no segments, no pooler, and a head of two layers (`model::encoder`,
//! `compute::encoder`).

use super::Facts;

pub(super) const FACTS: Facts = Facts {
    class: "DistilBertForSequenceClassification",
    model_type: "distilbert",
    without_head: &["DistilBertModel", "DistilBertForMaskedLM"],
    ..super::bert::FACTS
};

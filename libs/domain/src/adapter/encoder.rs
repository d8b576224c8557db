//! Families of encoders: what their checkpoints call the weights that this program calls as a Llama's, and the modules of
//! their classification heads.

use serde::{Deserialize, Serialize};

use super::Projection;

/// A family of encoders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoder {
    /// BERT: a pooler that is frozen, then one linear layer.
    #[default]
    Bert,
    /// `RoBERTa` and `XLM-RoBERTa`: the head is a dense layer, a hyperbolic tangent and a linear layer.
    Roberta,
    /// `DistilBERT`: the head is a dense layer, what is above zero of it, and a linear layer.
    Distilbert,
}

impl Encoder {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bert, Self::Roberta, Self::Distilbert];

    /// Whether it is BERT.
    #[must_use]
    pub fn is_bert(&self) -> bool {
        *self == Self::Bert
    }

    /// What PEFT calls the head's modules, which are trained in full: `modules_to_save`.
    #[must_use]
    pub const fn saved_modules(self) -> &'static [&'static str] {
        match self {
            Self::Bert | Self::Roberta => &["classifier"],
            Self::Distilbert => &["pre_classifier", "classifier"],
        }
    }

    /// What comes before a layer's number.
    pub(super) const fn layers(self) -> &'static str {
        match self {
            Self::Bert => "bert.encoder.layer.",
            Self::Roberta => "roberta.encoder.layer.",
            Self::Distilbert => "distilbert.transformer.layer.",
        }
    }

    /// The module's name in a layer, whose feed-forward network has no gate.
    pub(super) const fn module(self, projection: Projection) -> Option<&'static str> {
        let (own, distilled) = match projection {
            Projection::Q => ("attention.self.query", "attention.q_lin"),
            Projection::K => ("attention.self.key", "attention.k_lin"),
            Projection::V => ("attention.self.value", "attention.v_lin"),
            Projection::O => ("attention.output.dense", "attention.out_lin"),
            Projection::Up => ("intermediate.dense", "ffn.lin1"),
            Projection::Down => ("output.dense", "ffn.lin2"),
            Projection::Gate
            | Projection::CAttn
            | Projection::AttnCProj
            | Projection::CFc
            | Projection::MlpCProj => return None,
        };
        Some(match self {
            Self::Bert | Self::Roberta => own,
            Self::Distilbert => distilled,
        })
    }
}

//! `config.json` of BERT, whose keys are others than a decoder's.

use serde::Deserialize;

use crate::model::{Architecture, Config, Error};

/// What stands before the names of an encoder's tensors, unless it was saved alone.
pub(super) const PREFIX: &str = "bert.";

/// What tells the family.
#[derive(Deserialize)]
pub(super) struct Family {
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    model_type: String,
}

impl Family {
    /// The family, if it is one that is supported.
    pub(super) fn known(&self) -> Option<Architecture> {
        match self.architectures.as_slice() {
            [one] => Architecture::of_hugging_face(one),
            [] => Architecture::of_hugging_face(&self.model_type),
            _ => None,
        }
    }
}

/// What is read of it.
#[derive(Deserialize)]
pub(super) struct Said {
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    layer_norm_eps: f32,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    #[serde(default)]
    add_cross_attention: bool,
}

impl Said {
    pub(super) fn config(self) -> Result<Config, Error> {
        let unsupported = |what: String| Err(Error::Feature { what });
        if let Some(other) = self.hidden_act.as_deref().filter(|act| *act != "gelu") {
            return unsupported(format!("the activation {other} in an encoder"));
        }
        let positions = self.position_embedding_type.as_deref();
        if let Some(other) = positions.filter(|kind| *kind != "absolute") {
            return unsupported(format!("positions of type {other} in an encoder"));
        }
        if self.is_decoder || self.add_cross_attention {
            return unsupported("BERT as a decoder, or beside one".to_owned());
        }
        let heads = self.num_attention_heads;
        let fits = heads > 0 && self.hidden_size.is_multiple_of(heads);
        let config = Config {
            architecture: Architecture::Bert,
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            intermediate: self.intermediate_size,
            heads,
            kv_heads: heads,
            head_size: if fits { self.hidden_size / heads } else { 0 },
            vocabulary: self.vocab_size,
            context: self.max_position_embeddings,
            epsilon: self.layer_norm_eps,
            // Positions are a table: nothing is rotated.
            rope_theta: 10_000.0,
            rope_factors: Vec::new(),
            // There is no output layer.
            tied: true,
            score_scale: None,
            sliding: None,
        };
        config.checked()
    }
}

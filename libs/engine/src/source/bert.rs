//! BERT in Hugging Face's words: the keys of its `config.json`, which are others than a decoder's, and the names of its tensors.

use domain::adapter::WeightName;
use serde::Deserialize;

use super::Name;
use crate::model::{Architecture, Config, Error};

/// What stands before the names of an encoder's tensors, unless it was saved alone.
pub(super) const PREFIX: &str = "bert.";

/// The table of words, `[vocabulary, hidden]`.
pub(crate) const WORDS: Name = Name::Of("embeddings.word_embeddings.weight");
/// The table of positions, `[context, hidden]`.
pub(crate) const PLACES: Name = Name::Of("embeddings.position_embeddings.weight");
/// What a token's segment adds, `[types, hidden]`.
pub(crate) const TYPES: Name = Name::Of("embeddings.token_type_embeddings.weight");
/// The head's weight, `[classes, hidden]`, where a checkpoint has one.
pub(crate) const HEAD_WEIGHT: &str = "classifier.weight";
/// The head's bias, `[classes]`.
pub(crate) const HEAD_BIAS: &str = "classifier.bias";

/// The normalizations of a layer.
const NORMS: [&str; 2] = ["attention.output.LayerNorm", "output.LayerNorm"];

/// Every tensor of a `BertForSequenceClassification` with its shape, in a fixed order: with so many types of segments, and a
/// head for so many classes.
pub(crate) fn tensors(config: &Config, types: usize, classes: usize) -> Vec<(Name, Vec<usize>)> {
    let Config {
        vocabulary,
        context,
        hidden,
        ..
    } = *config;
    let mut all = vec![
        (WORDS, vec![vocabulary, hidden]),
        (PLACES, vec![context, hidden]),
        (TYPES, vec![types, hidden]),
        (Name::Of("embeddings.LayerNorm.weight"), vec![hidden]),
        (Name::Of("embeddings.LayerNorm.bias"), vec![hidden]),
    ];
    for layer in (0u16..).take(config.layers) {
        for projection in config.projections() {
            let (out, inp) = config.shape(projection);
            let weight = WeightName::new(layer, projection);
            all.push((Name::Weight(weight), vec![out, inp]));
            all.push((Name::Bias(weight), vec![out]));
        }
        for norm in NORMS {
            all.push((Name::OfLayer(layer, norm, "weight"), vec![hidden]));
            all.push((Name::OfLayer(layer, norm, "bias"), vec![hidden]));
        }
    }
    all.push((Name::Of("pooler.dense.weight"), vec![hidden, hidden]));
    all.push((Name::Of("pooler.dense.bias"), vec![hidden]));
    all.push((Name::Top(HEAD_WEIGHT), vec![classes, hidden]));
    all.push((Name::Top(HEAD_BIAS), vec![classes]));
    all
}

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

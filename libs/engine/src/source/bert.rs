//! BERT, `RoBERTa` and `DistilBERT` in Hugging Face's words: the keys of their `config.json`, which are others than a decoder's,
//! and the names of their tensors.

use domain::adapter::{Encoder, HeadPart, HeadShape, HeadTensor, WeightName};
use serde::Deserialize;

use super::Name;
use crate::model::{Architecture, Config, Error};

/// The table of words, `[vocabulary, hidden]`.
pub(crate) const WORDS: Name = Name::Of("embeddings.word_embeddings.weight");
/// The table of positions, `[places, hidden]`.
pub(crate) const PLACES: Name = Name::Of("embeddings.position_embeddings.weight");
/// What a token's segment adds, `[types, hidden]`; `DistilBERT` has no segments.
pub(crate) const TYPES: Name = Name::Of("embeddings.token_type_embeddings.weight");

/// The normalizations of a layer.
const NORMS: [&str; 2] = ["attention.output.LayerNorm", "output.LayerNorm"];

/// What stands before the names of an encoder's tensors, unless it was saved alone.
pub(super) const fn prefix(encoder: Encoder) -> &'static str {
    match encoder {
        Encoder::Bert => "bert.",
        Encoder::Roberta => "roberta.",
        Encoder::Distilbert => "distilbert.",
    }
}

/// What checkpoints that were made of TensorFlow's, as BERT's first ones, call a part of a normalization; none of other tensors.
pub(super) fn older(name: &str) -> Option<String> {
    let (module, part) = name.rsplit_once('.')?;
    let own = match part {
        "weight" => "gamma",
        "bias" => "beta",
        _ => return None,
    };
    let is_norm = module.ends_with(".LayerNorm");
    is_norm.then(|| format!("{module}.{own}"))
}

/// What the part of a module in a layer is called, given BERT's name of the module.
pub(super) fn of_layer(encoder: Encoder, (layer, module, part): (u16, &str, &str)) -> String {
    let before = prefix(encoder);
    let [attention, _] = NORMS;
    match encoder {
        Encoder::Distilbert => {
            let own = if module == attention {
                "sa_layer_norm"
            } else {
                "output_layer_norm"
            };
            format!("{before}transformer.layer.{layer}.{own}.{part}")
        }
        Encoder::Bert | Encoder::Roberta => {
            format!("{before}encoder.layer.{layer}.{module}.{part}")
        }
    }
}

/// The head's last weight, `[classes, hidden]`, where a checkpoint has one.
pub(crate) fn head_weight(encoder: Encoder) -> Name {
    let any = HeadShape {
        encoder,
        classes: 0,
        width: 0,
    };
    let mut tensors = any.tensors().into_iter();
    let weight = tensors.find(|tensor| tensor.part == HeadPart::Weight);
    // Invariant: every head has one.
    Name::Top(weight.map_or("", |tensor| tensor.name))
}

/// Every tensor of a checkpoint with a head, with its shape, in a fixed order: with so many types of segments, and a head for so
/// many classes.
pub(crate) fn tensors(config: &Config, types: usize, head: HeadShape) -> Vec<(Name, Vec<usize>)> {
    let Config {
        vocabulary, hidden, ..
    } = *config;
    let mut all = vec![
        (WORDS, vec![vocabulary, hidden]),
        (PLACES, vec![config.places(), hidden]),
    ];
    if head.encoder != Encoder::Distilbert {
        all.push((TYPES, vec![types, hidden]));
    }
    all.push((Name::Of("embeddings.LayerNorm.weight"), vec![hidden]));
    all.push((Name::Of("embeddings.LayerNorm.bias"), vec![hidden]));
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
    if head.encoder == Encoder::Bert {
        all.push((Name::Of("pooler.dense.weight"), vec![hidden, hidden]));
        all.push((Name::Of("pooler.dense.bias"), vec![hidden]));
    }
    let of_head = |tensor: HeadTensor| (Name::Top(tensor.name), tensor.shape);
    all.extend(head.tensors().into_iter().map(of_head));
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

    /// The refusal of another. A family's settings have names of their own, so that this is found out before they are read.
    pub(super) fn unsupported(self) -> Error {
        // Some converters leave the list out; the family is then all there is to go by.
        let found = match self.architectures.as_slice() {
            [] => self.model_type,
            named => named.join(", "),
        };
        Error::Architecture { found }
    }
}

/// What is read of it.
#[derive(Deserialize)]
pub(super) struct Said {
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    layer_norm_eps: Option<f32>,
    #[serde(alias = "activation")]
    hidden_act: Option<String>,
    pad_token_id: Option<u32>,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    #[serde(default)]
    add_cross_attention: bool,
}

impl Said {
    pub(super) fn config(self, architecture: Architecture) -> Result<Config, Error> {
        let unsupported = |what: String| Err(Error::Feature { what });
        if let Some(other) = self.hidden_act.as_deref().filter(|act| *act != "gelu") {
            return unsupported(format!("the activation {other} in an encoder"));
        }
        let positions = self.position_embedding_type.as_deref();
        if let Some(other) = positions.filter(|kind| *kind != "absolute") {
            return unsupported(format!("positions of type {other} in an encoder"));
        }
        if self.is_decoder || self.add_cross_attention {
            return unsupported("an encoder as a decoder, or beside one".to_owned());
        }
        let encoder = architecture.encoder().unwrap_or_default();
        let missing = |key: &str| Error::Setting {
            key: key.to_owned(),
        };
        let epsilon = match encoder {
            // transformers has it in its code.
            Encoder::Distilbert => 1e-12,
            Encoder::Bert | Encoder::Roberta => {
                let said = self.layer_norm_eps;
                said.ok_or_else(|| missing("layer_norm_eps"))?
            }
        };
        let padding = match encoder {
            // What transformers takes where the file says nothing.
            Encoder::Roberta => Some(self.pad_token_id.unwrap_or(1)),
            Encoder::Bert | Encoder::Distilbert => None,
        };
        let before = padding.map_or(0, |token| token as usize + 1);
        let places = self.max_position_embeddings;
        let heads = self.num_attention_heads;
        let fits = heads > 0 && self.hidden_size.is_multiple_of(heads);
        let config = Config {
            architecture,
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            intermediate: self.intermediate_size,
            heads,
            kv_heads: heads,
            head_size: if fits { self.hidden_size / heads } else { 0 },
            vocabulary: self.vocab_size,
            context: places.saturating_sub(before),
            padding,
            epsilon,
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

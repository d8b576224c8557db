//! GPT-2 in Hugging Face's words: the keys of its `config.json`, the names of its tensors, and its weights, which lie there
//! as `[in, out]`.

use serde::Deserialize;

use super::Name;
use crate::model::{Architecture, Config, Error};

/// What stands before the names of its tensors, unless the model was saved without its output layer.
pub(super) const PREFIX: &str = "transformer.";

/// The name of a tensor in a folder; none for what it does not have.
pub(super) fn called(name: Name) -> Option<String> {
    let of = |layer: u16, rest: &str| Some(format!("{PREFIX}h.{layer}.{rest}"));
    match name {
        Name::Embedding => Some(format!("{PREFIX}wte.weight")),
        Name::Positions => Some(format!("{PREFIX}wpe.weight")),
        Name::FinalNorm => Some(format!("{PREFIX}ln_f.weight")),
        Name::FinalNormBias => Some(format!("{PREFIX}ln_f.bias")),
        Name::AttentionNorm(layer) => of(layer, "ln_1.weight"),
        Name::AttentionNormBias(layer) => of(layer, "ln_1.bias"),
        Name::FeedForwardNorm(layer) => of(layer, "ln_2.weight"),
        Name::FeedForwardNormBias(layer) => of(layer, "ln_2.bias"),
        _ => None,
    }
}

/// The elements of `data`, rows of `cols` elements of `size` bytes, with rows and columns exchanged.
pub(crate) fn transposed(data: &[u8], cols: usize, size: usize) -> Vec<u8> {
    let rows = data.len() / (cols * size).max(1);
    let mut out = Vec::with_capacity(data.len());
    for col in 0..cols {
        for row in 0..rows {
            let at = (row * cols + col) * size;
            out.extend_from_slice(data.get(at..at + size).unwrap_or_default());
        }
    }
    out
}

/// What is read of `config.json`.
#[derive(Deserialize)]
pub(super) struct Said {
    n_layer: usize,
    n_embd: usize,
    n_head: usize,
    n_inner: Option<usize>,
    n_positions: usize,
    vocab_size: usize,
    layer_norm_epsilon: f32,
    activation_function: Option<String>,
    tie_word_embeddings: Option<bool>,
    scale_attn_weights: Option<bool>,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    #[serde(default)]
    add_cross_attention: bool,
}

impl Said {
    pub(super) fn config(self) -> Result<Config, Error> {
        let unsupported = |what: String| Err(Error::Feature { what });
        let curve = self.activation_function.as_deref();
        if let Some(other) = curve.filter(|own| !["gelu_new", "gelu_pytorch_tanh"].contains(own)) {
            return unsupported(format!("the activation {other} in GPT-2"));
        }
        if self.scale_attn_weights == Some(false) || self.scale_attn_by_inverse_layer_idx {
            return unsupported("scores of attention that are scaled by layer, or not".to_owned());
        }
        if self.add_cross_attention {
            return unsupported("GPT-2 beside an encoder".to_owned());
        }
        let fits = self.n_head > 0 && self.n_embd.is_multiple_of(self.n_head);
        let config = Config {
            architecture: Architecture::Gpt2,
            layers: self.n_layer,
            hidden: self.n_embd,
            intermediate: self.n_inner.unwrap_or(self.n_embd.saturating_mul(4)),
            heads: self.n_head,
            kv_heads: self.n_head,
            head_size: if fits { self.n_embd / self.n_head } else { 0 },
            vocabulary: self.vocab_size,
            context: self.n_positions,
            padding: None,
            epsilon: self.layer_norm_epsilon,
            // Positions are a table: nothing is rotated.
            rope_theta: 10_000.0,
            rope_factors: Vec::new(),
            tied: self.tie_word_embeddings.unwrap_or(true),
            score_scale: None,
            sliding: None,
        };
        config.checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_exchanged_element_by_element() {
        let data: Vec<u8> = (0..12).collect();
        let turned = transposed(&data, 3, 2);
        assert_eq!(turned, [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
        assert_eq!(transposed(&turned, 2, 2), data);
    }
}

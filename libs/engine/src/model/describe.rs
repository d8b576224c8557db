//! A model's sizes in the words of other formats: `config.json` and GGUF metadata.

use candle_core::quantized::gguf_file::Value as Gguf;
use domain::adapter::Projection;
use serde_json::{Value, json};

use super::Config;
use crate::text::Tokenizer;

impl Config {
    /// `general.architecture` of GGUF files.
    pub(crate) const fn gguf_architecture(&self) -> &'static str {
        self.architecture.facts().gguf
    }

    /// The rows of a head, where GGUF files have the rows of this projection in another order (`source::rows`).
    pub(crate) const fn turned(&self, projection: Projection) -> Option<usize> {
        match projection {
            Projection::Q | Projection::K if self.architecture.facts().turned => {
                Some(self.head_size)
            }
            _ => None,
        }
    }

    /// What Hugging Face's `config.json` says of this model.
    pub(crate) fn to_hugging_face(&self, tokenizer: &Tokenizer) -> Value {
        let facts = self.architecture.facts();
        json!({
            "architectures": [facts.class],
            "model_type": facts.model_type,
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": tokenizer.bos(),
            "eos_token_id": tokenizer.eos(),
            "head_dim": self.head_size,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.context,
            "mlp_bias": false,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": tokenizer.pad(),
            "rms_norm_eps": shortest(self.epsilon),
            "rope_parameters": { "rope_theta": shortest(self.rope_theta), "rope_type": "default" },
            "rope_scaling": null,
            "rope_theta": shortest(self.rope_theta),
            "tie_word_embeddings": self.tied,
            "use_cache": true,
            "vocab_size": self.vocabulary,
        })
    }

    /// What a GGUF file says of this model.
    pub(crate) fn to_gguf(&self) -> Vec<(String, Gguf)> {
        let architecture = self.gguf_architecture();
        let numbers = [
            ("block_count", self.layers),
            ("context_length", self.context),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.intermediate),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_size),
            ("attention.value_length", self.head_size),
            ("rope.dimension_count", self.head_size),
            ("vocab_size", self.vocabulary),
        ];
        let numbers = numbers.map(|(key, number)| {
            // Invariant: `Config::checked` bounds every size far below 2^32, but for the context.
            (key, Gguf::U32(u32::try_from(number).unwrap_or(u32::MAX)))
        });
        let reals = [
            ("attention.layer_norm_rms_epsilon", self.epsilon),
            ("rope.freq_base", self.rope_theta),
        ];
        let reals = reals.map(|(key, real)| (key, Gguf::F32(real)));
        let mut all = vec![(
            "general.architecture".to_owned(),
            Gguf::String(architecture.to_owned()),
        )];
        let own = numbers.into_iter().chain(reals);
        all.extend(own.map(|(key, value)| (format!("{architecture}.{key}"), value)));
        all
    }
}

/// The shortest decimal that is this `f32`, as a file's author would have written it.
fn shortest(value: f32) -> Value {
    let text = value.to_string().parse::<f64>();
    text.map_or(Value::Null, Value::from)
}

//! A model's sizes in the words of other formats: `config.json` and GGUF metadata.

use candle_core::quantized::gguf_file::Value as Gguf;
use domain::adapter::Projection;
use serde_json::{Value, json};

use super::{Architecture, Config, Sliding};
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
        match self.architecture {
            Architecture::Gpt2 => self.to_gpt2(tokenizer),
            Architecture::Gemma3 => self.to_gemma3(tokenizer),
            _ => self.to_decoder(tokenizer),
        }
    }

    fn to_gpt2(&self, tokenizer: &Tokenizer) -> Value {
        let facts = self.architecture.facts();
        json!({
            "architectures": [facts.class],
            "model_type": facts.model_type,
            "activation_function": "gelu_new",
            "attn_pdrop": 0.0,
            "bos_token_id": tokenizer.bos(),
            "embd_pdrop": 0.0,
            "eos_token_id": tokenizer.eos(),
            "layer_norm_epsilon": shortest(self.epsilon),
            "n_embd": self.hidden,
            "n_head": self.heads,
            "n_inner": self.intermediate,
            "n_layer": self.layers,
            "n_positions": self.context,
            "pad_token_id": tokenizer.pad(),
            "resid_pdrop": 0.0,
            "scale_attn_weights": true,
            "tie_word_embeddings": self.tied,
            "use_cache": true,
            "vocab_size": self.vocabulary,
        })
    }

    /// What Gemma has beside what every decoder has.
    fn to_gemma3(&self, tokenizer: &Tokenizer) -> Value {
        let mut all = self.to_decoder(tokenizer);
        let Some(fields) = all.as_object_mut() else {
            return all;
        };
        fields.remove("hidden_act");
        let scalar = 1.0 / (self.scores_by() * self.scores_by());
        let kind = |layer| match self.window(layer) {
            Some(_) => "sliding_attention",
            None => "full_attention",
        };
        let layers: Vec<_> = (0..self.layers).map(kind).collect();
        let rope = |theta| json!({ "rope_theta": shortest(theta), "rope_type": "default" });
        let scaling = self
            .linear_factor()
            .map(|factor| json!({ "factor": shortest(factor), "rope_type": "linear" }));
        let mut far = rope(self.rope_theta);
        if let (Some(own), Some(Value::Object(scaling))) = (far.as_object_mut(), &scaling) {
            own.extend(scaling.clone());
        }
        let near = self.sliding.map_or(10_000.0, |sliding| sliding.theta);
        fields.extend([
            ("attn_logit_softcapping".to_owned(), Value::Null),
            ("final_logit_softcapping".to_owned(), Value::Null),
            ("hidden_activation".to_owned(), json!("gelu_pytorch_tanh")),
            ("layer_types".to_owned(), json!(layers)),
            (
                "query_pre_attn_scalar".to_owned(),
                json!(scalar.round() as u64),
            ),
            ("rope_local_base_freq".to_owned(), shortest(near)),
            (
                "rope_parameters".to_owned(),
                json!({ "full_attention": far, "sliding_attention": rope(near) }),
            ),
            // transformers 4 reads this one.
            ("rope_scaling".to_owned(), json!(scaling)),
            (
                "sliding_window".to_owned(),
                json!(self.sliding.map(|sliding| sliding.window)),
            ),
        ]);
        all
    }

    fn to_decoder(&self, tokenizer: &Tokenizer) -> Value {
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

    /// What a GGUF file cannot say of this model to llama.cpp, which takes it as given.
    pub(crate) fn unsaid_in_gguf(&self) -> Option<&'static str> {
        if self.architecture != Architecture::Gemma3 {
            return None;
        }
        let usual = |own: Sliding| own.every == 6 && own.theta == 10_000.0;
        if !self.sliding.is_some_and(usual) {
            return Some(
                "Gemma 3 whose layers without a window are not every sixth, or with other rotations",
            );
        }
        let scaled = self.score_scale != self.score_scale_in_gguf();
        scaled.then_some("Gemma 3 whose scores are scaled otherwise than by the width of a head")
    }

    /// What a GGUF file says of this model.
    pub(crate) fn to_gguf(&self) -> Vec<(String, Gguf)> {
        if self.architecture == Architecture::Gpt2 {
            return self.to_gpt2_gguf();
        }
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
        let numbers = numbers.map(|(key, own)| (key, number(own)));
        let reals = [
            ("attention.layer_norm_rms_epsilon", self.epsilon),
            ("rope.freq_base", self.rope_theta),
        ];
        let reals = reals.map(|(key, real)| (key, Gguf::F32(real)));
        let window = self.sliding.map(|sliding| sliding.window);
        let window = window.map(|window| ("attention.sliding_window", number(window)));
        let scaling = self.linear_factor().map(|factor| {
            [
                ("rope.scaling.type", Gguf::String("linear".to_owned())),
                ("rope.scaling.factor", Gguf::F32(factor)),
            ]
        });
        let all = numbers.into_iter().chain(reals).chain(window);
        said(architecture, all.chain(scaling.into_iter().flatten()))
    }

    fn to_gpt2_gguf(&self) -> Vec<(String, Gguf)> {
        let numbers = [
            ("block_count", self.layers),
            ("context_length", self.context),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.intermediate),
            ("attention.head_count", self.heads),
        ];
        let numbers = numbers.map(|(key, own)| (key, number(own)));
        let epsilon = ("attention.layer_norm_epsilon", Gguf::F32(self.epsilon));
        said(
            self.gguf_architecture(),
            numbers.into_iter().chain([epsilon]),
        )
    }
}

fn number(own: usize) -> Gguf {
    // Invariant: `Config::checked` bounds every size far below 2^32, but for the context.
    Gguf::U32(u32::try_from(own).unwrap_or(u32::MAX))
}

/// The name of the architecture, and what is said under it.
fn said(
    architecture: &str,
    own: impl Iterator<Item = (&'static str, Gguf)>,
) -> Vec<(String, Gguf)> {
    let name = Gguf::String(architecture.to_owned());
    let own = own.map(|(key, value)| (format!("{architecture}.{key}"), value));
    std::iter::once(("general.architecture".to_owned(), name))
        .chain(own)
        .collect()
}

/// The shortest decimal that is this `f32`, as a file's author would have written it.
fn shortest(value: f32) -> Value {
    let text = value.to_string().parse::<f64>();
    text.map_or(Value::Null, Value::from)
}

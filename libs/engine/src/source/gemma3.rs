//! What Gemma 3 says in `config.json` beside what every decoder says.

use serde::Deserialize;

use crate::model::{Error, Sliding};

/// As transformers has them where they are not said.
const PATTERN: usize = 6;
const NEAR_THETA: f32 = 10_000.0;

/// The part of `config.json`.
#[derive(Deserialize)]
pub(super) struct Said {
    query_pre_attn_scalar: Option<f32>,
    layer_types: Option<Vec<String>>,
    sliding_window_pattern: Option<usize>,
    rope_local_base_freq: Option<f32>,
    final_logit_softcapping: Option<f32>,
    attn_logit_softcapping: Option<f32>,
    #[serde(default)]
    use_bidirectional_attention: bool,
}

impl Said {
    /// What scores are multiplied by.
    pub(super) fn score_scale(&self) -> f32 {
        1.0 / self.query_pre_attn_scalar.unwrap_or(256.0).sqrt()
    }

    /// # Errors
    /// Something of it is not computed.
    pub(super) fn refuse_unsupported(&self) -> Result<(), Error> {
        let capped =
            self.final_logit_softcapping.is_some() || self.attn_logit_softcapping.is_some();
        let what = if capped {
            "scores that are capped"
        } else if self.use_bidirectional_attention {
            "Gemma 3 that sees what comes after"
        } else {
            return Ok(());
        };
        Err(Error::Feature {
            what: what.to_owned(),
        })
    }

    /// The layers with a window of `window` tokens and a base of rotary angles of their own.
    pub(super) fn sliding(
        &self,
        (window, theta): (usize, Option<f32>),
        layers: usize,
    ) -> Result<Option<Sliding>, Error> {
        let every = match &self.layer_types {
            Some(types) => period(types, layers)?,
            None => self.sliding_window_pattern.unwrap_or(PATTERN),
        };
        let theta = theta.or(self.rope_local_base_freq);
        // Where every layer sees everything there is no window.
        Ok((every != 1).then_some(Sliding {
            window,
            theta: theta.unwrap_or(NEAR_THETA),
            every,
        }))
    }
}

/// After how many layers the list repeats, the last of them seeing everything.
fn period(types: &[String], layers: usize) -> Result<usize, Error> {
    let sees_all = |kind: &String| kind == "full_attention";
    let first = types.iter().position(sees_all).unwrap_or(layers);
    let every = first.saturating_add(1);
    let fits = (1..).zip(types).all(|(layer, kind): (usize, _)| {
        let full = layer.is_multiple_of(every);
        kind == if full {
            "full_attention"
        } else {
            "sliding_attention"
        }
    });
    if fits && types.len() == layers {
        return Ok(every);
    }
    Err(Error::Feature {
        what: "layer_types other than sliding_attention with full_attention every so many layers"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    /// What llama.cpp takes as given of the published models is what their configurations say: 4B's and 27B's, of which only
    /// the latter's scores are scaled by something else than the width of a head.
    #[test]
    fn published_sizes_are_the_same_model_in_gguf() {
        let config = |sizes: [usize; 6]| {
            let [layers, hidden, inner, heads, size, scalar] = sizes;
            let said = serde_json::json!({
                "architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": layers, "hidden_size": hidden,
                "intermediate_size": inner, "num_attention_heads": heads, "num_key_value_heads": heads / 2,
                "head_dim": size, "query_pre_attn_scalar": scalar, "vocab_size": 262_208,
                "max_position_embeddings": 131_072, "rms_norm_eps": 1e-6, "sliding_window": 1024,
                "rope_scaling": { "factor": 8.0, "rope_type": "linear" },
            });
            Source::config_of_start("config.json", said.to_string().as_bytes()).unwrap()
        };
        let [small, large] = [
            config([34, 2560, 10_240, 8, 256, 256]),
            config([62, 5376, 21_504, 32, 128, 168]),
        ];
        assert_eq!(small.score_scale, None);
        assert_eq!(large.score_scale, Some(1.0 / 168f32.sqrt()));
        for own in [small, large] {
            assert_eq!(own.score_scale_in_gguf(), own.score_scale);
            assert_eq!(own.unsaid_in_gguf(), None);
            assert_eq!(own.linear_factor(), Some(8.0));
            assert_eq!(own.window(0).map(|near| near.theta), Some(NEAR_THETA));
        }
    }

    #[test]
    fn a_list_of_layers_is_a_period_or_refused() {
        let list = |text: &str| {
            let kind = |c| match c {
                'f' => "full_attention".to_owned(),
                's' => "sliding_attention".to_owned(),
                _ => "chunked_attention".to_owned(),
            };
            let types: Vec<String> = text.chars().map(kind).collect();
            period(&types, types.len()).ok()
        };
        assert_eq!(list("sssssfss"), Some(6));
        assert_eq!(list("sfsf"), Some(2));
        assert_eq!(list("ff"), Some(1));
        assert_eq!(list("ss"), Some(3));
        for wrong in ["fs", "sfs s", "sffs", "sc"] {
            assert_eq!(list(wrong), None, "{wrong}");
        }
        assert!(period(&[], 2).is_err());
    }
}

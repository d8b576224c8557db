//! `adapter_config.json` as Hugging Face PEFT reads it, written by whoever leaves an adapter behind.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::adapter::Encoder;

/// A LoRA adapter's configuration. The fields stand in alphabetical order, as PEFT's do; what this
/// program never does is said with PEFT's word for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// Alphas of the modules whose rank is another than `r`, by name.
    pub alpha_pattern: BTreeMap<String, f64>,
    auto_mapping: Option<()>,
    /// The name or folder that PEFT finds the base model by.
    pub base_model_name_or_path: String,
    bias: &'static str,
    fan_in_fan_out: bool,
    inference_mode: bool,
    init_lora_weights: bool,
    /// The scale is `lora_alpha / r`.
    pub lora_alpha: f64,
    lora_dropout: f64,
    /// Modules that were trained in full and come with the adapter.
    pub modules_to_save: Option<Vec<&'static str>>,
    peft_type: &'static str,
    /// The rank, of all modules or of most.
    pub r: u16,
    /// Ranks of the modules whose rank is another, by name.
    pub rank_pattern: BTreeMap<String, u16>,
    /// Modules that carry the adapter.
    pub target_modules: Vec<String>,
    /// PEFT's word for what the model does.
    pub task_type: &'static str,
    use_dora: bool,
    use_rslora: bool,
}

impl Config {
    /// The same, of weights that checkpoints hold as `[in, out]`, as GPT-2's do.
    #[must_use]
    pub fn with_transposed_weights(self, fan_in_fan_out: bool) -> Self {
        Self {
            fan_in_fan_out,
            ..self
        }
    }

    /// Of an adapter that has one rank.
    #[must_use]
    pub fn uniform(base_model: String, target_modules: Vec<String>, rank: u16, alpha: f64) -> Self {
        Self {
            alpha_pattern: BTreeMap::new(),
            auto_mapping: None,
            base_model_name_or_path: base_model,
            bias: "none",
            fan_in_fan_out: false,
            inference_mode: true,
            init_lora_weights: true,
            lora_alpha: alpha,
            lora_dropout: 0.0,
            modules_to_save: None,
            peft_type: "LORA",
            r: rank,
            rank_pattern: BTreeMap::new(),
            target_modules,
            task_type: "CAUSAL_LM",
            use_dora: false,
            use_rslora: false,
        }
    }

    /// With a classification head of this family, trained in full.
    #[must_use]
    pub fn with_head(self, encoder: Encoder) -> Self {
        Self {
            modules_to_save: Some(encoder.saved_modules().to_vec()),
            task_type: "SEQ_CLS",
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_adapter_needs_no_pattern_and_the_fields_are_in_pefts_order() {
        let config = Config::uniform("base".to_owned(), vec!["q_proj".to_owned()], 8, 16.0);
        let text = serde_json::to_string(&config).expect("serializes");
        let expected = concat!(
            r#"{"alpha_pattern":{},"auto_mapping":null,"base_model_name_or_path":"base","bias":"none","#,
            r#""fan_in_fan_out":false,"inference_mode":true,"init_lora_weights":true,"lora_alpha":16.0,"#,
            r#""lora_dropout":0.0,"modules_to_save":null,"peft_type":"LORA","r":8,"rank_pattern":{},"#,
            r#""target_modules":["q_proj"],"task_type":"CAUSAL_LM","use_dora":false,"use_rslora":false}"#,
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_head_is_a_module_to_save() {
        for (encoder, modules) in [
            (Encoder::Bert, r#""modules_to_save":["classifier"]"#),
            (
                Encoder::Distilbert,
                r#""modules_to_save":["pre_classifier","classifier"]"#,
            ),
        ] {
            let config = Config::uniform("base".to_owned(), Vec::new(), 8, 16.0);
            let text = serde_json::to_string(&config.with_head(encoder)).expect("serializes");
            for part in [modules, r#""task_type":"SEQ_CLS""#] {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}

//! The families of models, one file each: what each has of its own over the shared blocks.
//!
//! All but BERT, `RoBERTa` and `DistilBERT` are decoders of the same shape: normalized residual blocks of causal attention and a
//! feed-forward network.
//! A file says what its family is called, and where it differs.

mod bert;
mod distilbert;
mod gemma3;
mod gpt2;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod roberta;

use domain::adapter::Encoder;

/// A family of models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// Llama 2 and 3, `SmolLM2`, and what was made after them.
    #[default]
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3.
    Qwen3,
    /// BERT: an encoder, which classifies and writes nothing.
    Bert,
    /// GPT-2.
    Gpt2,
    /// Gemma 3, the models of text alone.
    Gemma3,
    /// `RoBERTa`: an encoder.
    Roberta,
    /// `XLM-RoBERTa`: the same of other names.
    XlmRoberta,
    /// `DistilBERT`: an encoder.
    Distilbert,
}

/// What a family has of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// `architectures` of Hugging Face's `config.json`.
    pub(crate) class: &'static str,
    /// `model_type` of the same.
    pub(crate) model_type: &'static str,
    /// `general.architecture` of GGUF files; empty where there are none that are read.
    pub(crate) gguf: &'static str,
    /// Whether the feed-forward network has a gate.
    pub(crate) gated: bool,
    /// Whether queries, keys and values have biases.
    pub(crate) biases: bool,
    /// Whether each head of the queries and keys is normalized before it is rotated.
    pub(crate) head_norms: bool,
    /// Whether GGUF files have the rows of queries and keys in another order (`source::rows`).
    pub(crate) turned: bool,
    /// When a configuration's `sliding_window` holds.
    pub(crate) window: Window,
    /// How a residual block's input is normalized.
    pub(crate) norm: Norms,
    /// Whether what attention and feed-forward network give is normalized as well.
    pub(crate) post_norms: bool,
    /// The curve of the feed-forward network.
    pub(crate) curve: Curve,
    /// Whether all linear layers have biases.
    pub(crate) all_biases: bool,
    /// Whether positions are a table that is added to the embedding; where they are, nothing is rotated.
    pub(crate) learned_positions: bool,
    /// Whether the embedding is multiplied by the root of its width.
    pub(crate) scaled_embedding: bool,
    /// `architectures` of an encoder's checkpoints that have no classification head.
    pub(crate) without_head: &'static [&'static str],
    /// Whether the output layer is the embedding where `config.json` does not say.
    pub(crate) tied: bool,
}

/// What is not said of a family: it is as Llama has it.
const LLAMA: Facts = llama::FACTS;

/// Normalizations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Norms {
    /// By the root of the mean square, times a weight.
    Rms,
    /// The same, where Hugging Face's folders hold the weight less one (GGUF files hold all of it).
    RmsLessOne,
    /// To mean and variance, times a weight, plus a bias.
    Layer,
}

/// Curves of feed-forward networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    /// `x · sigmoid(x)`
    Silu,
    /// GELU by a hyperbolic tangent.
    GeluTanh,
}

/// When a token sees only so many before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    /// Never.
    Never,
    /// Where the configuration gives one.
    Given,
    /// Where it says that it is used.
    Used,
    /// In all layers but every so many, whatever their length.
    Layers,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Bert,
        Self::Gpt2,
        Self::Gemma3,
        Self::Roberta,
        Self::XlmRoberta,
        Self::Distilbert,
    ];

    /// The family of encoders; none of a decoder.
    #[must_use]
    pub const fn encoder(self) -> Option<Encoder> {
        match self {
            Self::Bert => Some(Encoder::Bert),
            Self::Roberta | Self::XlmRoberta => Some(Encoder::Roberta),
            Self::Distilbert => Some(Encoder::Distilbert),
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 | Self::Gpt2 | Self::Gemma3 => {
                None
            }
        }
    }

    /// Whether it classifies and writes nothing.
    #[must_use]
    pub const fn is_encoder(self) -> bool {
        self.encoder().is_some()
    }

    pub(crate) const fn facts(self) -> Facts {
        match self {
            Self::Llama => llama::FACTS,
            Self::Mistral => mistral::FACTS,
            Self::Qwen2 => qwen2::FACTS,
            Self::Qwen3 => qwen3::FACTS,
            Self::Bert => bert::FACTS,
            Self::Gpt2 => gpt2::FACTS,
            Self::Gemma3 => gemma3::FACTS,
            Self::Roberta => roberta::FACTS,
            Self::XlmRoberta => roberta::XLM,
            Self::Distilbert => distilbert::FACTS,
        }
    }

    /// By class, or where a configuration names none, by the family's name.
    pub(crate) fn of_hugging_face(found: &str) -> Option<Self> {
        let is = |own: &Self| {
            let facts = own.facts();
            let without_head = facts.without_head.contains(&found);
            found == facts.class || found == facts.model_type || without_head
        };
        Self::ALL.into_iter().find(is)
    }

    /// Several families may have one name, of which the first is meant: GGUF makes no difference between them.
    pub(crate) fn of_gguf(found: &str) -> Option<Self> {
        let is = |own: &Self| !found.is_empty() && own.facts().gguf == found;
        Self::ALL.into_iter().find(is)
    }

    /// What is supported, for people.
    pub(crate) fn supported() -> String {
        let mut gguf = Self::ALL.map(|own| own.facts().gguf).to_vec();
        gguf.dedup();
        gguf.retain(|name| !name.is_empty());
        let classes = Self::ALL.iter().flat_map(|own| {
            let facts = own.facts();
            std::iter::once(facts.class).chain(facts.without_head.iter().copied())
        });
        let classes: Vec<&str> = classes.collect();
        format!(
            "{} (gguf), {} (hugging face)",
            gguf.join(", "),
            classes.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_found_by_either_name() {
        for own in Architecture::ALL {
            let facts = own.facts();
            assert_eq!(Architecture::of_hugging_face(facts.class), Some(own));
            assert_eq!(Architecture::of_hugging_face(facts.model_type), Some(own));
            let in_gguf = Architecture::of_gguf(facts.gguf).is_some();
            assert_eq!(in_gguf, !own.is_encoder());
            assert_eq!(facts.without_head.is_empty(), !own.is_encoder());
        }
        assert_eq!(Architecture::of_gguf("llama"), Some(Architecture::Llama));
        assert_eq!(Architecture::of_hugging_face("Qwen2MoeForCausalLM"), None);
        for (found, own) in [
            ("BertModel", Architecture::Bert),
            ("BertForMaskedLM", Architecture::Bert),
            ("RobertaForMaskedLM", Architecture::Roberta),
            ("XLMRobertaModel", Architecture::XlmRoberta),
            ("DistilBertForMaskedLM", Architecture::Distilbert),
        ] {
            assert_eq!(Architecture::of_hugging_face(found), Some(own));
        }
        assert_eq!(Architecture::of_hugging_face("CamembertModel"), None);
        assert_eq!(
            Architecture::supported(),
            "llama, qwen2, qwen3, gpt2, gemma3 (gguf), LlamaForCausalLM, MistralForCausalLM, \
             Qwen2ForCausalLM, Qwen3ForCausalLM, BertForSequenceClassification, BertModel, \
             BertForMaskedLM, BertForPreTraining, GPT2LMHeadModel, Gemma3ForCausalLM, \
             RobertaForSequenceClassification, RobertaModel, RobertaForMaskedLM, \
             XLMRobertaForSequenceClassification, XLMRobertaModel, XLMRobertaForMaskedLM, \
             DistilBertForSequenceClassification, DistilBertModel, DistilBertForMaskedLM \
             (hugging face)"
        );
    }
}

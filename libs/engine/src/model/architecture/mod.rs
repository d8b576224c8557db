//! The families of models, one file each: what each has of its own over the shared blocks.
//!
//! All are decoders of the same shape: normalized residual blocks of causal attention with grouped heads and rotary
//! positions, and a gated feed-forward network. A file says what its family is called, and where it differs.

mod llama;
mod mistral;
mod qwen2;
mod qwen3;

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
}

/// What a family has of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// `architectures` of Hugging Face's `config.json`.
    pub(crate) class: &'static str,
    /// `model_type` of the same.
    pub(crate) model_type: &'static str,
    /// `general.architecture` of GGUF files.
    pub(crate) gguf: &'static str,
    /// Whether queries, keys and values have biases.
    pub(crate) biases: bool,
    /// Whether each head of the queries and keys is normalized before it is rotated.
    pub(crate) head_norms: bool,
    /// Whether GGUF files have the rows of queries and keys in another order (`source::rows`).
    pub(crate) turned: bool,
    /// When a configuration's `sliding_window` holds.
    pub(crate) window: Window,
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
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    pub(crate) const fn facts(self) -> Facts {
        match self {
            Self::Llama => llama::FACTS,
            Self::Mistral => mistral::FACTS,
            Self::Qwen2 => qwen2::FACTS,
            Self::Qwen3 => qwen3::FACTS,
        }
    }

    /// By class, or where a configuration names none, by the family's name.
    pub(crate) fn of_hugging_face(found: &str) -> Option<Self> {
        let is = |own: &Self| {
            let facts = own.facts();
            found == facts.class || found == facts.model_type
        };
        Self::ALL.into_iter().find(is)
    }

    /// Several families may have one name, of which the first is meant: GGUF makes no difference between them.
    pub(crate) fn of_gguf(found: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|own| own.facts().gguf == found)
    }

    /// What is supported, for people.
    pub(crate) fn supported() -> String {
        let mut gguf = Self::ALL.map(|own| own.facts().gguf).to_vec();
        gguf.dedup();
        let classes = Self::ALL.map(|own| own.facts().class);
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
            assert!(Architecture::of_gguf(facts.gguf).is_some());
        }
        assert_eq!(Architecture::of_gguf("llama"), Some(Architecture::Llama));
        assert_eq!(Architecture::of_hugging_face("Qwen2MoeForCausalLM"), None);
        assert_eq!(
            Architecture::supported(),
            "llama, qwen2, qwen3 (gguf), LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, \
             Qwen3ForCausalLM (hugging face)"
        );
    }
}

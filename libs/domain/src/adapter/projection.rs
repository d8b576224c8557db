//! The linear weights of a block that can carry an adapter, in every family of models.

use serde::{Deserialize, Serialize};

/// A linear weight of a transformer block that can carry an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Projection {
    /// Query projection of attention.
    Q,
    /// Key projection of attention.
    K,
    /// Value projection of attention.
    V,
    /// Output projection of attention.
    O,
    /// Gate projection of the feed-forward network.
    Gate,
    /// Up projection of the feed-forward network.
    Up,
    /// Down projection of the feed-forward network.
    Down,
    /// GPT-2's queries, keys and values in one.
    #[serde(rename = "c_attn")]
    CAttn,
    /// GPT-2's output projection of attention; `c_proj` alone would name that of the feed-forward network too.
    #[serde(rename = "attn.c_proj")]
    AttnCProj,
    /// GPT-2's first of the two projections of the feed-forward network.
    #[serde(rename = "c_fc")]
    CFc,
    /// GPT-2's second of them.
    #[serde(rename = "mlp.c_proj")]
    MlpCProj,
}

impl Projection {
    /// All of a Llama's block and of those made like it, in the order of its forward pass.
    pub const ALL: [Self; 7] = [
        Self::Q,
        Self::K,
        Self::V,
        Self::O,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// All of a GPT-2's block, in the order of its forward pass.
    pub const GPT2: [Self; 4] = [Self::CAttn, Self::AttnCProj, Self::CFc, Self::MlpCProj];

    /// Whether checkpoints hold the weight as `[in, out]`: PEFT's `fan_in_fan_out`.
    #[must_use]
    pub fn is_transposed(self) -> bool {
        Self::GPT2.contains(&self)
    }

    /// Those of every family of models.
    pub fn of_every_family() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain(Self::GPT2)
    }

    /// The module's name in PEFT's `target_modules`: the end of a weight's name in Hugging Face checkpoints, and of
    /// no other projection's.
    #[must_use]
    pub const fn module(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
            Self::CAttn => "c_attn",
            Self::AttnCProj => "attn.c_proj",
            Self::CFc => "c_fc",
            Self::MlpCProj => "mlp.c_proj",
        }
    }

    /// What comes before the layer's number in a weight's name.
    pub(super) const fn before(self) -> &'static str {
        match self {
            Self::CAttn | Self::AttnCProj | Self::CFc | Self::MlpCProj => "transformer.h.",
            _ => "model.layers.",
        }
    }

    /// What comes after it.
    pub(super) const fn after(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
            Self::CAttn => "attn.c_attn",
            Self::AttnCProj => "attn.c_proj",
            Self::CFc => "mlp.c_fc",
            Self::MlpCProj => "mlp.c_proj",
        }
    }
}

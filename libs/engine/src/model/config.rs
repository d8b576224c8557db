//! The sizes of a model.

use domain::adapter::{HeadShape, LAYER_LIMIT, Projection, WeightName, WeightShape};

use super::{Architecture, Error, Norms};
use crate::compute;

/// The sizes of a model. Built only by loading; every value is possible.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Its family.
    pub architecture: Architecture,
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward network.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, even.
    pub head_size: usize,
    /// Rows of the embedding table.
    pub vocabulary: usize,
    /// The longest sequence.
    pub context: usize,
    /// The token that fills texts up, where the table of positions has those of texts behind its number (`RoBERTa`).
    pub padding: Option<u32>,
    /// ε of the normalizations.
    pub epsilon: f32,
    /// Base of the rotary angles.
    pub rope_theta: f32,
    /// What each rotary frequency of a head is divided by, `[head_size / 2]`; empty where none is.
    pub rope_factors: Vec<f32>,
    /// Whether the output layer is the embedding table.
    pub tied: bool,
    /// What scores of queries and keys are multiplied by; none: one over the root of a head's width.
    pub score_scale: Option<f32>,
    /// Layers that see a window; none: all see everything.
    pub sliding: Option<Sliding>,
}

/// Layers in which a token sees only so many before it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Sliding {
    /// How many a token sees, itself included.
    pub window: usize,
    /// Base of the rotary angles there.
    pub theta: f32,
    /// Every so many-th layer sees everything.
    pub every: usize,
}

impl Config {
    /// Refuses what no file can mean.
    pub(crate) fn checked(self) -> Result<Self, Error> {
        let possible = [
            ("layers", (1..=LAYER_LIMIT).contains(&self.layers)),
            ("hidden size", (1..=1 << 20).contains(&self.hidden)),
            (
                "feed-forward size",
                (1..=1 << 22).contains(&self.intermediate),
            ),
            ("attention heads", (1..=1 << 16).contains(&self.heads)),
            (
                "key and value heads",
                self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            ),
            (
                "head size",
                (2..=1 << 16).contains(&self.head_size) && self.head_size.is_multiple_of(2),
            ),
            ("vocabulary", (1..=1 << 24).contains(&self.vocabulary)),
            ("context length", self.context > 0),
            (
                "normalization epsilon",
                self.epsilon.is_finite() && self.epsilon >= 0.0,
            ),
            (
                "rope theta",
                self.rope_theta.is_finite() && self.rope_theta > 0.0,
            ),
            ("rope factors", self.has_possible_factors()),
            (
                "scale of attention",
                self.score_scale
                    .is_none_or(|scale| scale.is_finite() && scale > 0.0),
            ),
            (
                "sliding window",
                self.sliding.is_none_or(Sliding::is_possible),
            ),
        ];
        if let Some((key, _)) = possible.iter().find(|(_, possible)| !possible) {
            return Err(Error::Setting {
                key: (*key).to_owned(),
            });
        }
        Ok(self)
    }

    fn has_possible_factors(&self) -> bool {
        let factors = &self.rope_factors;
        let fits = factors.is_empty() || factors.len() == self.head_size / 2;
        fits && factors
            .iter()
            .all(|factor| factor.is_finite() && *factor > 0.0)
    }

    /// Values of a block's vectors: normalizations and biases.
    pub(crate) fn block_vectors(&self) -> usize {
        let facts = self.architecture.facts();
        let biased = self.projections().filter(|own| self.has_bias(*own));
        let biases: usize = biased.map(|own| self.shape(own).0).sum();
        let norms = if facts.norm == Norms::Layer || facts.post_norms {
            4
        } else {
            2
        };
        let heads = if facts.head_norms {
            2 * self.head_size
        } else {
            0
        };
        norms * self.hidden + biases + heads
    }

    /// Values of the vectors beside the blocks: the last normalization, and a table of positions.
    pub(crate) const fn other_vectors(&self) -> usize {
        let facts = self.architecture.facts();
        let norm = if matches!(facts.norm, Norms::Layer) {
            2
        } else {
            1
        };
        let positions = if facts.learned_positions {
            self.context
        } else {
            0
        };
        (norm + positions) * self.hidden
    }

    /// Whether a projection has a bias.
    pub(crate) fn has_bias(&self, projection: Projection) -> bool {
        let facts = self.architecture.facts();
        let qkv = [
            Projection::Q,
            Projection::K,
            Projection::V,
            Projection::CAttn,
        ];
        let biased = facts.all_biases || (facts.biases && qkv.contains(&projection));
        biased && self.has(projection)
    }

    /// Rows of an encoder's table of positions.
    pub(crate) fn places(&self) -> usize {
        let before = self.padding.map_or(0, |token| token as usize + 1);
        self.context.saturating_add(before)
    }

    /// Whether a classification head is one for this model.
    ///
    /// # Errors
    /// It is a decoder, of another width, or of another family than the head.
    pub(crate) fn takes_head(&self, head: HeadShape) -> Result<(), compute::Error> {
        let width = head.width;
        match self.architecture.encoder() {
            Some(encoder) if width == self.hidden && encoder == head.encoder => Ok(()),
            Some(encoder) if width == self.hidden => Err(compute::Error::HeadFamily {
                head: head.encoder,
                model: encoder,
            }),
            _ => Err(compute::Error::Head { width }),
        }
    }

    /// The window of a layer; none: it sees everything.
    pub(crate) fn window(&self, layer: usize) -> Option<Sliding> {
        self.sliding
            .filter(|own| !(layer + 1).is_multiple_of(own.every))
    }

    /// What scores are multiplied by.
    pub(crate) fn scores_by(&self) -> f32 {
        self.score_scale
            .unwrap_or_else(|| 1.0 / (self.head_size as f32).sqrt())
    }

    /// What Gemma 3's positions are divided by in the layers without a window; none where they are not scaled, and of other
    /// families, which scale each frequency by itself.
    pub(crate) fn linear_factor(&self) -> Option<f32> {
        match self.architecture {
            Architecture::Gemma3 => self.rope_factors.first().copied(),
            _ => None,
        }
    }

    /// What llama.cpp multiplies the scores by, where that is not [`Config::scores_by`] without a scale of its own: it knows
    /// Gemma 3's largest model (27B) by its number of blocks, and takes a head's share of the residual stream.
    pub(crate) fn score_scale_in_gguf(&self) -> Option<f32> {
        const LARGEST_LAYERS: usize = 62;
        if self.architecture != Architecture::Gemma3 || self.layers != LARGEST_LAYERS {
            return None;
        }
        let share = self.hidden.checked_div(self.heads)?;
        (share > 0 && share != self.head_size).then(|| 1.0 / (share as f32).sqrt())
    }

    /// What is added to a normalization's weight that lies in a Hugging Face folder.
    pub(crate) const fn norm_offset(&self) -> f32 {
        match self.architecture.facts().norm {
            Norms::RmsLessOne => 1.0,
            Norms::Rms | Norms::Layer => 0.0,
        }
    }

    /// The projections of a block, in forward order.
    pub(crate) fn projections(&self) -> impl Iterator<Item = Projection> {
        Projection::of_every_family().filter(|projection| self.has(*projection))
    }

    /// Whether the blocks have a projection: not every feed-forward network has a gate.
    pub(crate) fn has(&self, projection: Projection) -> bool {
        let gpt2 = Projection::GPT2.contains(&projection);
        let gated = projection != Projection::Gate || self.architecture.facts().gated;
        gated && gpt2 == (self.architecture == Architecture::Gpt2)
    }

    /// Output and input width of a projection.
    pub(crate) const fn shape(&self, projection: Projection) -> (usize, usize) {
        let (queries, keys) = (self.heads * self.head_size, self.kv_heads * self.head_size);
        match projection {
            Projection::Q => (queries, self.hidden),
            Projection::K | Projection::V => (keys, self.hidden),
            Projection::CAttn => (queries + 2 * keys, self.hidden),
            Projection::O | Projection::AttnCProj => (self.hidden, queries),
            Projection::Gate | Projection::Up | Projection::CFc => (self.intermediate, self.hidden),
            Projection::Down | Projection::MlpCProj => (self.hidden, self.intermediate),
        }
    }

    /// Every weight that can carry an adapter, by layer, then in forward order.
    #[must_use]
    pub fn weights(&self) -> Vec<WeightShape> {
        let layers = (0u16..).take(self.layers);
        let shape = |layer, projection| {
            let (out, inp) = self.shape(projection);
            WeightShape {
                name: WeightName::new(layer, projection),
                out,
                inp,
            }
        };
        layers
            .flat_map(|layer| {
                self.projections()
                    .map(move |projection| (layer, projection))
            })
            .map(|(layer, projection)| shape(layer, projection))
            .collect()
    }
}

impl Sliding {
    fn is_possible(self) -> bool {
        self.window > 0 && self.every > 0 && self.theta.is_finite() && self.theta > 0.0
    }
}

//! The sizes of a model.

use domain::adapter::{LAYER_LIMIT, Projection, WeightName, WeightShape};

use super::{Architecture, Error};

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
    /// ε of the normalizations.
    pub epsilon: f32,
    /// Base of the rotary angles.
    pub rope_theta: f32,
    /// What each rotary frequency of a head is divided by, `[head_size / 2]`; empty where none is.
    pub rope_factors: Vec<f32>,
    /// Whether the output layer is the embedding table.
    pub tied: bool,
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
        let biases = (self.heads + 2 * self.kv_heads) * self.head_size;
        let heads = 2 * self.head_size;
        2 * self.hidden
            + if facts.biases { biases } else { 0 }
            + if facts.head_norms { heads } else { 0 }
    }

    /// Output and input width of a projection.
    pub(crate) const fn shape(&self, projection: Projection) -> (usize, usize) {
        let (queries, keys) = (self.heads * self.head_size, self.kv_heads * self.head_size);
        match projection {
            Projection::Q => (queries, self.hidden),
            Projection::K | Projection::V => (keys, self.hidden),
            Projection::O => (self.hidden, queries),
            Projection::Gate | Projection::Up => (self.intermediate, self.hidden),
            Projection::Down => (self.hidden, self.intermediate),
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
            .flat_map(|layer| Projection::ALL.map(|projection| shape(layer, projection)))
            .collect()
    }
}

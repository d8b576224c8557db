//! The vocabulary of low-rank adapters: which weights can carry one, at which rank.
//!
//! The names are those of Hugging Face checkpoints, so that an adapter's tensors need no mapping.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The highest rank a job may ask for.
pub const RANK_LIMIT: u16 = 256;

/// The most layers a rank table may describe.
pub const LAYER_LIMIT: usize = 1024;

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
}

impl Projection {
    /// All of them, in the order of a block's forward pass.
    pub const ALL: [Self; 7] = [
        Self::Q,
        Self::K,
        Self::V,
        Self::O,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// The module's name in Hugging Face checkpoints and in PEFT's `target_modules`.
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
        }
    }

    const fn parent(self) -> &'static str {
        match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        }
    }
}

/// Why a text does not name an adaptable weight.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a weight that can carry an adapter")]
pub struct InvalidWeightName(String);

/// A weight's name in the checkpoint, such as `model.layers.0.self_attn.q_proj`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WeightName {
    layer: u16,
    projection: Projection,
}

impl WeightName {
    /// The weight of `projection` in block `layer`, counted from 0.
    #[must_use]
    pub const fn new(layer: u16, projection: Projection) -> Self {
        Self { layer, projection }
    }

    /// Block index, counted from 0.
    #[must_use]
    pub const fn layer(self) -> u16 {
        self.layer
    }

    /// Which projection of the block.
    #[must_use]
    pub const fn projection(self) -> Projection {
        self.projection
    }

    /// PEFT's key of the factor A, shape `[rank, in]`.
    #[must_use]
    pub fn peft_a(self) -> String {
        format!("base_model.model.{self}.lora_A.weight")
    }

    /// PEFT's key of the factor B, shape `[out, rank]`.
    #[must_use]
    pub fn peft_b(self) -> String {
        format!("base_model.model.{self}.lora_B.weight")
    }

    /// Reads PEFT's key of either factor; `true` means A.
    #[must_use]
    pub fn from_peft(key: &str) -> Option<(Self, bool)> {
        let inner = key.strip_prefix("base_model.model.")?;
        if let Some(name) = inner.strip_suffix(".lora_A.weight") {
            return Some((name.parse().ok()?, true));
        }
        let name = inner.strip_suffix(".lora_B.weight")?;
        Some((name.parse().ok()?, false))
    }
}

impl fmt::Display for WeightName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parent, module) = (self.projection.parent(), self.projection.module());
        write!(f, "model.layers.{}.{parent}.{module}", self.layer)
    }
}

impl FromStr for WeightName {
    type Err = InvalidWeightName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let inner = text.strip_prefix("model.layers.")?;
            let (layer, module) = inner.split_once('.')?;
            let projection = Projection::ALL.into_iter().find(|p| {
                module
                    .strip_prefix(p.parent())
                    .and_then(|m| m.strip_prefix('.'))
                    == Some(p.module())
            })?;
            let name = Self::new(layer.parse().ok()?, projection);
            (name.to_string() == text).then_some(name)
        };
        parse().ok_or_else(|| InvalidWeightName(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for WeightName {
    type Error = InvalidWeightName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<WeightName> for String {
    fn from(name: WeightName) -> Self {
        name.to_string()
    }
}

/// Output and input width of a weight `[out, in]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightShape {
    /// Which weight.
    pub name: WeightName,
    /// Output width.
    pub out: usize,
    /// Input width.
    #[serde(rename = "in")]
    pub inp: usize,
}

impl WeightShape {
    /// Parameters of an adapter of this rank: `rank · (in + out)`.
    #[must_use]
    pub const fn parameters(&self, rank: u16) -> u64 {
        rank as u64 * (self.out + self.inp) as u64
    }
}

/// The LoRA rank of every weight: for each projection one rank per layer; 0 means frozen.
///
/// This is the compact form that plans and messages carry: a table for 30 layers is 210 small
/// numbers. Projections that carry no adapter anywhere are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankTable(BTreeMap<Projection, Vec<u16>>);

impl RankTable {
    /// The same rank for every layer of the given projections.
    #[must_use]
    pub fn uniform(targets: &[Projection], layers: u16, rank: u16) -> Self {
        let row = vec![rank; usize::from(layers)];
        Self(
            targets
                .iter()
                .map(|target| (*target, row.clone()))
                .collect(),
        )
    }

    /// These weights at these ranks. Every projection of `targets` appears, if only as frozen; a weight
    /// outside of them or of the layers is left out.
    #[must_use]
    pub fn of(
        targets: &[Projection],
        layers: u16,
        ranks: impl IntoIterator<Item = (WeightName, u16)>,
    ) -> Self {
        let mut table = Self::uniform(targets, layers, 0);
        for (name, rank) in ranks {
            let row = table.0.get_mut(&name.projection);
            if let Some(cell) = row.and_then(|row| row.get_mut(usize::from(name.layer))) {
                *cell = rank;
            }
        }
        table
    }

    /// One projection's ranks, by layer; empty where it does not appear.
    #[must_use]
    pub fn row(&self, projection: Projection) -> &[u16] {
        self.0.get(&projection).map_or(&[], Vec::as_slice)
    }

    /// One weight at this rank and nothing else.
    #[must_use]
    pub fn only(name: WeightName, rank: u16) -> Self {
        let mut row = vec![0; usize::from(name.layer)];
        row.push(rank);
        Self(BTreeMap::from([(name.projection, row)]))
    }

    /// The rank of one weight; 0 where the table says nothing.
    #[must_use]
    pub fn rank(&self, name: WeightName) -> u16 {
        let row = self.0.get(&name.projection);
        row.and_then(|row| row.get(usize::from(name.layer)))
            .copied()
            .unwrap_or(0)
    }

    /// The highest rank in the table.
    #[must_use]
    pub fn max(&self) -> u16 {
        self.0.values().flatten().copied().max().unwrap_or(0)
    }

    /// Whether no weight has a rank.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.max() == 0
    }

    /// The projections that appear, in forward order.
    pub fn targets(&self) -> impl Iterator<Item = Projection> {
        self.0.keys().copied()
    }

    /// The weights with a rank above 0, with that rank.
    pub fn trained(&self) -> impl Iterator<Item = (WeightName, u16)> {
        self.0.iter().flat_map(|(projection, row)| {
            let ranked = (0u16..).zip(row).filter(|(_, rank)| **rank > 0);
            ranked.map(|(layer, rank)| (WeightName::new(layer, *projection), *rank))
        })
    }

    /// Trainable parameters of this table on a model's adaptable weights.
    #[must_use]
    pub fn parameters(&self, weights: &[WeightShape]) -> u64 {
        weights
            .iter()
            .map(|weight| weight.parameters(self.rank(weight.name)))
            .sum()
    }
}

impl FromIterator<(WeightName, u16)> for RankTable {
    fn from_iter<T: IntoIterator<Item = (WeightName, u16)>>(ranks: T) -> Self {
        let mut table = Self::default();
        for (name, rank) in ranks {
            let row = table.0.entry(name.projection).or_default();
            let at = usize::from(name.layer);
            if row.len() <= at {
                row.resize(at + 1, 0);
            }
            if let Some(own) = row.get_mut(at) {
                *own = rank;
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_made_of_its_weights() {
        let up = |layer| WeightName::new(layer, Projection::Up);
        let table: RankTable = [(up(2), 8), (up(0), 3)].into_iter().collect();
        assert_eq!(
            table.trained().collect::<Vec<_>>(),
            [(up(0), 3), (up(2), 8)]
        );
        assert_eq!(table.rank(up(1)), 0);
    }

    #[test]
    fn a_weight_name_survives_printing_and_parsing() {
        for projection in Projection::ALL {
            let name = WeightName::new(29, projection);
            assert_eq!(name.to_string().parse(), Ok(name));
            assert_eq!(WeightName::from_peft(&name.peft_a()), Some((name, true)));
            assert_eq!(WeightName::from_peft(&name.peft_b()), Some((name, false)));
        }
    }

    #[test]
    fn weights_that_cannot_carry_an_adapter_are_refused() {
        for text in [
            "lm_head",
            "model.layers.0.mlp.q_proj",
            "model.layers.01.self_attn.q_proj",
            "model.layers.x.mlp.up_proj",
        ] {
            assert!(text.parse::<WeightName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_table_lists_only_what_is_trained() {
        let mut table = RankTable::uniform(&[Projection::Q, Projection::V], 3, 4);
        if let Some(row) = table.0.get_mut(&Projection::V) {
            row[1] = 0;
        }
        assert_eq!(table.trained().count(), 5);
        assert_eq!(table.rank(WeightName::new(1, Projection::V)), 0);
        assert_eq!(table.rank(WeightName::new(0, Projection::Gate)), 0);
        let up = WeightName::new(2, Projection::Up);
        let only: Vec<_> = RankTable::only(up, 8).trained().collect();
        assert_eq!(only, [(up, 8)]);
    }
}

//! The vocabulary of low-rank adapters: which weights can carry one, at which rank.
//!
//! The names are those of Hugging Face checkpoints, so that an adapter's tensors need no mapping.

mod encoder;
mod head;
mod projection;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use encoder::Encoder;
pub use head::{HEAD_BIAS, HEAD_WEIGHT, HeadPart, HeadShape, HeadTensor, is_head_key};
pub use projection::Projection;

/// The highest rank a job may ask for.
pub const RANK_LIMIT: u16 = 256;

/// The most layers a rank table may describe.
pub const LAYER_LIMIT: usize = 1024;

/// Why a text does not name an adaptable weight.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a weight that can carry an adapter")]
pub struct InvalidWeightName(String);

/// A weight's name in the checkpoint, such as `model.layers.0.self_attn.q_proj` or `transformer.h.0.attn.c_attn`.
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

    /// What checkpoints of these encoders call the weight, such as `bert.encoder.layer.0.attention.self.query`; none for a
    /// projection that an encoder does not have. Inside this program every family has the names of the others.
    #[must_use]
    pub fn in_encoder(self, encoder: Encoder) -> Option<String> {
        let module = encoder.module(self.projection)?;
        Some(format!("{}{}.{module}", encoder.layers(), self.layer))
    }

    /// Whose name a key of a factor has; none where it is no encoder's own.
    #[must_use]
    pub fn encoder_of(key: &str) -> Option<Encoder> {
        let inner = key.strip_prefix("base_model.model.")?;
        let mut all = Encoder::ALL.into_iter();
        all.find(|encoder| inner.starts_with(encoder.layers()))
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
        let (before, after) = (self.projection.before(), self.projection.after());
        write!(f, "{before}{}.{after}", self.layer)
    }
}

impl WeightName {
    fn of_encoder(text: &str, encoder: Encoder) -> Option<Self> {
        let (layer, module) = text.strip_prefix(encoder.layers())?.split_once('.')?;
        let is = |projection: &Projection| encoder.module(*projection) == Some(module);
        let projection = Projection::ALL.into_iter().find(is)?;
        let name = Self::new(layer.parse().ok()?, projection);
        (name.in_encoder(encoder).as_deref() == Some(text)).then_some(name)
    }
}

/// Reads any family's name.
impl FromStr for WeightName {
    type Err = InvalidWeightName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut encoders = Encoder::ALL.into_iter();
        if let Some(name) = encoders.find_map(|encoder| Self::of_encoder(text, encoder)) {
            return Ok(name);
        }
        let parse = || {
            let layer = |projection: Projection| {
                let inner = text.strip_prefix(projection.before())?;
                inner.strip_suffix(projection.after())?.strip_suffix('.')
            };
            let mut all = Projection::of_every_family();
            let (layer, projection) = all.find_map(|p| Some((layer(p)?, p)))?;
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
        for projection in Projection::of_every_family() {
            let name = WeightName::new(29, projection);
            let text = name.to_string();
            let module = format!(".{}", projection.module());
            assert!(text.ends_with(&module), "{text}");
            assert_eq!(text.parse(), Ok(name));
            assert_eq!(WeightName::from_peft(&name.peft_a()), Some((name, true)));
            assert_eq!(WeightName::from_peft(&name.peft_b()), Some((name, false)));
        }
    }

    #[test]
    fn a_name_of_an_encoder_is_the_same_weight() {
        let name = WeightName::new(3, Projection::Down);
        for (encoder, text) in [
            (Encoder::Bert, "bert.encoder.layer.3.output.dense"),
            (Encoder::Roberta, "roberta.encoder.layer.3.output.dense"),
            (
                Encoder::Distilbert,
                "distilbert.transformer.layer.3.ffn.lin2",
            ),
        ] {
            assert_eq!(name.in_encoder(encoder).as_deref(), Some(text));
            let all = Projection::ALL.map(|projection| WeightName::new(11, projection));
            for name in all {
                let Some(text) = name.in_encoder(encoder) else {
                    assert_eq!(name.projection(), Projection::Gate);
                    continue;
                };
                let key = format!("base_model.model.{text}.lora_A.weight");
                assert_eq!(WeightName::from_peft(&key), Some((name, true)));
                assert_eq!(WeightName::encoder_of(&key), Some(encoder));
            }
        }
        assert_eq!(WeightName::encoder_of(&name.peft_a()), None);
    }

    #[test]
    fn weights_that_cannot_carry_an_adapter_are_refused() {
        for text in [
            "bert.encoder.layer.0.pooler.dense",
            "bert.encoder.layer.00.output.dense",
            "roberta.encoder.layer.0.ffn.lin1",
            "distilbert.transformer.layer.0.output.dense",
            "lm_head",
            "model.layers.0.mlp.q_proj",
            "model.layers.01.self_attn.q_proj",
            "model.layers.x.mlp.up_proj",
            "transformer.h.0.c_proj",
            "model.layers.0.attn.c_attn",
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

//! The vocabulary of low-rank adapters: which weights can carry one, at which rank.
//!
//! The names are those of Hugging Face checkpoints, so that an adapter's tensors need no mapping.

mod projection;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use projection::Projection;

/// The highest rank a job may ask for.
pub const RANK_LIMIT: u16 = 256;

/// The most layers a rank table may describe.
pub const LAYER_LIMIT: usize = 1024;

const BERT_LAYERS: &str = "bert.encoder.layer.";

/// PEFT's keys of a classification head: the module `classifier` of its `modules_to_save`, trained in full.
pub const HEAD_WEIGHT: &str = "base_model.model.classifier.weight";
/// The head's bias, `[classes]`.
pub const HEAD_BIAS: &str = "base_model.model.classifier.bias";

/// The shape of a classification head: a weight `[classes, width]` and a bias `[classes]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadShape {
    /// Classes that it tells apart.
    pub classes: usize,
    /// Width of what it reads.
    pub width: usize,
}

impl HeadShape {
    /// That of a head over a model of these weights: it reads what the queries read.
    #[must_use]
    pub fn over(weights: &[WeightShape], classes: usize) -> Option<Self> {
        let query = |weight: &&WeightShape| weight.name.projection == Projection::Q;
        let width = weights.iter().find(query)?.inp;
        (classes > 0).then_some(Self { classes, width })
    }

    /// Its trainable parameters.
    #[must_use]
    pub const fn parameters(self) -> u64 {
        (self.classes * (self.width + 1)) as u64
    }
}

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

    /// What checkpoints of BERT call the weight, such as `bert.encoder.layer.0.attention.self.query`; none for a
    /// projection that an encoder does not have. Inside this program every family has the names of the others.
    #[must_use]
    pub fn in_bert(self) -> Option<String> {
        let module = self.projection.bert_module()?;
        Some(format!("{BERT_LAYERS}{}.{module}", self.layer))
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
    fn of_bert(text: &str) -> Option<Self> {
        let (layer, module) = text.strip_prefix(BERT_LAYERS)?.split_once('.')?;
        let is = |projection: &Projection| projection.bert_module() == Some(module);
        let projection = Projection::ALL.into_iter().find(is)?;
        let name = Self::new(layer.parse().ok()?, projection);
        (name.in_bert().as_deref() == Some(text)).then_some(name)
    }
}

/// Reads either family's name.
impl FromStr for WeightName {
    type Err = InvalidWeightName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(name) = Self::of_bert(text) {
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
    fn a_name_of_bert_is_the_same_weight() {
        let name = WeightName::new(3, Projection::Down);
        assert_eq!(
            name.in_bert().as_deref(),
            Some("bert.encoder.layer.3.output.dense")
        );
        let all = Projection::ALL.map(|projection| WeightName::new(11, projection));
        for name in all {
            let Some(text) = name.in_bert() else {
                assert_eq!(name.projection(), Projection::Gate);
                continue;
            };
            let key = format!("base_model.model.{text}.lora_A.weight");
            assert_eq!(WeightName::from_peft(&key), Some((name, true)));
        }
    }

    #[test]
    fn a_head_reads_what_queries_read() {
        let shape = |projection, out, inp| WeightShape {
            name: WeightName::new(0, projection),
            out,
            inp,
        };
        let weights = [shape(Projection::Down, 8, 32), shape(Projection::Q, 16, 8)];
        let head = HeadShape::over(&weights, 3).expect("a head");
        assert_eq!((head.classes, head.width, head.parameters()), (3, 8, 27));
        assert_eq!(HeadShape::over(&weights, 0), None);
        assert_eq!(HeadShape::over(&[], 3), None);
    }

    #[test]
    fn weights_that_cannot_carry_an_adapter_are_refused() {
        for text in [
            "bert.encoder.layer.0.pooler.dense",
            "bert.encoder.layer.00.output.dense",
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

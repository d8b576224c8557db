//! What an encoder of BERT's kind has beside the stacks of its blocks: positions, biases, normalizations behind each half
//! of a block, BERT's pooler, and perhaps a head of its own.
//!
//! A sequence is one segment, so that the first row of the table of types is added to every position.

use domain::adapter::{self, HeadShape, HeadTensor, WeightName};

use super::block::STACKS;
use super::load::{FromSource, Weights, stack};
use super::{Base, Block, Config, Error, LoadOptions, Matrix, Parts};
use crate::adapter::{Dense, Head};
use crate::source::{Name, Source, bert};

/// The frozen weights of an encoder that are no stacks, and its head.
pub(crate) struct Encoder {
    /// `[places, hidden]`, that of the first type added.
    pub(crate) positions: Vec<f32>,
    pub(crate) embedding_norm: Norm,
    pub(crate) layers: Vec<Layer>,
    /// BERT's layer before the head; the others have theirs in the head.
    pub(crate) pooler: Option<Dense>,
    /// What classifies where the adapter brings no head.
    pub(crate) head: Option<Head>,
}

/// A normalization.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Norm {
    /// `[width]`
    pub(crate) weight: Vec<f32>,
    /// `[width]`; empty where it is by the root of the mean square.
    pub(crate) bias: Vec<f32>,
}

impl Norm {
    /// Where there is none.
    pub(super) const NONE: Self = Self {
        weight: Vec::new(),
        bias: Vec::new(),
    };

    pub(super) const fn bytes(&self) -> usize {
        4 * (self.weight.len() + self.bias.len())
    }
}

/// What one block has beside its stacks.
pub(crate) struct Layer {
    /// Biases of the four stacks, each as wide as what its stack gives.
    pub(crate) biases: [Vec<f32>; 4],
    /// Behind attention.
    pub(crate) attention_norm: Norm,
    /// Behind the feed-forward network.
    pub(crate) output_norm: Norm,
}

impl Encoder {
    /// Reads the whole model.
    pub(super) fn load(
        (source, family): (&mut Source, adapter::Encoder),
        config: &Config,
        options: &LoadOptions,
    ) -> Result<(Self, Parts), Error> {
        let Config {
            vocabulary, hidden, ..
        } = *config;
        let head = own_head(source, family, config)?;
        let types = source.rows_of(bert::TYPES).unwrap_or_default();
        let mut weights = FromSource::new(source, config);
        let words = [(bert::WORDS, vocabulary)];
        let embedding = weights.matrix(&words, hidden, super::load::table_base(options.base))?;
        let mut positions = dense(&mut weights, (bert::PLACES, config.places()), hidden)?;
        let types = match family {
            adapter::Encoder::Distilbert => Vec::new(),
            _ => dense(&mut weights, (bert::TYPES, types), hidden)?,
        };
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&types).for_each(|(p, own)| *p += own);
        }
        let embedding_norm = norm(&mut weights, hidden, |part| match part {
            Part::Weight => Name::Of("embeddings.LayerNorm.weight"),
            Part::Bias => Name::Of("embeddings.LayerNorm.bias"),
        })?;
        let (mut layers, mut blocks) = (Vec::new(), Vec::new());
        for number in (0u16..).take(config.layers) {
            let (layer, block) = layer(&mut weights, config, number, options.base)?;
            layers.push(layer);
            blocks.push(block);
        }
        let pooler = match family {
            adapter::Encoder::Bert => Some(read_pooler(&mut weights, hidden)?),
            _ => None,
        };
        let own = Self {
            positions,
            embedding_norm,
            layers,
            pooler,
            head,
        };
        Ok((own, Parts::of(embedding, blocks)))
    }

    pub(super) fn bytes(&self) -> usize {
        let norm = |norm: &Norm| norm.weight.len() + norm.bias.len();
        let layer = |layer: &Layer| {
            let biases: usize = layer.biases.iter().map(Vec::len).sum();
            biases + norm(&layer.attention_norm) + norm(&layer.output_norm)
        };
        let layers: usize = self.layers.iter().map(layer).sum();
        let pooler = self.pooler.iter();
        let pooler: usize = pooler.map(|own| own.weight.len() + own.bias.len()).sum();
        4 * (self.positions.len() + norm(&self.embedding_norm) + layers + pooler)
    }
}

fn read_pooler(weights: &mut FromSource<'_>, hidden: usize) -> Result<Dense, Error> {
    let weight = (Name::Of("pooler.dense.weight"), hidden);
    Ok(Dense {
        weight: dense(weights, weight, hidden)?,
        bias: weights.vector(Name::Of("pooler.dense.bias"), hidden)?,
    })
}

enum Part {
    Weight,
    Bias,
}

fn norm(
    weights: &mut FromSource<'_>,
    width: usize,
    name: impl Fn(Part) -> Name,
) -> Result<Norm, Error> {
    Ok(Norm {
        weight: weights.vector(name(Part::Weight), width)?,
        bias: weights.vector(name(Part::Bias), width)?,
    })
}

/// A whole table in `f32`, `[rows, cols]`.
fn dense(
    weights: &mut FromSource<'_>,
    (name, rows): (Name, usize),
    cols: usize,
) -> Result<Vec<f32>, Error> {
    match weights.matrix(&[(name, rows)], cols, Base::F32)? {
        Matrix::Dense { data, .. } => Ok(data),
        // Invariant: the base was f32.
        _ => Ok(Vec::new()),
    }
}

fn layer(
    weights: &mut FromSource<'_>,
    config: &Config,
    number: u16,
    base: Base,
) -> Result<(Layer, Block), Error> {
    let mut biases = [const { Vec::new() }; 4];
    let mut stacks = Vec::new();
    for (projections, bias) in STACKS.iter().zip(&mut biases) {
        let present = projections.iter().copied();
        let present: Vec<_> = present.filter(|own| config.has(*own)).collect();
        for projection in &present {
            let name = Name::Bias(WeightName::new(number, *projection));
            bias.extend(weights.vector(name, config.shape(*projection).0)?);
        }
        let place = (number, present.as_slice());
        stacks.push(stack(weights, config, place, base, Name::Weight)?);
    }
    let mut normal = |module: &'static str| {
        norm(weights, config.hidden, |part| match part {
            Part::Weight => Name::OfLayer(number, module, "weight"),
            Part::Bias => Name::OfLayer(number, module, "bias"),
        })
    };
    let own = Layer {
        biases,
        attention_norm: normal("attention.output.LayerNorm")?,
        output_norm: normal("output.LayerNorm")?,
    };
    // Invariant: there are four.
    let stacks = stacks.try_into().map_err(|_| Error::Setting {
        key: "layers".to_owned(),
    })?;
    Ok((own, Block::of_stacks(stacks)))
}

/// The head that a checkpoint for classification has; others have none.
fn own_head(
    source: &mut Source,
    family: adapter::Encoder,
    config: &Config,
) -> Result<Option<Head>, Error> {
    let width = config.hidden;
    let Some(classes) = source.rows_of(bert::head_weight(family)) else {
        return Ok(None);
    };
    let shape = HeadShape {
        encoder: family,
        classes,
        width,
    };
    let read = |tensor: &HeadTensor| {
        let own = source.tensor(Name::Top(tensor.name), &tensor.shape, config)?;
        let values: candle_core::Result<Vec<f32>> = own
            .dequantize(&candle_core::Device::Cpu)
            .and_then(|own| own.flatten_all()?.to_vec1());
        values.map_err(|error| Unread::Model(Error::Decode(error)))
    };
    match Head::of(shape, read) {
        Ok(head) => Ok(Some(head)),
        Err(Unread::Model(error)) => Err(error),
        Err(Unread::Head) => Err(Error::Setting {
            key: "classifier".to_owned(),
        }),
    }
}

/// Why a checkpoint's head cannot be read.
enum Unread {
    Model(Error),
    /// Its tensors make none.
    Head,
}

impl From<Error> for Unread {
    fn from(error: Error) -> Self {
        Self::Model(error)
    }
}

impl From<crate::adapter::Error> for Unread {
    fn from(_: crate::adapter::Error) -> Self {
        Self::Head
    }
}

//! What an encoder of BERT's kind has beside the stacks of its blocks: positions, biases, normalizations behind each half
//! of a block, a pooler, and perhaps a head of its own.
//!
//! A sequence is one segment, so that the first row of the table of types is added to every position.

use domain::adapter::{HeadShape, WeightName};

use super::block::STACKS;
use super::load::{FromSource, Weights, stack};
use super::{Base, Block, Config, Error, LoadOptions, Matrix, Parts};
use crate::adapter::Head;
use crate::source::{Name, Source, bert};

/// The frozen weights of an encoder that are no stacks, and its head.
pub(crate) struct Encoder {
    /// `[context, hidden]`, that of the first type added.
    pub(crate) positions: Vec<f32>,
    pub(crate) embedding_norm: Norm,
    pub(crate) layers: Vec<Layer>,
    /// `[hidden, hidden]`
    pub(crate) pooler: Vec<f32>,
    /// `[hidden]`
    pub(crate) pooler_bias: Vec<f32>,
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
        source: &mut Source,
        config: &Config,
        options: &LoadOptions,
    ) -> Result<(Self, Parts), Error> {
        let Config {
            vocabulary, hidden, ..
        } = *config;
        let head = own_head(source, config)?;
        let types = source.rows_of(bert::TYPES).unwrap_or_default();
        let mut weights = FromSource::new(source, config);
        let words = [(bert::WORDS, vocabulary)];
        let embedding = weights.matrix(&words, hidden, super::load::table_base(options.base))?;
        let mut positions = dense(&mut weights, (bert::PLACES, config.context), hidden)?;
        let types = dense(&mut weights, (bert::TYPES, types), hidden)?;
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
        let pooler = dense(
            &mut weights,
            (Name::Of("pooler.dense.weight"), hidden),
            hidden,
        )?;
        let pooler_bias = weights.vector(Name::Of("pooler.dense.bias"), hidden)?;
        let own = Self {
            positions,
            embedding_norm,
            layers,
            pooler,
            pooler_bias,
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
        let pooler = self.pooler.len() + self.pooler_bias.len();
        4 * (self.positions.len() + norm(&self.embedding_norm) + layers + pooler)
    }
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

/// The head that a `BertForSequenceClassification` has; a `BertModel` has none.
fn own_head(source: &mut Source, config: &Config) -> Result<Option<Head>, Error> {
    let width = config.hidden;
    let (weight, bias) = (Name::Top(bert::HEAD_WEIGHT), Name::Top(bert::HEAD_BIAS));
    let Some(classes) = source.rows_of(weight) else {
        return Ok(None);
    };
    let tensor = source.tensor(weight, &[classes, width], config)?;
    let values = tensor
        .dequantize(&candle_core::Device::Cpu)
        .and_then(|tensor| tensor.flatten_all()?.to_vec1());
    let (values, bias) = (
        values.map_err(Error::Decode)?,
        source.vector(bias, classes, config)?,
    );
    let head = Head::new(HeadShape { classes, width }, values, bias);
    head.map(Some).map_err(|_| Error::Setting {
        key: "classifier".to_owned(),
    })
}

//! From files to a [`Model`], one tensor at a time.

use std::ops::Range;
use std::path::Path;

use candle_core::quantized::QTensor;
use domain::adapter::{Projection, WeightName};

use super::block::STACKS;
use super::cache::Entry;
use super::encoder::Encoder;
use super::quantize::{Bf16, Int8, Nf4};
use super::weights::decode_parts;
use super::{
    Base, Block, Config, Error, LoadOptions, Matrix, Model, Norm, Norms, Stack, StackPart,
};
use crate::ops::side_term::SideTerm;
use crate::source::{Name, Source};
use crate::threads::Threads;

impl Model {
    /// Loads a `.gguf` file, a folder with exactly one, or a Hugging Face folder (`config.json`,
    /// `model.safetensors` whole or in shards, `tokenizer.json`).
    ///
    /// # Errors
    /// The files are missing, damaged, cut short, incomplete, or of another architecture. Each names
    /// what is at fault. What is wrong with the cache of quantized models is never an error.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        let threads = Threads::new(options.threads, options.kernel.unit())?;
        let mut source = Source::open(path)?;
        let config = source.config()?;
        let tokenizer = source.tokenizer()?;
        let (encoder, parts) = threads.run(|| match config.architecture.encoder() {
            Some(family) => {
                let (encoder, parts) = Encoder::load((&mut source, family), &config, options)?;
                Ok::<_, Error>((Some(encoder), parts))
            }
            None => Ok((None, load(&mut source, &config, options)?)),
        })?;
        let Parts {
            embedding,
            output,
            blocks,
            final_norm,
            positions,
        } = parts;
        Ok(Self {
            tokenizer,
            threads,
            kernel: options.kernel,
            embedding,
            blocks,
            final_norm,
            positions,
            output,
            encoder,
            config,
        })
    }
}

fn load(source: &mut Source, config: &Config, options: &LoadOptions) -> Result<Parts, Error> {
    let base = options.base;
    // The others are held as they came, or are made as fast as they are read.
    let quantized = matches!(base, Base::Int8 | Base::Nf4);
    let cache = options.cache.as_ref().filter(|_| quantized);
    let entry = cache.and_then(|cache| Entry::of(cache, source, base));
    if let Some(parts) = entry.as_ref().and_then(|entry| entry.read(config)) {
        return Ok(parts);
    }
    let mut weights = FromSource::new(source, config);
    let parts = Parts::gather(&mut weights, config, base)?;
    if let Some(entry) = entry {
        entry.write(&parts, source);
    }
    Ok(parts)
}

/// The frozen weights.
pub(super) struct Parts {
    embedding: Matrix,
    output: Option<Matrix>,
    blocks: Vec<Block>,
    final_norm: Norm,
    /// `[context, hidden]`; empty where positions are no table.
    positions: Vec<f32>,
}

/// Where weights come from, in the order in which [`Parts::gather`] asks.
pub(super) trait Weights {
    type Error;

    /// `[len]`
    fn vector(&mut self, name: Name, len: usize) -> Result<Vec<f32>, Self::Error>;

    /// The tensors of `names`, each with its rows, stacked, `[_, cols]`; in the precision `base`.
    fn matrix(
        &mut self,
        names: &[(Name, usize)],
        cols: usize,
        base: Base,
    ) -> Result<Matrix, Self::Error>;
}

/// What of the weights is written one after another.
pub(super) enum Piece<'a> {
    Vector(&'a [f32]),
    Matrix(&'a Matrix),
}

impl Parts {
    /// Those of a model that has neither an output layer nor a last normalization.
    pub(super) const fn of(embedding: Matrix, blocks: Vec<Block>) -> Self {
        Self {
            embedding,
            output: None,
            blocks,
            final_norm: Norm::NONE,
            positions: Vec::new(),
        }
    }

    /// Asks for every weight of the model.
    pub(super) fn gather<W: Weights>(
        weights: &mut W,
        config: &Config,
        base: Base,
    ) -> Result<Self, W::Error> {
        let Config {
            vocabulary, hidden, ..
        } = *config;
        // The largest tensors come first, while nothing else is held.
        let table = table_base(base);
        let embedding = weights.matrix(&[(Name::Embedding, vocabulary)], hidden, table)?;
        let output = if config.tied {
            None
        } else {
            Some(weights.matrix(&[(Name::Output, vocabulary)], hidden, table)?)
        };
        let layers = (0u16..).take(config.layers);
        let blocks = layers
            .map(|layer| block(weights, config, layer, base))
            .collect::<Result<_, _>>()?;
        let final_norm = norm(weights, config, [Name::FinalNorm, Name::FinalNormBias])?;
        let positions = if config.architecture.facts().learned_positions {
            weights.vector(Name::Positions, config.context * hidden)?
        } else {
            Vec::new()
        };
        Ok(Self {
            embedding,
            output,
            blocks,
            final_norm,
            positions,
        })
    }

    /// Every weight, in the order of [`Parts::gather`].
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let tables = [Some(&self.embedding), self.output.as_ref()];
        let blocks = self.blocks.iter().flat_map(|block| {
            let vectors = block.vectors().map(|vector| Piece::Vector(vector));
            let stacks = block.stacks.iter().map(|stack| &stack.matrix);
            vectors.chain(stacks.map(Piece::Matrix))
        });
        let tables = tables.into_iter().flatten().map(Piece::Matrix);
        tables.chain(blocks).chain(
            [
                &self.final_norm.weight,
                &self.final_norm.bias,
                &self.positions,
            ]
            .into_iter()
            .filter(|vector| !vector.is_empty())
            .map(|vector| Piece::Vector(vector)),
        )
    }
}

/// The precision of the embedding and output tables. QLoRA leaves them out of its four bits, for they
/// cost the most there; eight are as good as sixteen (docs/engine.md) in half the memory.
pub(super) const fn table_base(base: Base) -> Base {
    match base {
        Base::Nf4 => Base::Int8,
        other => other,
    }
}

fn block<W: Weights>(
    weights: &mut W,
    config: &Config,
    layer: u16,
    base: Base,
) -> Result<Block, W::Error> {
    let [qkv, o, gate_up, down] = STACKS;
    let mut norm = |weight: fn(u16) -> Name, bias: fn(u16) -> Name| {
        norm(weights, config, [weight(layer), bias(layer)])
    };
    let attention_norm = norm(Name::AttentionNorm, Name::AttentionNormBias)?;
    let feed_forward_norm = norm(Name::FeedForwardNorm, Name::FeedForwardNormBias)?;
    let facts = config.architecture.facts();
    let mut biases = [const { Vec::new() }; 4];
    for (projections, bias) in STACKS.iter().zip(&mut biases) {
        for projection in projections.iter().filter(|own| config.has_bias(**own)) {
            let name = Name::Bias(WeightName::new(layer, *projection));
            bias.extend(weights.vector(name, config.shape(*projection).0)?);
        }
    }
    let head_norms = if facts.head_norms {
        let mut norm = |name: fn(u16) -> Name| weights.vector(name(layer), config.head_size);
        Some([norm(Name::QueryNorm)?, norm(Name::KeyNorm)?])
    } else {
        None
    };
    let post_norms = if facts.post_norms {
        let mut norm = |name: fn(u16) -> Name| {
            let weight = weights.vector(name(layer), config.hidden)?;
            Ok::<_, W::Error>(Norm {
                weight,
                ..Norm::NONE
            })
        };
        Some([
            norm(Name::AttentionPostNorm)?,
            norm(Name::FeedForwardPostNorm)?,
        ])
    } else {
        None
    };
    let mut stack = |projections: &[Projection]| {
        let present = projections.iter().copied();
        let present: Vec<_> = present.filter(|own| config.has(*own)).collect();
        stack(weights, config, (layer, &present), base, Name::Weight)
    };
    Ok(Block {
        attention_norm,
        feed_forward_norm,
        biases,
        head_norms,
        post_norms,
        sliding: config.window(usize::from(layer)),
        stacks: [stack(qkv)?, stack(o)?, stack(gate_up)?, stack(down)?],
    })
}

/// A normalization of the family's kind, whose weight and bias are called so.
fn norm<W: Weights>(
    weights: &mut W,
    config: &Config,
    [weight, bias]: [Name; 2],
) -> Result<Norm, W::Error> {
    let biased = config.architecture.facts().norm == Norms::Layer;
    Ok(Norm {
        weight: weights.vector(weight, config.hidden)?,
        bias: if biased {
            weights.vector(bias, config.hidden)?
        } else {
            Vec::new()
        },
    })
}

/// The stack of these projections, whose tensors are `called` so.
pub(super) fn stack<W: Weights>(
    weights: &mut W,
    config: &Config,
    (layer, projections): (u16, &[Projection]),
    base: Base,
    called: impl Fn(WeightName) -> Name,
) -> Result<Stack, W::Error> {
    let (mut parts, mut names, mut first, mut inputs) = (Vec::new(), Vec::new(), 0, 0);
    for projection in projections {
        let (outputs, inp) = config.shape(*projection);
        parts.push(StackPart {
            projection: *projection,
            first,
            outputs,
        });
        names.push((called(WeightName::new(layer, *projection)), outputs));
        (first, inputs) = (first + outputs, inp);
    }
    Ok(Stack {
        matrix: weights.matrix(&names, inputs, base)?,
        parts,
        side: SideTerm::default(),
    })
}

pub(super) struct FromSource<'a> {
    source: &'a mut Source,
    config: &'a Config,
    /// The tensors of the stack under way.
    whole: Vec<QTensor>,
}

impl<'a> FromSource<'a> {
    pub(super) const fn new(source: &'a mut Source, config: &'a Config) -> Self {
        Self {
            source,
            config,
            whole: Vec::new(),
        }
    }
}

impl Weights for FromSource<'_> {
    type Error = Error;

    fn vector(&mut self, name: Name, len: usize) -> Result<Vec<f32>, Error> {
        self.source.vector(name, len, self.config)
    }

    fn matrix(
        &mut self,
        names: &[(Name, usize)],
        cols: usize,
        base: Base,
    ) -> Result<Matrix, Error> {
        let rows = names.iter().map(|(_, rows)| rows).sum();
        let mut read = |range: Range<usize>, out: &mut [f32]| {
            let first = range.start;
            self.read(names, (rows, cols), range, out)?;
            match out.iter().position(|value| !is_possible(*value)) {
                None => Ok(()),
                Some(index) => Err(Error::Value {
                    name: self.source.called(owner(names, first + index / cols)),
                }),
            }
        };
        let matrix = match base {
            Base::Bf16 => Bf16::encode(rows, cols, &mut read).map(Matrix::Bf16)?,
            Base::Int8 => Int8::encode(rows, cols, &mut read).map(Matrix::Int8)?,
            Base::Nf4 => Nf4::encode(rows, cols, &mut read).map(Matrix::Nf4)?,
            Base::Source => Matrix::source(self.tensors(names, cols)?, cols),
            Base::F32 => Matrix::source(self.tensors(names, cols)?, cols)
                .into_dense()
                .map_err(Error::Decode)?,
        };
        self.whole.clear();
        Ok(matrix)
    }
}

impl FromSource<'_> {
    /// Decodes rows of the stack into `out`: a table's are read as they are asked for, those of
    /// other tensors after all of the stack was.
    fn read(
        &mut self,
        names: &[(Name, usize)],
        (rows, cols): (usize, usize),
        range: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        if let [(table @ (Name::Embedding | Name::Output), _)] = names {
            let count = range.len();
            let part = self.source.table_rows(*table, (rows, cols), range)?;
            return decode_parts(&[part], cols, 0..count, out).map_err(Error::Decode);
        }
        if self.whole.is_empty() {
            self.whole = self.tensors(names, cols)?;
        }
        decode_parts(&self.whole, cols, range, out).map_err(Error::Decode)
    }

    fn tensors(&mut self, names: &[(Name, usize)], cols: usize) -> Result<Vec<QTensor>, Error> {
        let read =
            |(name, rows): &(Name, usize)| self.source.matrix(*name, *rows, cols, self.config);
        names.iter().map(read).collect()
    }
}

/// Whether bf16 can hold it; no weight is NaN, infinite or larger.
fn is_possible(value: f32) -> bool {
    value.abs() <= half::bf16::MAX.to_f32()
}

/// Which of the stacked tensors holds `row`.
fn owner(names: &[(Name, usize)], row: usize) -> Name {
    let mut end = 0;
    for (name, rows) in names {
        end += rows;
        if row < end {
            return *name;
        }
    }
    // Invariant: `row` lies in the stack, which is not empty.
    Name::Embedding
}

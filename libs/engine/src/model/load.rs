//! From files to a [`Model`], one tensor at a time.

use std::path::Path;

use domain::adapter::{Projection, WeightName};

use super::block::STACKS;
use super::{Base, Block, Config, Error, LoadOptions, Matrix, Model, Stack, StackPart};
use crate::source::{Name, Source};
use crate::threads::Threads;

impl Model {
    /// Loads a `.gguf` file, a folder with exactly one, or a Hugging Face folder (`config.json`,
    /// `model.safetensors` whole or in shards, `tokenizer.json`).
    ///
    /// # Errors
    /// The files are missing, damaged, cut short, incomplete, or of another architecture; or the
    /// precision is not available. Each names what is at fault.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        if !matches!(options.base, Base::Source | Base::F32) {
            return Err(Error::Precision(options.base));
        }
        let threads = Threads::new(options.threads, options.kernel.unit())?;
        let mut source = Source::open(path)?;
        let config = source.config()?;
        let tokenizer = source.tokenizer()?;
        let loader = Loader {
            source: &mut source,
            config: &config,
            base: options.base,
        };
        let parts = threads.run(|| loader.load())?;
        let Parts {
            embedding,
            blocks,
            final_norm,
            output,
        } = parts;
        Ok(Self {
            tokenizer,
            threads,
            kernel: options.kernel,
            embedding,
            blocks,
            final_norm,
            output,
            config,
        })
    }
}

struct Parts {
    embedding: Matrix,
    blocks: Vec<Block>,
    final_norm: Vec<f32>,
    output: Option<Matrix>,
}

struct Loader<'a> {
    source: &'a mut Source,
    config: &'a Config,
    base: Base,
}

impl Loader<'_> {
    fn load(mut self) -> Result<Parts, Error> {
        let Config {
            vocabulary, hidden, ..
        } = *self.config;
        let embedding = self.matrix(&[(Name::Embedding, vocabulary)], hidden)?;
        let layers = (0u16..).take(self.config.layers);
        let blocks = layers
            .map(|layer| self.block(layer))
            .collect::<Result<_, _>>()?;
        let final_norm = self.source.vector(Name::FinalNorm, hidden)?;
        let output = if self.config.tied {
            None
        } else {
            Some(self.matrix(&[(Name::Output, vocabulary)], hidden)?)
        };
        Ok(Parts {
            embedding,
            blocks,
            final_norm,
            output,
        })
    }

    fn block(&mut self, layer: u16) -> Result<Block, Error> {
        let hidden = self.config.hidden;
        let [qkv, o, gate_up, down] = STACKS;
        Ok(Block {
            attention_norm: self.source.vector(Name::AttentionNorm(layer), hidden)?,
            feed_forward_norm: self.source.vector(Name::FeedForwardNorm(layer), hidden)?,
            stacks: [
                self.stack(layer, qkv)?,
                self.stack(layer, o)?,
                self.stack(layer, gate_up)?,
                self.stack(layer, down)?,
            ],
        })
    }

    fn stack(&mut self, layer: u16, projections: &[Projection]) -> Result<Stack, Error> {
        let (mut parts, mut names, mut first, mut inputs) = (Vec::new(), Vec::new(), 0, 0);
        for projection in projections {
            let (outputs, inp) = self.config.shape(*projection);
            parts.push(StackPart {
                projection: *projection,
                first,
                outputs,
            });
            names.push((Name::Weight(WeightName::new(layer, *projection)), outputs));
            (first, inputs) = (first + outputs, inp);
        }
        Ok(Stack {
            matrix: self.matrix(&names, inputs)?,
            parts,
        })
    }

    fn matrix(&mut self, names: &[(Name, usize)], cols: usize) -> Result<Matrix, Error> {
        let mut tensors = Vec::new();
        for (name, rows) in names {
            tensors.push(self.source.matrix(*name, *rows, cols, self.config)?);
        }
        let matrix = Matrix::source(tensors, cols);
        match self.base {
            Base::F32 => matrix.into_dense().map_err(Error::Decode),
            _ => Ok(matrix),
        }
    }
}

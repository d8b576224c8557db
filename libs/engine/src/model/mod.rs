//! A frozen model: its configuration, its weights, its tokenizer and the threads it computes on.
//!
//! Promises: what was loaded is complete and of the right shapes; the weights never change, but for whoever owns
//! the model and trains all of them ([`crate::train::WholeTrainer`]). The base stays in the precision it came in
//! unless another is asked for. As it came and in `f32` it gives the same numbers; bf16, int8 and NF4 round it, by how
//! much stands in `docs/engine.md`.
//!
//! Does not: download, or accept an architecture it was not tested with.

mod architecture;
mod config;
mod describe;
mod error;

mod block;
mod cache;
mod encoder;
mod inspect;
mod load;
pub(crate) mod parameters;
mod quantize;
pub(crate) mod rope;
mod weights;

use std::num::NonZeroUsize;

use domain::adapter::WeightShape;

pub use architecture::Architecture;
pub use cache::Cache;
pub use config::{Config, Sliding};
pub use error::Error;
pub use inspect::Inspected;

pub(crate) use architecture::{Curve, Norms, Window};
pub(crate) use block::{Block, STACKS};
pub(crate) use encoder::{Encoder, Layer, Norm};
use load::Parts;
pub(crate) use weights::{Matrix, Stack, StackPart, decode_parts};

use crate::adapter::{Adapter, Head};
use crate::compute::{self, Changes};
use crate::kernel::{Compute, Kernel};
use crate::ops::frozen::Frozen;
use crate::ops::heads::Layout;
use crate::ops::side_term::SideTerm;
use crate::text::Tokenizer;
use crate::threads::Threads;

/// In which precision the frozen base is held in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Base {
    /// As it lies in the file, decoded weight by weight whenever it is used.
    #[default]
    Source,
    /// Decoded to `f32` once, at loading.
    F32,
    /// Rounded to bf16 at loading: two bytes a weight.
    Bf16,
    /// Symmetric 8-bit integers with a scale for each output: one byte a weight.
    Int8,
    /// NormalFloat in four bits, blocks of 64, scales in 8 bits (QLoRA): about half a byte a weight.
    /// The embedding and the output layer are in int8.
    Nf4,
}

/// How to load a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Precision of the frozen base.
    pub base: Base,
    /// Arithmetic of the products with it.
    pub kernel: Kernel,
    /// Where a base in int8 or NF4 is kept between loads; none: it is made each time.
    pub cache: Option<Cache>,
    /// Number of compute threads.
    pub threads: NonZeroUsize,
}

impl Default for LoadOptions {
    /// The base as it lies in the file, computed in `f32` on one thread.
    fn default() -> Self {
        Self {
            base: Base::default(),
            kernel: Kernel::best(Compute::default()),
            cache: None,
            threads: NonZeroUsize::MIN,
        }
    }
}

/// A loaded model. Its weights never change; share it by reference or `Arc`.
pub struct Model {
    config: Config,
    tokenizer: Tokenizer,
    threads: Threads,
    kernel: Kernel,
    embedding: Matrix,
    blocks: Vec<Block>,
    final_norm: Norm,
    /// What is added at each position, `[context, hidden]`; empty where nothing is.
    positions: Vec<f32>,
    /// Absent when tied to the embedding.
    output: Option<Matrix>,
    /// Of an encoder, which has neither of the two before.
    encoder: Option<Encoder>,
}

impl Model {
    /// The sizes of the model.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The tokenizer that came with the model.
    #[must_use]
    pub const fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The arithmetic of products with the frozen base.
    #[must_use]
    pub const fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// The compute threads.
    #[must_use]
    pub const fn threads(&self) -> &Threads {
        &self.threads
    }

    /// Every weight that can carry an adapter, by layer, then in forward order.
    #[must_use]
    pub fn weights(&self) -> Vec<WeightShape> {
        self.config.weights()
    }

    /// Bytes of memory that the frozen base occupies.
    #[must_use]
    pub fn base_bytes(&self) -> u64 {
        let norms = self.final_norm.bytes() + 4 * self.positions.len();
        let blocks: usize = self.blocks.iter().map(Block::bytes).sum();
        let tables = self.embedding.bytes() + self.output.as_ref().map_or(0, Matrix::bytes);
        let encoder = self.encoder.as_ref().map_or(0, Encoder::bytes);
        (norms + blocks + tables + encoder) as u64
    }

    /// The head of an encoder that classifies where an adapter brings none: its checkpoint's own, or that of
    /// [`Model::set_head`].
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.encoder.as_ref()?.head.as_ref()
    }

    /// Has an encoder classify by this head where an adapter brings none.
    ///
    /// # Errors
    /// The model is no encoder, of another family, or of another width.
    pub fn set_head(&mut self, head: Head) -> Result<(), compute::Error> {
        self.config.takes_head(head.shape())?;
        if let Some(encoder) = &mut self.encoder {
            encoder.head = Some(head);
        }
        Ok(())
    }

    pub(crate) const fn encoder(&self) -> Option<&Encoder> {
        self.encoder.as_ref()
    }

    /// Has every pass apply the change of `side` as well, as if it were part of the base: in `f32`,
    /// without a gradient. It stays until it is replaced; `None` takes it away.
    ///
    /// # Errors
    /// It does not fit the model. What was there is then gone.
    pub fn set_side(&mut self, side: Option<&Adapter>) -> Result<(), compute::Error> {
        for stack in self.blocks.iter_mut().flat_map(|block| &mut block.stacks) {
            stack.side = SideTerm::default();
        }
        let Some(side) = side else { return Ok(()) };
        let changes = Changes::new(self, side)?;
        for (block, own) in self.blocks.iter_mut().zip(changes.blocks) {
            for (stack, factors) in block.stacks.iter_mut().zip(own) {
                stack.side = SideTerm::new(factors, changes.scale);
            }
        }
        Ok(())
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(crate) const fn embedding(&self) -> &Matrix {
        &self.embedding
    }

    /// The output layer, unless it is the embedding.
    pub(crate) const fn own_output(&self) -> Option<&Matrix> {
        self.output.as_ref()
    }

    pub(crate) fn output(&self) -> Frozen<'_, Matrix> {
        self.frozen(self.output.as_ref().unwrap_or(&self.embedding))
    }

    /// `matrix` with the arithmetic of this model.
    pub(crate) const fn frozen<'a>(&self, weight: &'a Matrix) -> Frozen<'a, Matrix> {
        Frozen {
            weight,
            kernel: self.kernel,
        }
    }

    pub(crate) const fn final_norm(&self) -> &Norm {
        &self.final_norm
    }

    pub(crate) fn positions(&self) -> &[f32] {
        &self.positions
    }

    pub(crate) const fn layout(&self) -> Layout {
        Layout {
            heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            size: self.config.head_size,
        }
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

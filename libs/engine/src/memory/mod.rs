//! How much memory a piece of work will take, before it is begun, and what would fit if it is too
//! much.
//!
//! Every term follows from the buffers that the work takes: the base in its precision, the copies of
//! the adapter, what the workspace holds after the same takes and gives, what products and the
//! output layer need beside it. Only what the process itself occupies is a measured figure.

mod encoder;
mod pass;
mod pool;
mod remedy;

#[cfg(test)]
mod tests;

use domain::adapter::{Projection, RankTable, WeightName};

use crate::kernel::{Compute, Kernel};
use crate::model::{Base, Config, STACKS};
use crate::ops::frozen::Needs;
use crate::ops::{attention, cross_entropy};

pub use remedy::{Remedy, TooLarge, check};

/// What is to be computed.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// Precision of the frozen base.
    pub base: Base,
    /// Arithmetic of the products with it.
    pub kernel: Kernel,
    /// Rank of every adapted weight.
    pub ranks: &'a RankTable,
    /// How the adapter is trained.
    pub optimizer: Optimizer,
    /// Whether blocks are computed again in backward.
    pub checkpoint: bool,
    /// Rows of a step.
    pub batch: usize,
    /// Tokens of a row at most.
    pub sequence: usize,
    /// Labelled tokens of a row at most.
    pub labelled: usize,
    /// Compute threads.
    pub threads: usize,
}

/// What is done with the adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Optimizer {
    /// Nothing: inference without one.
    None,
    /// Gradients and two moments.
    AdamW,
    /// Two forward passes.
    Mezo,
}

/// Bytes, by what holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// The frozen base.
    pub base: u64,
    /// The adapter, and what the optimizer keeps of its size.
    pub adapter: u64,
    /// Activations, kept and passing.
    pub activations: u64,
    /// Logits of a slice of positions, operands brought into the kernel's order, attention's scores.
    pub workspace: u64,
    /// The process itself with the tokenizer.
    pub process: u64,
}

impl Estimate {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.base + self.adapter + self.activations + self.workspace + self.process
    }
}

/// More tokens than any memory holds: beyond them predictions do not grow, so that none overflows.
const TOKENS: usize = 1 << 32;

/// The program with its libraries and threads, idle, as measured: see `docs/engine.md`.
const PROGRAM: u64 = 14 << 20;

/// A token of the tokenizer with its merge, as measured.
const TOKEN: u64 = 520;

/// Predicts the resident memory of a step of `demand` on a model of `config`, whose weights take
/// `source_bytes` in their files.
#[must_use]
pub fn estimate(config: &Config, source_bytes: u64, demand: &Demand<'_>) -> Estimate {
    Estimate {
        base: base(config, source_bytes, demand.base),
        adapter: adapter(config, demand),
        activations: pass::workspace(config, demand).peak(),
        workspace: workspace(config, demand),
        process: PROGRAM + TOKEN * config.vocabulary as u64,
    }
}

/// What training all parameters of a model takes beside the model and its forward pass: a moved block, the moved vectors
/// beside the blocks, and the moved rows of the output layer that are multiplied at a time.
#[must_use]
pub fn whole(config: &Config) -> u64 {
    let weights = config.projections().map(|projection| {
        let (outputs, inputs) = config.shape(projection);
        outputs * inputs
    });
    let vectors = config.block_vectors() + config.other_vectors();
    let kernel = Kernel::best(Compute::F32);
    let (_, _, rows) = cross_entropy::held(kernel, 1, config.vocabulary, false);
    4 * (weights.sum::<usize>() + vectors + rows * config.hidden) as u64
}

/// Predicts what a process that runs already takes more once it has loaded a model.
#[must_use]
pub fn loading(config: &Config, source_bytes: u64, held: Base) -> u64 {
    base(config, source_bytes, held) + TOKEN * config.vocabulary as u64
}

fn base(config: &Config, source_bytes: u64, base: Base) -> u64 {
    let tables = if config.tied { 1 } else { 2 };
    let table = (config.vocabulary, config.hidden);
    let projections = config.projections();
    let blocks: u64 = projections
        .map(|projection| matrix(config.shape(projection), base))
        .sum();
    let norms = 4 * match config.architecture {
        own if own.is_encoder() => encoder::vectors(config),
        _ => config.layers * config.block_vectors() + config.other_vectors(),
    } as u64;
    match base {
        Base::Source => source_bytes,
        // NF4 keeps the tables in eight bits.
        Base::Nf4 => tables * matrix(table, Base::Int8) + config.layers as u64 * blocks + norms,
        base => tables * matrix(table, base) + config.layers as u64 * blocks + norms,
    }
}

fn matrix((rows, cols): (usize, usize), base: Base) -> u64 {
    let values = (rows * cols) as u64;
    match base {
        Base::Source | Base::F32 => 4 * values,
        Base::Bf16 => 2 * values,
        Base::Int8 => values + 4 * rows as u64,
        // Codes, a magnitude for each 64 of them, and a scale for each 256 magnitudes.
        Base::Nf4 => values / 2 + values / 64 + values / 4096,
    }
}

fn adapter(config: &Config, demand: &Demand<'_>) -> u64 {
    let head = encoder::head(config);
    let one = 4 * (demand.ranks.parameters(&config.weights()) + head);
    match demand.optimizer {
        Optimizer::None => 0,
        // Itself, its gradient, two moments.
        Optimizer::AdamW => 4 * one,
        Optimizer::Mezo => one + one / config.layers as u64,
    }
}

fn workspace(config: &Config, demand: &Demand<'_>) -> u64 {
    let trains = demand.optimizer == Optimizer::AdamW;
    let predicted = demand.predicted();
    let held = cross_entropy::held(demand.kernel, predicted, config.vocabulary, trains);
    let (positions, columns, slice) = held;
    let logits = match config.architecture {
        // An encoder's head has few classes.
        own if own.is_encoder() => 0,
        _ => 4 * (positions * columns) as u64,
    };
    let scores = attention::scratch_len(demand.sequence.min(TOKENS), trains);
    let attention = 4 * (demand.threads * scores) as u64;
    let decoded = demand.base != Base::F32;
    logits + attention + products(config, demand, (positions, slice)).bytes(decoded)
}

/// The buffers of every product with a frozen matrix.
fn products(config: &Config, demand: &Demand<'_>, head: (usize, usize)) -> Needs {
    let (kernel, tokens) = (demand.kernel, demand.tokens());
    let stacks = STACKS.iter().map(|stack| {
        let present = stack.iter().filter(|own| config.has(**own));
        let shapes = present.map(|projection| config.shape(*projection));
        let (outputs, inputs): (Vec<_>, Vec<_>) = shapes.unzip();
        let inputs = inputs.into_iter().max().unwrap_or_default();
        (tokens, outputs.iter().sum::<usize>(), inputs)
    });
    let all = stacks.chain([(head.0, head.1, config.hidden)]);
    all.fold(Needs::default(), |needs, (rows, outputs, inputs)| {
        let forward = Needs::forward(kernel, rows, outputs, inputs);
        let needs = needs.and(forward);
        match demand.optimizer {
            Optimizer::AdamW => needs.and(Needs::backward(kernel, rows, outputs, inputs)),
            Optimizer::Mezo | Optimizer::None => needs,
        }
    })
}

impl Demand<'_> {
    /// Tokens whose loss is computed: the first of a row has nothing before it.
    fn predicted(&self) -> usize {
        let labelled = self.labelled.min(self.sequence.saturating_sub(1));
        self.batch.saturating_mul(labelled).min(TOKENS)
    }

    /// Tokens of a step.
    fn tokens(&self) -> usize {
        self.batch.saturating_mul(self.sequence).min(TOKENS)
    }

    fn rank(&self, layer: usize, projection: Projection) -> usize {
        // Invariant: a model has fewer than 2^16 layers.
        usize::from(self.ranks.rank(WeightName::new(layer as u16, projection)))
    }
}

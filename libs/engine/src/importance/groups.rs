//! Which blocks are measured together, and the memory that takes.

use std::ops::Range;

use domain::adapter::{Projection, RankTable, WeightName};
use rayon::prelude::*;

use super::sketch::{Size, Sketch};
use super::{Error, Settings, WeightImportance};
use crate::compute::{Observe, Workspace};
use crate::memory::{self, Demand, Estimate, Optimizer};
use crate::model::{Config, Model, STACKS, Stack};
use crate::ops::product::View;

/// Bytes of the sketches of one block: the least that [`Settings::sketch_bytes`] may be. All blocks take
/// as many times that as there are layers.
#[must_use]
pub fn block_bytes(config: &Config, targets: &[Projection], rank_max: u16) -> u64 {
    let sizes = sizes(config, targets, rank_max);
    4 * sizes.map(Size::values).sum::<usize>() as u64
}

/// Predicts the resident memory of a process that measures importance with rows as `demand` has them;
/// its ranks, optimizer and checkpointing mean nothing here.
#[must_use]
pub fn estimate(
    config: &Config,
    source_bytes: u64,
    demand: &Demand<'_>,
    settings: &Settings<'_>,
) -> Estimate {
    // The buffers are those of a step that computes its blocks again, with an adapter hardly there.
    // Invariant: a model has fewer than 2^16 layers.
    let ranks = RankTable::uniform(settings.targets, config.layers as u16, 1);
    let demand = Demand {
        ranks: &ranks,
        optimizer: Optimizer::AdamW,
        checkpoint: true,
        ..*demand
    };
    let block = block_bytes(config, settings.targets, settings.rank_max);
    let most = |of: &dyn Fn(Size) -> usize| {
        let sizes = sizes(config, settings.targets, settings.rank_max);
        sizes.map(of).max().unwrap_or_default() as u64
    };
    let tokens = demand.batch.saturating_mul(demand.sequence);
    let passing = 4 * most(&|size| size.passing(tokens));
    let solving = demand.threads as u64 * most(&|size| size.solving_bytes());
    let estimate = memory::estimate(config, source_bytes, &demand);
    Estimate {
        adapter: (block * config.layers as u64).min(settings.sketch_bytes.max(block)),
        workspace: estimate.workspace + passing + solving,
        ..estimate
    }
}

fn sizes(config: &Config, targets: &[Projection], rank_max: u16) -> impl Iterator<Item = Size> {
    let wanted = config.projections().filter(|p| targets.contains(p));
    wanted.map(move |projection| Size::new(config.shape(projection), usize::from(rank_max)))
}

/// The blocks that are measured in each pass: as few passes as memory allows, the blocks shared evenly
/// among them.
pub(super) fn groups(config: &Config, settings: &Settings<'_>) -> Result<Vec<Range<usize>>, Error> {
    let needed = block_bytes(config, settings.targets, settings.rank_max);
    if needed == 0 || settings.rank_max == 0 || config.layers == 0 {
        return Err(Error::NothingToMeasure);
    }
    let together = usize::try_from(settings.sketch_bytes / needed).unwrap_or(usize::MAX);
    if together == 0 {
        return Err(Error::TooLarge {
            needed,
            allowed: settings.sketch_bytes,
        });
    }
    let layers = config.layers;
    let passes = layers.div_ceil(together);
    let each = layers.div_ceil(passes);
    let starts = (0..layers).step_by(each);
    Ok(starts
        .map(|first| first..layers.min(first + each))
        .collect())
}

/// The sketches of some blocks.
pub(super) struct Group {
    blocks: Range<usize>,
    /// For each block, its weights in forward order.
    sketches: Vec<Vec<(WeightName, Sketch)>>,
}

impl Group {
    /// Empty sketches of the weights that are to be measured in `blocks`.
    pub(super) fn new(model: &Model, settings: &Settings<'_>, blocks: Range<usize>) -> Self {
        let of = |block: usize| {
            let weights = model.weights().into_iter().filter(|shape| {
                usize::from(shape.name.layer()) == block
                    && settings.targets.contains(&shape.name.projection())
            });
            let sketch = weights.map(|shape| {
                let number = 16 * block as u32 + shape.name.projection() as u32;
                let rank = usize::from(settings.rank_max);
                let sides = (shape.out, shape.inp);
                (shape.name, Sketch::new(sides, rank, settings.seed, number))
            });
            sketch.collect()
        };
        Self {
            sketches: blocks.clone().map(of).collect(),
            blocks,
        }
    }

    /// What the weights are worth, after `count` batches.
    pub(super) fn importance(
        self,
        model: &Model,
        rank: usize,
        count: usize,
    ) -> Result<Vec<WeightImportance>, Error> {
        let sketches: Vec<_> = self.sketches.into_iter().flatten().collect();
        let weigh = |(name, sketch): (WeightName, Sketch)| {
            let energies = sketch.energies(rank, count);
            let energies = energies.ok_or(Error::Gradient { weight: name })?;
            Ok(WeightImportance { name, energies })
        };
        model
            .threads()
            .run(|| sketches.into_par_iter().map(weigh).collect())
    }

    /// Bytes that the sketches hold.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        let sketches = self.sketches.iter().flatten();
        sketches.map(|(_, sketch)| sketch.bytes()).sum()
    }

    fn of(&self, block: usize) -> Option<&[(WeightName, Sketch)]> {
        let index = block.checked_sub(self.blocks.start)?;
        self.sketches.get(index).map(Vec::as_slice)
    }
}

impl Observe for Group {
    fn lowest(&self) -> Option<usize> {
        Some(self.blocks.start)
    }

    fn wants(&self, block: usize, place: usize) -> bool {
        let own = self.of(block).unwrap_or_default();
        let stack = STACKS.get(place).copied().unwrap_or_default();
        own.iter()
            .any(|(name, _)| stack.contains(&name.projection()))
    }

    fn see(
        &mut self,
        block: usize,
        stack: &Stack,
        dy: &[f32],
        x: &[f32],
        workspace: &mut Workspace,
    ) {
        let Some(index) = block.checked_sub(self.blocks.start) else {
            return;
        };
        let outputs = stack.parts.iter().map(|part| part.outputs).sum::<usize>();
        let tokens = dy.len() / outputs;
        let (dy, x) = (
            View::new(dy, tokens, outputs),
            View::new(x, tokens, x.len() / tokens),
        );
        for (name, sketch) in self.sketches.get_mut(index).into_iter().flatten() {
            let part = stack
                .parts
                .iter()
                .find(|part| part.projection == name.projection());
            if let Some(part) = part {
                sketch.add(dy.columns(part.first, part.outputs), x, workspace);
            }
        }
    }
}

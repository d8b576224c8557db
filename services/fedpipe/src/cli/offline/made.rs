//! Adapters that are made up, for the benchmark of the merge: nothing in them was learned.

use std::path::Path;

use aggregator::strategy::files;
use artifacts::tensors::TensorWriter;
use domain::adapter::{RankTable, WeightShape};
use domain::job::aggregation::Trains;

/// Largest entry of what an update adds to A, and of B.
const MOVED_A: f32 = 0.01;
const MOVED_B: f32 = 0.02;

/// What an adapter is made of.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    /// Slices of the start, so that a slice is the same whatever the update's rank.
    keep: u16,
    /// Of an update: whose, and whether A moved.
    update: Option<(u64, Trains)>,
}

impl Made {
    /// What all workers loaded.
    pub const fn start(keep: u16) -> Self {
        Self { keep, update: None }
    }

    /// What one of them sends: its leading slices of the start, moved by what all share and by its own.
    pub const fn update(keep: u16, number: u64, trains: Trains) -> Self {
        Self {
            keep,
            update: Some((number, trains)),
        }
    }

    /// Writes it with these ranks.
    pub fn write(
        self,
        path: &Path,
        ranks: &RankTable,
        weights: &[WeightShape],
        trains: Trains,
    ) -> anyhow::Result<()> {
        let mut writer = files::create_trained(path, ranks, weights, trains)?;
        let mut sorted = weights.to_vec();
        sorted.sort_by_cached_key(|weight| weight.name.peft_a());
        for weight in sorted {
            let rank = usize::from(ranks.rank(weight.name));
            if trains == Trains::Both {
                self.factor_a(&mut writer, &weight, rank)?;
            }
            self.factor_b(&mut writer, &weight, rank)?;
        }
        Ok(writer.finish()?)
    }

    fn factor_a(
        self,
        to: &mut TensorWriter,
        weight: &WeightShape,
        rank: usize,
    ) -> anyhow::Result<()> {
        let count = rank * weight.inp;
        let bound = 1.0 / (weight.inp as f32).sqrt();
        let mut values = numbers(seed(weight, 0, 0), count, bound);
        if let Some((number, Trains::Both)) = self.update {
            add(&mut values, &numbers(seed(weight, 1, 0), count, MOVED_A));
            add(
                &mut values,
                &numbers(seed(weight, 2, number), count, MOVED_A),
            );
        }
        Ok(to.write(&weight.name.peft_a(), &values)?)
    }

    fn factor_b(
        self,
        to: &mut TensorWriter,
        weight: &WeightShape,
        rank: usize,
    ) -> anyhow::Result<()> {
        // Drawn at the start's width and cut, so that leading columns are the same at every rank.
        let keep = usize::from(self.keep);
        let count = weight.out * keep;
        let mut values = numbers(seed(weight, 3, 0), count, MOVED_B);
        if let Some((number, _)) = self.update {
            add(&mut values, &numbers(seed(weight, 4, 0), count, MOVED_B));
            add(
                &mut values,
                &numbers(seed(weight, 5, number), count, MOVED_B),
            );
        }
        let rows = values.chunks_exact(keep);
        let cut: Vec<f32> = rows
            .flat_map(|row| row.iter().take(rank).copied())
            .collect();
        Ok(to.write(&weight.name.peft_b(), &cut)?)
    }
}

fn seed(weight: &WeightShape, part: u64, number: u64) -> u64 {
    let name = u64::from(weight.name.layer()) * 16 + weight.name.projection() as u64;
    (number << 32) ^ (name << 8) ^ part
}

/// Numbers from −bound to bound, even enough for a benchmark and quick to draw: SplitMix64.
fn numbers(seed: u64, count: usize, bound: f32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * bound
    };
    (0..count).map(|_| next()).collect()
}

fn add(values: &mut [f32], others: &[f32]) {
    for (value, other) in values.iter_mut().zip(others) {
        *value += other;
    }
}

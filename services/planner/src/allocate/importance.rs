//! The importance that the sites measured, as one for the fleet: what each direction of each weight is worth.
//!
//! By a gradient sketch sites tell the energies `σ_j²` of the mean gradient G of each weight. ALGORITHMS.md 1.1 takes
//! `Σ_{j≤r} σ_j²` for the worth of rank r: what an adapter gains whose rows of A lie along G's singular vectors. A fresh A
//! is random, and its entries are about `1/√in`: any r of its rows see `r/in` of G's energy, up to one constant. The product
//! rule turns what it merges towards the A that the sites had (`aggregator/strategy/turn.rs`), so that it stays so. Hence G's
//! size counts, and every row about alike \[own\]:
//! - `AdamW` moves each parameter of B about as far, whatever its gradient: the loss falls by `Σ |∂L/∂B|` a step, which is
//!   about `√(out/in)·‖G‖` a row, where the rows of G are about alike.
//! - SGD and zeroth-order steps move by the gradient: the loss falls by `‖∂L/∂B‖²`, which is `‖G‖²/in` a row.
//!
//! `‖G‖²` is the sum of what was told of it, the first energies up to the job's highest rank.
//!
//! Rows are redundant where all follow one gradient. That r of them are worth `ln(1+r)`, the j-th about 1/j of the first, is
//! the assumption that ranks without any measurement rest on too ([`shape`]); docs/planning.md has in which runs it was
//! measured to hold, and in which not. Scores of `AdaLoRA`, which trains its adapter, are taken as they are.

use std::collections::BTreeMap;

use domain::adapter::{WeightName, WeightShape};
use domain::job::spec::Optimizer;
use domain::profile::{ImportanceMethod, Profile};

/// Worths of the directions of every target weight, as shares of what all of them are worth up to the highest rank.
pub(super) struct Importance {
    /// Of each weight, descending.
    pub worths: Vec<Vec<f64>>,
    /// Rank correlation between two seeds of the probe, the sites' mean by their records.
    pub agreement: f64,
}

impl Importance {
    /// The mean over the sites that measured all of `weights`, by their records, for steps of a job's `optimizer`.
    /// Energies of different methods do not compare: only those of the method that most records were measured with
    /// count. `None` if nothing usable was measured.
    pub(super) fn of<'a>(
        profiles: impl Iterator<Item = &'a Profile>,
        weights: &[WeightShape],
        rank_max: u16,
        optimizer: Optimizer,
    ) -> Option<Self> {
        let mut sums = [Sum::new(weights.len()), Sum::new(weights.len())];
        for profile in profiles {
            let measured = &profile.measurement;
            let Some(importance) = &measured.importance else {
                continue;
            };
            let of: BTreeMap<WeightName, &[f32]> = importance
                .weights
                .iter()
                .map(|weight| (weight.name, weight.energies.as_slice()))
                .collect();
            let found = weights.iter().map(|weight| of.get(&weight.name).copied());
            let Some(found) = found.collect::<Option<Vec<&[f32]>>>() else {
                continue;
            };
            let sound = |energy: &f32| energy.is_finite() && *energy >= 0.0;
            let share = measured.records as f64;
            if importance.agreement.is_finite()
                && share > 0.0
                && found.iter().copied().flatten().all(sound)
            {
                let [sketch, adalora] = &mut sums;
                match importance.method {
                    ImportanceMethod::Sketch => sketch,
                    ImportanceMethod::Adalora => adalora,
                }
                .add(share, &found, importance.agreement, rank_max);
            }
        }
        let [sketch, adalora] = sums;
        let (agreement, worths) = if adalora.share > sketch.share {
            adalora.mean()
        } else {
            let (agreement, energies) = sketch.mean();
            let spreads = energies.iter().zip(weights).map(|(energies, weight)| {
                spread(size(optimizer, energies, weight), weight, rank_max)
            });
            (agreement, spreads.collect())
        };
        Some(Self {
            worths: shares(worths)?,
            agreement,
        })
    }

    /// What all weights are worth in their first `rank` directions.
    pub(super) fn whole(&self, rank: u16) -> f64 {
        let first = |worths: &Vec<f64>| -> f64 { worths.iter().take(usize::from(rank)).sum() };
        self.worths.iter().map(first).sum()
    }
}

/// What a row of an adapter of this weight lowers the loss by in one step, up to what all weights have in common. `auto` takes
/// gradients wherever they fit, and then `AdamW`.
fn size(optimizer: Optimizer, energies: &[f64], weight: &WeightShape) -> f64 {
    let energy: f64 = energies.iter().sum();
    let (out, inp) = (weight.out as f64, weight.inp.max(1) as f64);
    match optimizer {
        Optimizer::Adamw | Optimizer::Auto => (energy * out / inp).sqrt(),
        Optimizer::Sgd | Optimizer::Mezo => energy / inp,
    }
}

/// What each of the first `rank_max` rows adds.
fn spread(size: f64, weight: &WeightShape, rank_max: u16) -> Vec<f64> {
    let upto = |rank: u16| size * shape(weight, rank, rank_max);
    (0..rank_max)
        .map(|rank| upto(rank + 1) - upto(rank))
        .collect()
}

/// What the first r rows of a weight's adapter are worth, as a share of what `rank_max` could be:
/// `ln(1+r)/ln(1+rank_max)`, and nothing beyond the weight's own rank.
pub(super) fn shape(weight: &WeightShape, rank: u16, rank_max: u16) -> f64 {
    let full = u16::try_from(weight.out.min(weight.inp)).unwrap_or(u16::MAX);
    f64::from(rank.min(full)).ln_1p() / f64::from(rank_max.max(1)).ln_1p()
}

/// Of what all directions are worth together; `None` if that is nothing.
fn shares(mut worths: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    let whole: f64 = worths.iter().flatten().sum();
    if !(whole.is_finite() && whole > 0.0) {
        return None;
    }
    for worth in worths.iter_mut().flatten() {
        *worth /= whole;
    }
    Some(worths)
}

struct Sum {
    share: f64,
    agreement: f64,
    energies: Vec<Vec<f64>>,
}

impl Sum {
    fn new(weights: usize) -> Self {
        Self {
            share: 0.0,
            agreement: 0.0,
            energies: vec![Vec::new(); weights],
        }
    }

    fn add(&mut self, share: f64, found: &[&[f32]], agreement: f64, rank_max: u16) {
        self.share += share;
        self.agreement += share * agreement;
        for (sum, energies) in self.energies.iter_mut().zip(found) {
            let kept = energies.len().min(usize::from(rank_max));
            sum.resize(sum.len().max(kept), 0.0);
            for (sum, energy) in sum.iter_mut().zip(*energies) {
                *sum += share * f64::from(*energy);
            }
        }
    }

    /// Agreement and energies, descending.
    fn mean(mut self) -> (f64, Vec<Vec<f64>>) {
        for energies in &mut self.energies {
            // Sites may order them otherwise by a rounding error; φ is concave all the same.
            energies.sort_by(|left, right| right.total_cmp(left));
            for energy in energies {
                *energy /= self.share;
            }
        }
        (self.agreement / self.share, self.energies)
    }
}

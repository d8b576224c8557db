//! What a job may train, and what each part of it is worth: `φ_m(r)`, as a share of what all target weights
//! at the highest rank are worth.
//!
//! It is one for the whole fleet: the worth of the mean gradient's first r directions for the job's optimizer
//! (`importance`), sites averaged by their records; a site that could not measure it takes the fleet's.

use domain::adapter::{Projection, RankTable, WeightName, WeightShape};
use domain::job::choice::Choice;
use domain::job::spec::Spec;
use domain::plan::RankBasis;
use domain::profile::Profile;

use super::importance::{Importance, shape};
use super::program::{Frontier, Item, Level};
use super::sizes::ranks;

/// Rank correlation of the weights' energies between two seeds of the probe below which they are not trusted weight by weight:
/// the bound of ALGORITHMS.md 1.1.
const LEAST_AGREEMENT: f64 = 0.5;

/// The target weights, their ranks, and the worth of each.
pub(super) struct Space {
    /// Every item's steps, in the order of their worth.
    pub frontier: Frontier,
    /// Projections that carry an adapter.
    pub targets: Vec<Projection>,
    /// Blocks of the model.
    pub layers: u16,
    /// What φ was taken from.
    pub basis: RankBasis,
    /// How well two seeds of the probe agree, if importance was measured.
    pub agreement: Option<f64>,
    /// The weights of each item of the frontier, which have one rank.
    groups: Vec<Vec<WeightName>>,
}

impl Space {
    /// Of the profiles that can be planned with, which all have these weights. `None` if there is no
    /// target weight.
    pub(super) fn of<'a>(
        spec: &Spec,
        targets: &[Projection],
        layers: u16,
        weights: &[WeightShape],
        profiles: impl Iterator<Item = &'a Profile>,
    ) -> Option<Self> {
        let wanted = |weight: &&WeightShape| {
            targets.contains(&weight.name.projection()) && weight.name.layer() < layers
        };
        let weights: Vec<WeightShape> = weights.iter().filter(wanted).copied().collect();
        let (rank_max, optimizer) = (spec.adapter.rank_max, spec.training.optimizer);
        let importance = Importance::of(profiles, &weights, rank_max, optimizer);
        let agreement = importance.as_ref().map(|importance| importance.agreement);
        let basis = match (&spec.adapter.rank, agreement) {
            (Choice::Fixed(_), _) => RankBasis::Fixed,
            (Choice::Auto, Some(agreement)) if agreement >= LEAST_AGREEMENT => RankBasis::Measured,
            (Choice::Auto, Some(_)) => RankBasis::Disagreeing,
            (Choice::Auto, None) => RankBasis::Assumed,
        };
        let (items, groups) = match (&importance, basis) {
            (Some(importance), RankBasis::Measured) => each(spec, &weights, importance)?,
            _ => together(spec, &weights, importance.as_ref())?,
        };
        Some(Self {
            frontier: Frontier::new(items)?,
            targets: targets.to_vec(),
            layers,
            basis,
            agreement,
            groups,
        })
    }

    /// The ranks that a level of each item means.
    pub(super) fn table(&self, levels: &[usize]) -> RankTable {
        let items = self.frontier.items().iter().zip(levels);
        let ranks = items.zip(&self.groups).flat_map(|((item, level), group)| {
            let rank = item.levels().get(*level).map_or(0, |level| level.rank);
            group.iter().map(move |weight| (*weight, rank))
        });
        RankTable::of(&self.targets, self.layers, ranks)
    }

    /// The highest rank among the levels.
    pub(super) fn highest(&self, levels: &[usize]) -> u16 {
        let items = self.frontier.items().iter().zip(levels);
        let ranks = items.filter_map(|(item, level)| item.levels().get(*level));
        ranks.map(|level| level.rank).max().unwrap_or(0)
    }

    /// Every target weight at one rank.
    pub(super) fn uniform(&self, rank: u16) -> RankTable {
        RankTable::uniform(&self.targets, self.layers, rank)
    }

    /// The rank of the smallest adapter.
    pub(super) fn least_rank(&self) -> u16 {
        let items = self.frontier.items().iter();
        let lowest = items.flat_map(|item| {
            let ranks = item.levels().iter().map(|level| level.rank);
            ranks.filter(|rank| *rank > 0).take(1)
        });
        lowest.min().unwrap_or(0)
    }

    /// How many weights there are.
    pub(super) fn weights(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// `Σ φ` of any table, between the levels by straight lines: for ranks of another plan.
    pub(super) fn gain(&self, table: &RankTable) -> f64 {
        let items = self.frontier.items().iter().zip(&self.groups);
        let gains = items.map(|(item, group)| {
            let gains = group
                .iter()
                .map(|weight| between(item, table.rank(*weight)));
            gains.sum::<f64>() / group.len().max(1) as f64
        });
        gains.sum()
    }
}

fn between(item: &Item, rank: u16) -> f64 {
    let mut below = Level { rank: 0, gain: 0.0 };
    for level in item.levels() {
        if level.rank >= rank {
            let (width, part) = (level.rank - below.rank, rank - below.rank);
            let share = f64::from(part) / f64::from(width.max(1));
            return if rank == level.rank {
                level.gain
            } else {
                below.gain + share * (level.gain - below.gain)
            };
        }
        below = *level;
    }
    below.gain
}

type Grouped = (Vec<Item>, Vec<Vec<WeightName>>);

/// Every weight by itself. Where the job names the targets each trains at least a little; otherwise a
/// weight may stay frozen.
fn each(spec: &Spec, weights: &[WeightShape], importance: &Importance) -> Option<Grouped> {
    let rank_max = spec.adapter.rank_max;
    let (least, frozen) = match spec.adapter.targets {
        Choice::Fixed(_) => (1, None),
        Choice::Auto => (2, Some(0)),
    };
    let levels: Vec<u16> = frozen.into_iter().chain(ranks(least, rank_max)).collect();
    let items = weights
        .iter()
        .zip(&importance.worths)
        .map(|(weight, worths)| {
            let level = |rank: &u16| Level {
                rank: *rank,
                gain: worths.iter().take(usize::from(*rank)).sum(),
            };
            Item::new(weight.parameters(1), levels.iter().map(level).collect())
        });
    let items: Vec<Item> = items.collect::<Option<_>>()?;
    Some((
        items,
        weights.iter().map(|weight| vec![weight.name]).collect(),
    ))
}

/// All weights with one rank: the fixed one, or one of a few.
fn together(
    spec: &Spec,
    weights: &[WeightShape],
    importance: Option<&Importance>,
) -> Option<Grouped> {
    let rank_max = spec.adapter.rank_max;
    let ranks = match spec.adapter.rank {
        Choice::Fixed(rank) => vec![rank],
        Choice::Auto => ranks(1, rank_max),
    };
    let alike = |rank: u16| {
        let shapes = weights.iter().map(|weight| shape(weight, rank, rank_max));
        shapes.sum::<f64>() / weights.len().max(1) as f64
    };
    let level = |rank: u16| Level {
        rank,
        gain: importance.map_or_else(|| alike(rank), |known| known.whole(rank)),
    };
    let size = weights.iter().map(|weight| weight.parameters(1)).sum();
    let item = Item::new(size, ranks.into_iter().map(level).collect())?;
    let group = weights.iter().map(|weight| weight.name).collect();
    Some((vec![item], vec![group]))
}

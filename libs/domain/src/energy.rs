//! How strongly the loss pulls at each weight, as a round of training sees it. Pure.
//!
//! The gradient by B of `s·B·A` is `s·G·Aᵀ`: the frozen weight's own gradient G, seen through A. Where A looks in no
//! direction more than in another, `‖∇_B‖² = s²·‖G‖²·‖A‖²/in` on average, so that
//!
//! ```text
//! energy = in · ‖∇_B‖² / (s² · ‖A‖²)
//! ```
//!
//! estimates `‖G‖²`, of which a probe tells the energies. It costs nothing, for training has `∇_B` anyway. An A that was trained
//! looks where the gradient was, and then it is too large: so it is held only against itself of another round, never
//! against a probe's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::adapter::{Projection, RankTable, WeightName};

/// An energy for each weight that was trained: for each projection one per layer; 0 where nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EnergyTable(BTreeMap<Projection, Vec<f32>>);

impl EnergyTable {
    /// Whether nothing is known of any weight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known().next().is_none()
    }

    /// Whether every figure is a number from 0.
    #[must_use]
    pub fn is_legal(&self) -> bool {
        let mut all = self.0.values().flatten();
        all.all(|energy| energy.is_finite() && *energy >= 0.0)
    }

    /// Whether it names no other weights than these ranks do, of which a plan has all.
    #[must_use]
    pub fn is_within(&self, ranks: &RankTable) -> bool {
        let mut rows = self.0.iter();
        rows.all(|(projection, row)| row.len() <= ranks.row(*projection).len())
    }

    /// The weights of which something is known, with their energy.
    pub fn known(&self) -> impl Iterator<Item = (WeightName, f32)> {
        self.0.iter().flat_map(|(projection, row)| {
            let known = (0u16..).zip(row).filter(|(_, energy)| **energy > 0.0);
            known.map(|(layer, energy)| (WeightName::new(layer, *projection), *energy))
        })
    }

    /// The weighted mean of each weight's energy over the tables that know it.
    #[must_use]
    pub fn mean<'a>(tables: impl IntoIterator<Item = (f64, &'a Self)>) -> Self {
        let mut sums: BTreeMap<WeightName, (f64, f64)> = BTreeMap::new();
        for (share, table) in tables {
            for (name, energy) in table.known() {
                let (sum, shares) = sums.entry(name).or_default();
                *sum += share * f64::from(energy);
                *shares += share;
            }
        }
        let known = sums.into_iter().filter(|(_, (_, shares))| *shares > 0.0);
        known
            .map(|(name, (sum, shares))| (name, (sum / shares) as f32))
            .collect()
    }

    /// The weights that both know, with the energies of this one and the other.
    #[must_use]
    pub fn both(&self, other: &Self) -> Vec<(WeightName, f64, f64)> {
        let others: BTreeMap<WeightName, f32> = other.known().collect();
        let both = self.known().filter_map(|(name, energy)| {
            let other = others.get(&name)?;
            Some((name, f64::from(energy), f64::from(*other)))
        });
        both.collect()
    }

    /// Spearman's rank correlation of the two, over the weights that both know.
    #[must_use]
    pub fn agreement(&self, other: &Self) -> f64 {
        let (own, others): (Vec<f64>, Vec<f64>) = self
            .both(other)
            .into_iter()
            .map(|(_, own, other)| (own, other))
            .unzip();
        crate::correlation::spearman(&own, &others)
    }
}

impl FromIterator<(WeightName, f32)> for EnergyTable {
    fn from_iter<T: IntoIterator<Item = (WeightName, f32)>>(energies: T) -> Self {
        let mut table = Self::default();
        for (name, energy) in energies {
            let row = table.0.entry(name.projection()).or_default();
            let at = usize::from(name.layer());
            if row.len() <= at {
                row.resize(at + 1, 0.0);
            }
            if let Some(own) = row.get_mut(at) {
                *own = energy;
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(energies: &[f32]) -> EnergyTable {
        let named = (0..).zip(energies);
        named
            .map(|(layer, energy)| (WeightName::new(layer, Projection::Up), *energy))
            .collect()
    }

    #[test]
    fn a_weight_s_mean_is_of_those_who_trained_it() {
        let (one, other) = (table(&[4.0, 0.0, 1.0]), table(&[1.0, 6.0]));
        let mean = EnergyTable::mean([(0.75, &one), (0.25, &other)]);
        assert_eq!(mean, table(&[3.25, 6.0, 1.0]));
        assert!(EnergyTable::mean([(1.0, &EnergyTable::default())]).is_empty());
    }

    #[test]
    fn two_tables_agree_by_the_weights_that_both_know() {
        let one = table(&[1.0, 2.0, 3.0, 0.0]);
        assert_eq!(one.agreement(&table(&[2.0, 4.0, 9.0, 1.0])), 1.0);
        assert_eq!(one.agreement(&table(&[9.0, 4.0, 2.0, 1.0])), -1.0);
        assert_eq!(one.both(&table(&[0.0, 5.0])).len(), 1);
    }

    #[test]
    fn a_figure_that_is_no_energy_is_found() {
        assert!(table(&[0.0, 1.0]).is_legal());
        assert!(!table(&[1.0, -1.0]).is_legal() && !table(&[f32::NAN]).is_legal());
        assert!(!table(&[f32::INFINITY]).is_legal());
    }

    #[test]
    fn a_table_of_other_weights_than_the_plan_s_is_found() {
        let ranks = RankTable::uniform(&[Projection::Up], 2, 4);
        assert!(EnergyTable::default().is_within(&ranks));
        assert!(table(&[1.0]).is_within(&ranks) && table(&[1.0, 2.0]).is_within(&ranks));
        // Nothing is known of the third, and yet it takes its room.
        assert!(!table(&[1.0, 2.0, 0.0]).is_within(&ranks));
        assert!(!table(&[1.0]).is_within(&RankTable::default()));
    }
}

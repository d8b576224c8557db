//! The importance that the sites measured, as one for the fleet.

use std::collections::BTreeMap;

use domain::adapter::{WeightName, WeightShape};
use domain::profile::{ImportanceMethod, Profile};

/// Energies of every target weight, as shares of what all of them hold up to the highest rank.
pub(super) struct Importance {
    /// Of each weight, descending.
    pub energies: Vec<Vec<f64>>,
    /// Rank correlation between two seeds of the probe, the sites' mean by their records.
    pub agreement: f64,
}

impl Importance {
    /// The mean over the sites that measured all of `weights`, by their records. Energies of different
    /// methods do not compare: only those of the method that most records were measured with count.
    /// `None` if nothing usable was measured.
    pub(super) fn of<'a>(
        profiles: impl Iterator<Item = &'a Profile>,
        weights: &[WeightShape],
        rank_max: u16,
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
        if adalora.share > sketch.share {
            adalora.mean()
        } else {
            sketch.mean()
        }
    }

    /// What all weights hold in their first `rank` directions.
    pub(super) fn whole(&self, rank: u16) -> f64 {
        let first = |energies: &Vec<f64>| -> f64 { energies.iter().take(usize::from(rank)).sum() };
        self.energies.iter().map(first).sum()
    }
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

    fn mean(mut self) -> Option<Importance> {
        let whole: f64 = self.energies.iter().flatten().sum();
        if !(whole.is_finite() && whole > 0.0) {
            return None;
        }
        for energies in &mut self.energies {
            // Sites may order them otherwise by a rounding error; φ is concave all the same.
            energies.sort_by(|left, right| right.total_cmp(left));
            for energy in energies {
                *energy /= whole;
            }
        }
        Some(Importance {
            energies: self.energies,
            agreement: self.agreement / self.share,
        })
    }
}

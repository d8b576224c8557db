//! Whether two measurements order the weights alike.

use std::collections::BTreeMap;

use domain::adapter::WeightName;
use domain::correlation::spearman;

use super::Importance;

/// Spearman's rank correlation, from −1 to 1, of what the weights are worth with all their directions,
/// over the weights that both measured: 1 where there are fewer than two of them, so nothing to order, and 0
/// where one of the two tells no weight from another.
#[must_use]
pub fn agreement(one: &Importance, other: &Importance) -> f64 {
    let others: BTreeMap<WeightName, f64> = worths(other).collect();
    let both = worths(one).filter_map(|(name, worth)| Some((worth, *others.get(&name)?)));
    let (first, second): (Vec<f64>, Vec<f64>) = both.unzip();
    spearman(&first, &second)
}

fn worths(importance: &Importance) -> impl Iterator<Item = (WeightName, f64)> {
    let weights = importance.weights.iter();
    weights.map(|weight| (weight.name, weight.worth(u16::MAX)))
}

#[cfg(test)]
mod tests {
    use domain::adapter::Projection;

    use super::super::WeightImportance;
    use super::*;

    fn importance(worths: &[f32]) -> Importance {
        let weight = |(layer, worth): (u16, &f32)| WeightImportance {
            name: WeightName::new(layer, Projection::Q),
            energies: vec![*worth, 0.5],
        };
        Importance {
            weights: (0..).zip(worths).map(weight).collect(),
            records: 8,
        }
    }

    #[test]
    fn weights_are_ordered_by_all_their_directions_and_only_those_of_both_count() {
        let one = importance(&[9.0, 1.0, 2.0]);
        let mut other = importance(&[1.0, 2.0, 3.0]);
        assert_eq!(agreement(&one, &other), -0.5);
        other.weights.remove(0);
        assert_eq!(agreement(&one, &other), 1.0);
        // What its first direction lacks the second makes up for.
        if let Some(first) = other.weights.first_mut() {
            first.energies = vec![0.0, 4.0];
        }
        assert_eq!(agreement(&one, &other), -1.0);
    }
}

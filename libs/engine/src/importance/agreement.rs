//! Whether two measurements order the weights alike.

use std::collections::BTreeMap;

use domain::adapter::WeightName;

use super::Importance;

/// Spearman's rank correlation, from −1 to 1, of what the weights are worth with all their directions,
/// over the weights that both measured: 1 where there are fewer than two of them, so nothing to order, and 0
/// where one of the two tells no weight from another.
#[must_use]
pub fn agreement(one: &Importance, other: &Importance) -> f64 {
    let others: BTreeMap<WeightName, f64> = worths(other).collect();
    let both = worths(one).filter_map(|(name, worth)| Some((worth, *others.get(&name)?)));
    let (first, second): (Vec<f64>, Vec<f64>) = both.unzip();
    if first.len() < 2 {
        return 1.0;
    }
    correlation(&ranks(&first), &ranks(&second))
}

fn worths(importance: &Importance) -> impl Iterator<Item = (WeightName, f64)> {
    let weights = importance.weights.iter();
    weights.map(|weight| (weight.name, weight.worth(u16::MAX)))
}

/// The place of each value among all, from 0; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let place = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let equal = values.iter().filter(|other| *other == value).count();
        below as f64 + (equal.max(1) - 1) as f64 / 2.0
    };
    values.iter().map(place).collect()
}

/// Pearson's correlation.
fn correlation(one: &[f64], other: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_one, mean_other) = (mean(one), mean(other));
    let moment =
        |pairs: &mut dyn Iterator<Item = (f64, f64)>| pairs.map(|(a, b)| a * b).sum::<f64>();
    let from_one = || one.iter().map(|value| value - mean_one);
    let from_other = || other.iter().map(|value| value - mean_other);
    let spread =
        moment(&mut from_one().zip(from_one())) * moment(&mut from_other().zip(from_other()));
    if spread > 0.0 {
        moment(&mut from_one().zip(from_other())) / spread.sqrt()
    } else {
        0.0
    }
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

    #[track_caller]
    fn check(one: &[f32], other: &[f32], want: f64) {
        let got = agreement(&importance(one), &importance(other));
        assert!((got - want).abs() < 1e-12, "{got}, want {want}");
    }

    #[test]
    fn the_same_order_is_1_and_the_reverse_minus_1_whatever_the_values() {
        check(&[1.0, 2.0, 3.0, 9.0], &[0.1, 20.0, 21.0, 22.0], 1.0);
        check(&[1.0, 2.0, 3.0, 9.0], &[4.0, 3.0, 2.0, 1.0], -1.0);
    }

    /// Two neighbours of five changed places: `1 − 6·Σd²/(n(n²−1)) = 1 − 12/120`. With a tie: by
    /// SciPy's `spearmanr([1, 2, 2, 4], [1, 3, 2, 4])`.
    #[test]
    fn what_lies_between_is_spearmans() {
        check(&[1.0, 2.0, 3.0, 4.0, 5.0], &[1.0, 3.0, 2.0, 4.0, 5.0], 0.9);
        check(
            &[1.0, 2.0, 2.0, 4.0],
            &[1.0, 3.0, 2.0, 4.0],
            0.948_683_298_050_513_8,
        );
    }

    #[test]
    fn without_two_weights_or_without_differences_it_is_still_a_number() {
        check(&[1.0], &[5.0], 1.0);
        check(&[], &[], 1.0);
        check(&[1.0, 1.0], &[1.0, 2.0], 0.0);
        let other = Importance {
            weights: importance(&[1.0, 2.0, 3.0]).weights.split_off(1),
            records: 8,
        };
        assert_eq!(
            agreement(&importance(&[9.0, 1.0, 2.0]), &other),
            1.0,
            "only those of both count"
        );
    }
}

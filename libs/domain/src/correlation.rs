//! Whether two rows of figures order their items alike. Pure.

/// Spearman's rank correlation, from −1 to 1: 1 where there are fewer than two items, so nothing to order, and 0 where
/// one of the two tells no item from another. Items beyond the shorter row do not count.
#[must_use]
pub fn spearman(one: &[f64], other: &[f64]) -> f64 {
    let both = one.len().min(other.len());
    if both < 2 {
        return 1.0;
    }
    let shortened = |row: &[f64]| ranks(row.get(..both).unwrap_or(row));
    pearson(&shortened(one), &shortened(other))
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

fn pearson(one: &[f64], other: &[f64]) -> f64 {
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
    use super::*;

    #[track_caller]
    fn check(one: &[f64], other: &[f64], want: f64) {
        let got = spearman(one, other);
        assert!((got - want).abs() < 1e-12, "{got}, want {want}");
    }

    #[test]
    fn the_same_order_is_1_and_the_reverse_minus_1_whatever_the_values() {
        check(&[1.0, 2.0, 3.0, 9.0], &[0.1, 20.0, 21.0, 22.0], 1.0);
        check(&[1.0, 2.0, 3.0, 9.0], &[4.0, 3.0, 2.0, 1.0], -1.0);
    }

    /// Two neighbours of five changed places: `1 − 6·Σd²/(n(n²−1)) = 1 − 12/120`. With a tie: by SciPy's
    /// `spearmanr([1, 2, 2, 4], [1, 3, 2, 4])`.
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
    fn without_two_items_or_without_differences_it_is_still_a_number() {
        check(&[1.0], &[5.0], 1.0);
        check(&[], &[], 1.0);
        check(&[1.0, 1.0], &[1.0, 2.0], 0.0);
    }
}

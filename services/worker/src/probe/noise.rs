//! How much the gradients of single records differ, from the norms that the measured steps show anyway.
//!
//! The expected squared norm of a mean over b records is `signal + variance / b` (McCandlish et al., arXiv
//! 1812.06162, appendix A). Both are fitted to the norms of all measured steps but those over parts of a row, which are
//! made at the job's start: a probe never moves the adapter. With B zero the norm is that of the gradient of B
//! alone, whose square grows with the rank; so each is divided by its rank. Few steps make a
//! rough estimate: it says whether a larger batch still teaches more, not the last digit.

use std::collections::BTreeSet;

use domain::profile::GradientNoise;

use super::configurations::Configuration;

/// Gradient norms as they were seen.
#[derive(Debug, Clone, Default)]
pub struct Norms {
    /// Records of the step, and the squared norm per unit of rank.
    steps: Vec<(f64, f64)>,
    records: BTreeSet<usize>,
}

impl Norms {
    /// Notes a step's gradient over these records; not one over parts of rows, which are the ends of records, and whose gradients
    /// say little of whole ones'.
    pub fn add(&mut self, configuration: Configuration, norm: f64, records: &[usize]) {
        let Configuration { rank, part, .. } = configuration;
        let square = norm * norm / f64::from(rank.max(1));
        if part == 1 && !records.is_empty() && square.is_finite() {
            self.steps.push((records.len() as f64, square));
            self.records.extend(records);
        }
    }

    /// The estimate; `None` if all steps had the same number of records, or there were fewer records
    /// than `smallest`.
    #[must_use]
    pub fn estimate(&self, smallest: u64) -> Option<GradientNoise> {
        let records = self.records.len() as u64;
        // Least squares of y = signal + variance·x with x = 1/b. A step counts by its records, because
        // the more it averages the less its norm varies.
        let sum = |figure: fn(f64, f64) -> f64| -> f64 {
            self.steps
                .iter()
                .map(|(b, y)| b * figure(1.0 / b, *y))
                .sum()
        };
        let (weight, x, y) = (sum(|_, _| 1.0), sum(|x, _| x), sum(|_, y| y));
        let (xx, xy) = (sum(|x, _| x * x), sum(|x, y| x * y));
        let spread = weight * xx - x * x;
        if records < smallest || spread <= 1e-9 * weight * xx {
            return None;
        }
        let variance = (weight * xy - x * y) / spread;
        let signal = (y - variance * x) / weight;
        Some(GradientNoise {
            signal,
            variance,
            records,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rank: u16, part: usize) -> Configuration {
        Configuration {
            batch: 1,
            rank,
            part,
        }
    }

    #[test]
    fn parts_of_rows_say_nothing_of_whole_ones() {
        let mut norms = Norms::default();
        for (batch, part, square) in [(1, 4, 900.0), (1, 2, 300.0), (1, 1, 9.0), (2, 1, 6.0)] {
            let records: Vec<usize> = (0..batch).collect();
            norms.add(of(1, part), f64::sqrt(square), &records);
        }
        let noise = norms.estimate(1).unwrap();
        assert!((noise.signal - 3.0).abs() < 1e-9, "{noise:?}");
        assert!((noise.variance - 6.0).abs() < 1e-9, "{noise:?}");
    }

    #[test]
    fn exact_norms_give_signal_and_variance_whatever_the_rank() {
        let mut norms = Norms::default();
        for (rank, batch, first) in [(4, 1, 0), (16, 1, 1), (4, 2, 2), (16, 4, 4)] {
            let square = (3.0 + 12.0 / batch as f64) * f64::from(rank);
            let records: Vec<usize> = (first..first + batch).collect();
            norms.add(of(rank, 1), square.sqrt(), &records);
        }
        let noise = norms.estimate(8).unwrap();
        assert!((noise.signal - 3.0).abs() < 1e-9, "{noise:?}");
        assert!((noise.variance - 12.0).abs() < 1e-9, "{noise:?}");
        assert_eq!(noise.records, 8);
        assert_eq!(norms.estimate(9), None, "fewer records than may be told");
    }

    #[test]
    fn steps_of_one_size_say_nothing() {
        let mut norms = Norms::default();
        for first in 0..10 {
            norms.add(of(8, 1), 2.0, &[first, first + 1]);
        }
        assert_eq!(norms.estimate(1), None);
    }
}

//! How well a merged adapter does on held-out records, as counts that add up over sites.

use serde::{Deserialize, Serialize};

/// Counts of an evaluation; sums of sites' counts are the fleet's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Held-out records scored.
    pub records: u64,
    /// Sum of the loss over labelled tokens.
    pub loss_sum: f64,
    /// Labelled tokens.
    pub labelled_tokens: u64,
    /// `confusion[truth][answer]`, indexed as the job's choices; empty without choices.
    pub confusion: Vec<Vec<u64>>,
    /// Seconds of scoring.
    pub seconds: f64,
    /// Bytes fetched for it: the merged adapter, unless it was there already.
    #[serde(default)]
    pub bytes_down: u64,
}

impl Score {
    /// Adds another site's counts.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.loss_sum += other.loss_sum;
        self.labelled_tokens += other.labelled_tokens;
        self.seconds = self.seconds.max(other.seconds);
        self.bytes_down += other.bytes_down;
        if self.confusion.len() < other.confusion.len() {
            self.confusion.resize(other.confusion.len(), Vec::new());
        }
        for (row, added) in self.confusion.iter_mut().zip(&other.confusion) {
            if row.len() < added.len() {
                row.resize(added.len(), 0);
            }
            for (cell, count) in row.iter_mut().zip(added) {
                *cell += count;
            }
        }
    }

    /// Mean loss per labelled token.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        (self.labelled_tokens > 0).then(|| self.loss_sum / self.labelled_tokens as f64)
    }

    /// Mean over the classes of the share answered right; classes without records do not count.
    #[must_use]
    pub fn balanced_accuracy(&self) -> Option<f64> {
        let recalls = self
            .confusion
            .iter()
            .enumerate()
            .filter_map(|(truth, row)| {
                let all: u64 = row.iter().sum();
                let right = row.get(truth).copied().unwrap_or(0);
                (all > 0).then(|| right as f64 / all as f64)
            });
        let recalls: Vec<f64> = recalls.collect();
        (!recalls.is_empty()).then(|| recalls.iter().sum::<f64>() / recalls.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_accuracy_of_a_constant_answer_is_one_half() {
        let score = Score {
            confusion: vec![vec![30, 0], vec![10, 0]],
            ..Score::default()
        };
        assert_eq!(score.balanced_accuracy(), Some(0.5));
    }

    #[test]
    fn scores_of_sites_add_up() {
        let mut sum = Score::default();
        sum.add(&Score {
            records: 2,
            bytes_down: 10,
            confusion: vec![vec![1, 0], vec![0, 1]],
            ..Score::default()
        });
        sum.add(&Score {
            records: 1,
            bytes_down: 5,
            confusion: vec![vec![0, 1], vec![0, 0]],
            ..Score::default()
        });
        assert_eq!(
            (sum.records, sum.bytes_down, sum.confusion),
            (3, 15, vec![vec![1, 1], vec![0, 1]])
        );
    }
}

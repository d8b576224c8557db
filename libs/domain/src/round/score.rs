//! How well a merged adapter does on held-out records, as counts that add up over sites.

use serde::{Deserialize, Serialize};

use super::Answers;
use crate::figure;

/// Counts of an evaluation; sums of sites' counts are the fleet's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Held-out records scored.
    pub records: u64,
    /// Sum of the loss over labelled tokens.
    pub loss_sum: f64,
    /// Labelled tokens.
    pub labelled_tokens: u64,
    /// `confusion[truth][answer]`, indexed as the job's choices or labels; empty without either.
    pub confusion: Vec<Vec<u64>>,
    /// Counts over the answers that were generated; absent without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
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
        if let Some(answers) = &other.answers {
            self.answers.get_or_insert_default().merge(answers);
        }
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

    /// `e` to the mean loss.
    #[must_use]
    pub fn perplexity(&self) -> Option<f64> {
        self.loss().map(f64::exp)
    }

    /// The share of records answered right, among those with an answer of a class.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        let all: u64 = self.confusion.iter().flatten().sum();
        let rows = self.confusion.iter().enumerate();
        let right: u64 = rows.filter_map(|(truth, row)| row.get(truth)).sum();
        (all > 0).then(|| right as f64 / all as f64)
    }

    /// The name of the first figure that no site can have counted over records of so many classes, if any.
    #[must_use]
    pub fn illegal(&self, classes: usize) -> Option<&'static str> {
        let counts = [
            ("records", self.records),
            ("labelled tokens", self.labelled_tokens),
            ("bytes", self.bytes_down),
        ];
        let beyond = counts.into_iter().find(|(_, count)| *count > figure::MOST);
        let sound = [
            ("loss", figure::is_number(self.loss_sum)),
            ("seconds", figure::is_from_zero(self.seconds)),
            ("confusion", self.has_confusion_of(classes)),
            (
                "answers",
                self.answers.as_ref().is_none_or(Answers::is_legal),
            ),
        ];
        let wrong = sound.into_iter().find(|(_, is_sound)| !is_sound);
        let beyond = beyond.map(|(name, _)| name);
        beyond.or(wrong.map(|(name, _)| name))
    }

    /// Whether the confusion is one of so many classes, with no more answers in it than records.
    fn has_confusion_of(&self, classes: usize) -> bool {
        let cells = self.confusion.iter().flatten();
        let answers = cells.fold(0, |sum: u64, cell| sum.saturating_add(*cell));
        self.confusion.len() <= classes
            && self.confusion.iter().all(|row| row.len() <= classes)
            && answers <= self.records
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
        assert_eq!(score.accuracy(), Some(0.75));
        assert_eq!(Score::default().accuracy(), None);
    }

    #[test]
    fn what_no_site_can_have_counted_is_named() {
        let legal = Score {
            records: 4,
            loss_sum: 2.5,
            labelled_tokens: 4,
            confusion: vec![vec![1, 0], vec![1, 2]],
            answers: None,
            seconds: 0.0,
            bytes_down: 9,
        };
        assert_eq!(legal.illegal(2), None);
        assert_eq!(
            Score::default().illegal(2),
            None,
            "without held-out records"
        );
        let check = |change: fn(&mut Score), expected| {
            let mut score = legal.clone();
            change(&mut score);
            assert_eq!(score.illegal(2), Some(expected), "{score:?}");
        };
        check(|score| score.loss_sum = f64::NAN, "loss");
        check(|score| score.loss_sum = -1e300, "loss");
        check(|score| score.seconds = f64::INFINITY, "seconds");
        check(|score| score.seconds = f64::NAN, "seconds");
        check(|score| score.seconds = -1.0, "seconds");
        check(|score| score.records = u64::MAX, "records");
        check(|score| score.labelled_tokens = 1 << 60, "labelled tokens");
        check(|score| score.bytes_down = u64::MAX, "bytes");
        check(|score| score.confusion.push(vec![0]), "confusion");
        check(|score| score.confusion[0].push(0), "confusion");
        check(|score| score.confusion[0][1] = 1, "confusion");
        check(|score| score.confusion[0] = vec![u64::MAX; 2], "confusion");
        let told = Answers {
            f1_sum: f64::NAN,
            ..Answers::default()
        };
        let answered = Score {
            answers: Some(told),
            ..legal
        };
        assert_eq!(answered.illegal(2), Some("answers"));
        assert_eq!(answered.illegal(1), Some("confusion"));
    }

    #[test]
    fn scores_of_sites_add_up() {
        let mut sum = Score::default();
        sum.add(&Score {
            records: 2,
            bytes_down: 10,
            answers: Some(Answers {
                records: 2,
                exact: 1,
                ..Answers::default()
            }),
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
        assert_eq!(sum.answers.and_then(|all| all.exact_match()), Some(0.5));
    }
}

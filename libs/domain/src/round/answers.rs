//! How near generated answers come to the wanted ones, as counts and sums that add up over sites.
//!
//! What is counted as a word, and what two texts have in common, is the engine's (`engine::metrics`); the figures follow
//! from the counts alone.

use serde::{Deserialize, Serialize};

use crate::figure;

/// Longest sequences of words that BLEU compares.
pub const ORDERS: usize = 4;

/// Counts over a number of answers; those of two parts together are the sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// Answers.
    pub records: u64,
    /// Those that are what was wanted, but for blanks around them.
    pub exact: u64,
    /// Sum over answers of the harmonic mean of precision and recall of their words.
    pub f1_sum: f64,
    /// The same of the longest common subsequence of words.
    pub rouge_l_sum: f64,
    /// BLEU's counts.
    pub bleu: Bleu,
}

/// What BLEU over a corpus is made of (Papineni et al., 2002).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bleu {
    /// Sequences of one to four words of an answer that its wanted text has too.
    pub common: [u64; ORDERS],
    /// Sequences of one to four words of the answers.
    pub total: [u64; ORDERS],
    /// Words of the answers.
    pub answer: u64,
    /// Words of the wanted texts.
    pub wanted: u64,
}

impl Answers {
    /// Adds the counts of others.
    pub fn merge(&mut self, other: &Self) {
        self.records += other.records;
        self.exact += other.exact;
        self.f1_sum += other.f1_sum;
        self.rouge_l_sum += other.rouge_l_sum;
        let own = self.bleu.common.iter_mut().chain(&mut self.bleu.total);
        let others = other.bleu.common.iter().chain(&other.bleu.total);
        own.zip(others).for_each(|(own, other)| *own += other);
        self.bleu.answer += other.bleu.answer;
        self.bleu.wanted += other.bleu.wanted;
    }

    /// The share of answers that are what was wanted.
    #[must_use]
    pub fn exact_match(&self) -> Option<f64> {
        self.mean(self.exact as f64)
    }

    /// The mean F1 of an answer.
    #[must_use]
    pub fn f1(&self) -> Option<f64> {
        self.mean(self.f1_sum)
    }

    /// The mean ROUGE-L of an answer.
    #[must_use]
    pub fn rouge_l(&self) -> Option<f64> {
        self.mean(self.rouge_l_sum)
    }

    /// BLEU of all answers together, from 0 to 100: no mean of theirs.
    #[must_use]
    pub fn bleu(&self) -> Option<f64> {
        (self.records > 0).then(|| self.bleu.score())
    }

    /// Whether the counts can be those of answers: no more is right than there is, and none is beyond [`figure::MOST`].
    #[must_use]
    pub fn is_legal(&self) -> bool {
        let most = self.records as f64;
        let within = |sum: f64| (0.0..=most * (1.0 + 1e-9)).contains(&sum);
        let bleu = &self.bleu;
        let counted = bleu.common.iter().zip(&bleu.total);
        let words = [self.records, bleu.answer, bleu.wanted];
        let mut counts = words.iter().chain(&bleu.total);
        counts.all(|count| *count <= figure::MOST)
            && self.exact <= self.records
            && within(self.f1_sum)
            && within(self.rouge_l_sum)
            && counted.into_iter().all(|(common, total)| common <= total)
    }

    fn mean(&self, sum: f64) -> Option<f64> {
        (self.records > 0).then(|| sum / self.records as f64)
    }
}

impl Bleu {
    /// From 0 to 100. Orders without a common sequence count half, a quarter, … of one, as the package sacrebleu
    /// smooths by default.
    #[must_use]
    pub fn score(&self) -> f64 {
        let (mut logarithms, mut orders, mut smooth) = (0.0, 0, 1.0);
        for (common, total) in self.common.iter().zip(&self.total) {
            if *total == 0 {
                // No answer has so many words: orders end here.
                break;
            }
            let precision = if *common == 0 {
                smooth *= 2.0;
                1.0 / (smooth * *total as f64)
            } else {
                *common as f64 / *total as f64
            };
            logarithms += precision.ln();
            orders += 1;
        }
        if orders == 0 || self.common.first() == Some(&0) {
            return 0.0;
        }
        let (answer, wanted) = (self.answer as f64, self.wanted as f64);
        let penalty = (1.0 - wanted / answer).min(0.0).exp();
        100.0 * penalty * (logarithms / f64::from(orders)).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of "the cat is on the mat" beside "the cat sat on the mat": precisions 5/6, 3/5, 1/4 and no four.
    fn counts() -> Answers {
        Answers {
            records: 1,
            exact: 0,
            f1_sum: 0.75,
            rouge_l_sum: 0.5,
            bleu: Bleu {
                common: [5, 3, 1, 0],
                total: [6, 5, 4, 3],
                answer: 6,
                wanted: 6,
            },
        }
    }

    #[test]
    fn figures_are_weighted_by_records_and_bleu_is_of_the_corpus() {
        let mut sum = Answers::default();
        assert_eq!((sum.f1(), sum.bleu()), (None, None));
        sum.merge(&counts());
        let alone = 100.0 * f64::powf(5.0 / 6.0 * (3.0 / 5.0) * 0.25 * (1.0 / 6.0), 0.25);
        assert!((sum.bleu().expect("answers") - alone).abs() < 1e-9);
        let three = Answers {
            records: 3,
            exact: 3,
            f1_sum: 3.0,
            rouge_l_sum: 3.0,
            ..Answers::default()
        };
        sum.merge(&three);
        assert_eq!(sum.exact_match(), Some(0.75));
        assert_eq!(sum.f1(), Some(3.75 / 4.0));
        assert_eq!(sum.rouge_l(), Some(3.5 / 4.0));
        assert!((sum.bleu().expect("answers") - alone).abs() < 1e-9);
    }

    #[test]
    fn more_right_than_there_is_cannot_be() {
        assert!(counts().is_legal());
        let too_exact = Answers {
            exact: 2,
            ..counts()
        };
        let no_number = Answers {
            f1_sum: f64::NAN,
            ..counts()
        };
        let mut too_common = counts();
        too_common.bleu.common[3] = 4;
        let too_many = Answers {
            records: u64::MAX,
            ..counts()
        };
        let mut too_long = counts();
        too_long.bleu.answer = u64::MAX;
        let mut beyond = counts();
        beyond.bleu.total[0] = u64::MAX;
        for counts in [too_exact, no_number, too_common, too_many, too_long, beyond] {
            assert!(!counts.is_legal(), "{counts:?}");
        }
    }
}

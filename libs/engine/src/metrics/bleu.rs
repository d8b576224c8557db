//! BLEU over a corpus (Papineni et al., 2002): sequences of one to four words that are in the wanted text too, and a
//! penalty for being short. Orders without a common sequence count half, a quarter, … of one, as the package sacrebleu
//! smooths by default.

use std::collections::HashMap;

const ORDERS: usize = 4;

/// The counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bleu {
    common: [u64; ORDERS],
    total: [u64; ORDERS],
    answer: u64,
    wanted: u64,
}

impl Bleu {
    pub(super) fn add(&mut self, answer: &[String], wanted: &[String]) {
        self.answer += answer.len() as u64;
        self.wanted += wanted.len() as u64;
        let orders = self.common.iter_mut().zip(&mut self.total);
        for (order, (common, total)) in (1..).zip(orders) {
            let mut left: HashMap<&[String], u64> = HashMap::new();
            for sequence in wanted.windows(order) {
                *left.entry(sequence).or_default() += 1;
            }
            for sequence in answer.windows(order) {
                *total += 1;
                if let Some(count) = left.get_mut(sequence).filter(|count| **count > 0) {
                    *count -= 1;
                    *common += 1;
                }
            }
        }
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        let own = self.common.iter_mut().chain(&mut self.total);
        let others = other.common.iter().chain(&other.total);
        own.zip(others).for_each(|(own, other)| *own += other);
        self.answer += other.answer;
        self.wanted += other.wanted;
        self
    }

    /// From 0 to 100.
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

    fn bleu(pairs: &[(&str, &str)]) -> f64 {
        let mut bleu = Bleu::default();
        for (answer, wanted) in pairs {
            let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
            bleu.add(&words(answer), &words(wanted));
        }
        bleu.score()
    }

    #[test]
    fn scores_are_those_that_one_computes_by_hand() {
        let long = "the quick brown fox jumps over it";
        assert!((bleu(&[(long, long)]) - 100.0).abs() < 1e-9);
        // Precisions 5/6, 3/5, 1/4, and no four: half of 1/3.
        let got = bleu(&[("the cat is on the mat", "the cat sat on the mat")]);
        let want = 5.0 / 6.0 * (3.0 / 5.0) * (1.0 / 4.0) * (1.0 / 6.0);
        let want = 100.0 * f64::powf(want, 0.25);
        assert!((got - want).abs() < 1e-9, "{got} {want}");
        // Half as long: e^(1 − 8/4).
        let got = bleu(&[("a b c d", "a b c d e f g h")]);
        assert!((got - 100.0 * (-1.0f64).exp()).abs() < 1e-9);
        // Repetition is clipped: one of seven, then nothing.
        let got = bleu(&[("the the the the the the the", "the cat is on a mat now")]);
        let want = 1.0 / 7.0 * (1.0 / 12.0) * (1.0 / 20.0) * (1.0 / 32.0);
        assert!((got - 100.0 * f64::powf(want, 0.25)).abs() < 1e-9);
        assert_eq!(bleu(&[("x y", "a b")]), 0.0);
        // A corpus is no mean of its sentences.
        let both = bleu(&[("a b c d", "a b c d"), ("x", "y")]);
        assert!(both > 50.0 && both < 100.0);
    }
}

//! How near generated answers come to the wanted ones: exact match, F1 of words, ROUGE-L, BLEU.
//!
//! Promises: figures of several parts add up to those of the whole, weighted by records (BLEU by its counts, as it is
//! defined for a corpus). Does not: generate, or read data.

mod bleu;
mod overlap;
mod words;

pub use bleu::Bleu;

/// Figures over a number of answers; add those of several parts up with [`Answers::merge`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    records: u64,
    exact: u64,
    f1: f64,
    rouge_l: f64,
    bleu: Bleu,
}

impl Answers {
    /// Takes in one answer.
    pub fn add(&mut self, answer: &str, wanted: &str) {
        self.records += 1;
        self.exact += u64::from(answer.trim() == wanted.trim());
        self.f1 += overlap::f1(&words::bare(answer), &words::bare(wanted));
        self.rouge_l += overlap::rouge_l(&words::plain(answer), &words::plain(wanted));
        self.bleu
            .add(&words::marked(answer), &words::marked(wanted));
    }

    /// The figures of both together.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            exact: self.exact + other.exact,
            f1: self.f1 + other.f1,
            rouge_l: self.rouge_l + other.rouge_l,
            bleu: self.bleu.merge(other.bleu),
        }
    }

    /// How many answers.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// The share of answers that are what was wanted, but for blanks around them.
    #[must_use]
    pub fn exact_match(&self) -> Option<f64> {
        self.mean(self.exact as f64)
    }

    /// The mean over answers of the harmonic mean of precision and recall of their words, without case,
    /// punctuation and articles (as `SQuAD`'s script, arXiv 1606.05250).
    #[must_use]
    pub fn f1(&self) -> Option<f64> {
        self.mean(self.f1)
    }

    /// The mean over answers of ROUGE-L's F: the longest common subsequence of words, without case and punctuation
    /// (Lin, "ROUGE", 2004; with β = 1 as the package rouge-score).
    #[must_use]
    pub fn rouge_l(&self) -> Option<f64> {
        self.mean(self.rouge_l)
    }

    /// BLEU of all answers together, from 0 to 100 (Papineni et al., 2002).
    #[must_use]
    pub fn bleu(&self) -> Option<f64> {
        (self.records > 0).then(|| self.bleu.score())
    }

    fn mean(&self, sum: f64) -> Option<f64> {
        (self.records > 0).then(|| sum / self.records as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        let pairs = [
            ("The cat sat.", "the cat sat"),
            (" yes ", "yes"),
            ("no", "yes"),
            ("a dog runs in the park today", "the dog runs in a park"),
        ];
        let of = |pairs: &[(&str, &str)]| {
            let mut answers = Answers::default();
            pairs
                .iter()
                .for_each(|(answer, wanted)| answers.add(answer, wanted));
            answers
        };
        let whole = of(&pairs);
        assert_eq!(of(&pairs[..1]).merge(of(&pairs[1..])), whole);
        assert_eq!(whole.exact_match(), Some(0.25));
        assert_eq!(whole.records(), 4);
        // 1, 1, 0, and of dog runs in park (today): 4 of 5 and 4 of 4.
        let last = 2.0 * 0.8 / 1.8;
        assert!((whole.f1().unwrap() - (2.0 + last) / 4.0).abs() < 1e-12);
        assert_eq!(Answers::default().bleu(), None);
    }
}

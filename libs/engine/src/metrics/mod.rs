//! How near a generated answer comes to the wanted one: exact match, F1 of words, ROUGE-L, BLEU.
//!
//! Promises: figures of several parts add up to those of the whole, weighted by records (BLEU by its counts, as it is
//! defined for a corpus): they are [`domain::round::Answers`]. Does not: generate, or read data.

mod bleu;
mod overlap;
mod words;

use domain::round::Answers;

/// The counts of one answer.
///
/// F1 is of words without case, punctuation and articles (as `SQuAD`'s script, arXiv 1606.05250), ROUGE-L of the longest
/// common subsequence of words without case and punctuation (Lin, "ROUGE", 2004; with β = 1 as the package rouge-score).
#[must_use]
pub fn compare(answer: &str, wanted: &str) -> Answers {
    Answers {
        records: 1,
        exact: u64::from(answer.trim() == wanted.trim()),
        f1_sum: overlap::f1(&words::bare(answer), &words::bare(wanted)),
        rouge_l_sum: overlap::rouge_l(&words::plain(answer), &words::plain(wanted)),
        bleu: bleu::counts(&words::marked(answer), &words::marked(wanted)),
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
            for (answer, wanted) in pairs {
                answers.merge(&compare(answer, wanted));
            }
            answers
        };
        let whole = of(&pairs);
        let mut parts = of(&pairs[..1]);
        parts.merge(&of(&pairs[1..]));
        assert_eq!(parts, whole);
        assert!(whole.is_legal());
        assert_eq!(whole.exact_match(), Some(0.25));
        assert_eq!(whole.records, 4);
        // 1, 1, 0, and of dog runs in park (today): 4 of 5 and 4 of 4.
        let last = 2.0 * 0.8 / 1.8;
        assert!((whole.f1().unwrap() - (2.0 + last) / 4.0).abs() < 1e-12);
        assert_eq!(Answers::default().bleu(), None);
    }
}

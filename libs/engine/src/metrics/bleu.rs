//! What BLEU counts (Papineni et al., 2002): sequences of one to four words that are in the wanted text too. What
//! follows from the counts of a corpus is [`Bleu::score`].

use std::collections::HashMap;

use domain::round::answers::Bleu;

/// Of one answer.
pub(super) fn counts(answer: &[String], wanted: &[String]) -> Bleu {
    let mut counts = Bleu {
        answer: answer.len() as u64,
        wanted: wanted.len() as u64,
        ..Bleu::default()
    };
    let orders = counts.common.iter_mut().zip(&mut counts.total);
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
    counts
}

#[cfg(test)]
mod tests {
    use domain::round::Answers;

    use super::*;

    fn bleu(pairs: &[(&str, &str)]) -> f64 {
        let mut all = Answers::default();
        for (answer, wanted) in pairs {
            let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
            all.merge(&Answers {
                records: 1,
                bleu: counts(&words(answer), &words(wanted)),
                ..Answers::default()
            });
        }
        all.bleu().unwrap()
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

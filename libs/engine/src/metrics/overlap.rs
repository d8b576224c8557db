//! What two lists of words have in common: as bags, and in order.

use std::collections::HashMap;

/// The harmonic mean of precision and recall of the words as bags. Two empty lists agree.
pub(super) fn f1(answer: &[String], wanted: &[String]) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in wanted {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0;
    for word in answer {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    harmonic(common, answer.len(), wanted.len())
}

/// The same of the longest common subsequence.
pub(super) fn rouge_l(answer: &[String], wanted: &[String]) -> f64 {
    // Row by row: the longest so far of each beginning of what is wanted.
    let mut row = vec![0; wanted.len()];
    for word in answer {
        let (mut diagonal, mut left) = (0, 0);
        for (own, other) in row.iter_mut().zip(wanted) {
            let longest = if word == other {
                diagonal + 1
            } else {
                left.max(*own)
            };
            diagonal = *own;
            *own = longest;
            left = longest;
        }
    }
    harmonic(row.last().copied().unwrap_or(0), answer.len(), wanted.len())
}

fn harmonic(common: usize, answer: usize, wanted: usize) -> f64 {
    if answer == 0 && wanted == 0 {
        return 1.0;
    }
    // 2pr / (p + r), with the common count taken out.
    2.0 * common as f64 / (answer + wanted) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn bags_count_repetitions_and_subsequences_the_order() {
        let (a, b) = (words("a b b c"), words("b c b d e"));
        assert_eq!(f1(&a, &b), 2.0 * 3.0 / 9.0);
        assert_eq!(rouge_l(&a, &b), 2.0 * 2.0 / 9.0);
        // The example of the ROUGE paper: police killed the gunman / police kill the gunman.
        let (a, b) = (
            words("police kill the gunman"),
            words("police killed the gunman"),
        );
        assert_eq!(rouge_l(&a, &b), 0.75);
        let turned = words("the gunman kill police");
        assert_eq!(rouge_l(&turned, &b), 0.5);
        assert_eq!(
            (f1(&[], &[]), f1(&a, &[]), rouge_l(&[], &b)),
            (1.0, 0.0, 0.0)
        );
    }
}

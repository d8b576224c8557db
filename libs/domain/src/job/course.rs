//! How a job's scores go from round to round: which round is the best, whether to go on, and with
//! which round's adapter the job ends.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::rounds::{Keep, Rounds};
use crate::artifact::ArtifactRef;
use crate::id::WorkerName;
use crate::round::{Answers, Score};

/// What scores are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// More is better; for jobs with choices.
    BalancedAccuracy,
    /// More is better; for jobs with choices.
    Accuracy,
    /// Less is better; for jobs without.
    Loss,
    /// Less is better: `e` to the loss.
    Perplexity,
    /// More is better, as with those below: the share of generated answers that are the wanted ones.
    ExactMatch,
    /// Words that generated answers share with the wanted ones.
    F1,
    /// The same of their longest common subsequence.
    RougeL,
    /// Sequences of words that they share, from 0 to 100.
    Bleu,
}

impl Measure {
    /// As a job file says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BalancedAccuracy => "balanced_accuracy",
            Self::Accuracy => "accuracy",
            Self::Loss => "loss",
            Self::Perplexity => "perplexity",
            Self::ExactMatch => "exact_match",
            Self::F1 => "f1",
            Self::RougeL => "rouge_l",
            Self::Bleu => "bleu",
        }
    }

    /// Whether it is of answers among choices.
    #[must_use]
    pub const fn needs_choices(self) -> bool {
        matches!(self, Self::BalancedAccuracy | Self::Accuracy)
    }

    /// Whether it is of generated answers.
    #[must_use]
    pub const fn needs_answers(self) -> bool {
        matches!(
            self,
            Self::ExactMatch | Self::F1 | Self::RougeL | Self::Bleu
        )
    }

    /// Whether every event of a score tells it by itself.
    #[must_use]
    pub const fn is_told_apart(self) -> bool {
        matches!(self, Self::Loss | Self::BalancedAccuracy)
    }

    const fn less_is_better(self) -> bool {
        matches!(self, Self::Loss | Self::Perplexity)
    }
}

/// A score in one number, which is finite.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is.
    pub measure: Measure,
    /// The number.
    pub value: f64,
}

impl Figure {
    /// The number that a score is compared by, if it has one: a score of no records has none.
    #[must_use]
    pub fn of(score: &Score, measure: Measure) -> Option<Self> {
        let answers = score.answers.as_ref();
        let value = match measure {
            Measure::BalancedAccuracy => score.balanced_accuracy(),
            Measure::Accuracy => score.accuracy(),
            Measure::Loss => score.loss(),
            Measure::Perplexity => score.perplexity(),
            Measure::ExactMatch => answers.and_then(Answers::exact_match),
            Measure::F1 => answers.and_then(Answers::f1),
            Measure::RougeL => answers.and_then(Answers::rouge_l),
            Measure::Bleu => answers.and_then(Answers::bleu),
        };
        let value = value.filter(|value| value.is_finite())?;
        Some(Self { measure, value })
    }

    /// How much better than `other` it is; below 0 if it is worse.
    #[must_use]
    pub fn gain_over(&self, other: &Self) -> f64 {
        if self.measure.less_is_better() {
            other.value - self.value
        } else {
            self.value - other.value
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value) = (self.measure.name().replace('_', " "), self.value);
        match self.measure {
            Measure::Loss => write!(f, "{name} {value:.4}"),
            Measure::Perplexity | Measure::Bleu => write!(f, "{name} {value:.2}"),
            _ => write!(f, "{name} {value:.3}"),
        }
    }
}

/// A round, its adapter and its score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Which round; 0 is the untrained adapter.
    pub round: u32,
    /// Its merged adapter.
    pub global: ArtifactRef,
    /// Its score.
    pub figure: Figure,
    /// Whose held-out records it is of, ordered by name.
    pub sites: Vec<WorkerName>,
}

/// The round whose adapter a job ends with, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Which round.
    pub round: u32,
    /// The last round that was trained.
    pub last: u32,
    /// Its score, if it has one.
    pub figure: Option<Figure>,
    /// Why this round, in a sentence.
    pub why: String,
    /// Why training stopped before the last round asked for, in a sentence; absent if it did not.
    pub stopped_early: Option<String>,
}

/// The scores so far, as far as what follows depends on them. Only scores of the same sites are compared:
/// with the first of others, after a site was lost or came back, everything starts again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Course {
    /// Scores of the present sites.
    pub scores: u32,
    /// The best round of these; of equals the earliest.
    pub best: Option<Scored>,
    /// The latest score, and so the present sites.
    pub latest: Option<Scored>,
    /// What a score must be better than, by more than the job's `min_delta`, to be an improvement.
    pub mark: Option<Figure>,
    /// Scores since the last improvement.
    pub without_improvement: u32,
    /// What the job ended with.
    pub kept: Option<Kept>,
}

impl Course {
    /// The course after one more score.
    #[must_use]
    pub fn after(&self, scored: Scored, rounds: &Rounds) -> Self {
        let others = |latest: &Scored| latest.sites != scored.sites;
        if self.latest.as_ref().is_some_and(others) {
            let again = Self {
                kept: self.kept.clone(),
                ..Self::default()
            };
            return again.after(scored, rounds);
        }
        let figure = scored.figure;
        let gains =
            |by: f64, than: Option<&Figure>| than.is_none_or(|other| figure.gain_over(other) > by);
        let improves = gains(rounds.min_delta.unwrap_or(0.0), self.mark.as_ref());
        let is_best = gains(0.0, self.best.as_ref().map(|best| &best.figure));
        Self {
            scores: self.scores + 1,
            best: if is_best {
                Some(scored.clone())
            } else {
                self.best.clone()
            },
            latest: Some(scored),
            mark: if improves { Some(figure) } else { self.mark },
            without_improvement: if improves {
                0
            } else {
                self.without_improvement + 1
            },
            kept: self.kept.clone(),
        }
    }

    /// Whether the job's patience is at its end.
    #[must_use]
    pub fn is_out_of_patience(&self, rounds: &Rounds) -> bool {
        rounds
            .patience
            .is_some_and(|patience| self.without_improvement >= patience)
    }

    /// What a job ends with whose last trained round is `last`, with this adapter.
    #[must_use]
    pub fn conclude(
        &self,
        last: u32,
        global: &ArtifactRef,
        rounds: &Rounds,
    ) -> (ArtifactRef, Kept) {
        let best = self.best.as_ref().filter(|_| rounds.keep == Keep::Best);
        let latest = self.latest.as_ref().filter(|latest| latest.round == last);
        let (round, global, figure, why) = match best {
            Some(best) => {
                let why = format!("the best of {} scores: {}", self.scores, best.figure);
                (best.round, best.global.clone(), Some(best.figure), why)
            }
            None => {
                let figure = latest.map(|latest| latest.figure);
                let scored = figure.map_or_else(String::new, |figure| format!(": {figure}"));
                (last, global.clone(), figure, format!("the last{scored}"))
            }
        };
        let stopped_early = (last < rounds.count).then(|| {
            let by = rounds.min_delta.filter(|delta| *delta > 0.0);
            let by = by.map_or_else(String::new, |delta| format!(" by more than {delta}"));
            let mark = self
                .mark
                .map_or_else(String::new, |mark| format!(" than {mark}"));
            let count = self.without_improvement;
            let in_a_row = if count == 1 {
                "the last score was".to_owned()
            } else {
                format!("none of the last {count} scores was")
            };
            let not = if count == 1 { " not" } else { "" };
            format!("{in_a_row}{not} better{mark}{by}")
        });
        let kept = Kept {
            round,
            last,
            figure,
            why,
            stopped_early,
        };
        (global, kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Digest;

    fn scored(round: u32, measure: Measure, value: f64) -> Scored {
        let byte = u8::try_from(round).expect("few rounds");
        Scored {
            round,
            global: ArtifactRef {
                key: format!("round-{round}"),
                sha256: Digest::from_bytes(&[byte; 32]),
                bytes: 1,
            },
            figure: Figure { measure, value },
            sites: vec!["a".parse().expect("legal"), "b".parse().expect("legal")],
        }
    }

    /// The round after which it stops, the round kept and the sentences.
    fn run(measure: Measure, values: &[f64], rounds: &Rounds) -> (Kept, ArtifactRef) {
        let mut course = Course::default();
        for (round, value) in (0u32..).zip(values) {
            let one = scored(round, measure, *value);
            course = course.after(one.clone(), rounds);
            if course.is_out_of_patience(rounds) || round == rounds.count {
                let (global, kept) = course.conclude(round, &one.global, rounds);
                return (kept, global);
            }
        }
        panic!("it neither stopped nor reached its last round");
    }

    fn rounds(keep: Keep, patience: Option<u32>, min_delta: Option<f64>) -> Rounds {
        Rounds {
            count: 5,
            keep,
            patience,
            min_delta,
            ..Rounds::default()
        }
    }

    #[test]
    fn the_best_round_is_kept_whichever_way_the_measure_points_and_of_equals_the_earliest() {
        let best = rounds(Keep::Best, None, None);
        let accuracy = [0.5, 0.6, 0.9, 0.7, 0.9, 0.8];
        let (kept, global) = run(Measure::BalancedAccuracy, &accuracy, &best);
        assert_eq!(
            (kept.round, kept.last, global.key.as_str()),
            (2, 5, "round-2")
        );
        assert_eq!(kept.why, "the best of 6 scores: balanced accuracy 0.900");
        assert_eq!(kept.stopped_early, None);
        let (kept, _) = run(Measure::Loss, &[3.0, 2.0, 1.0, 1.0, 2.0, 4.0], &best);
        assert_eq!(kept.round, 2);
        let (kept, _) = run(Measure::Loss, &[1.0, 2.0, 2.0, 2.0, 2.0, 2.0], &best);
        assert_eq!(kept.round, 0, "training that only harms is not kept");
        let last = rounds(Keep::Last, None, None);
        let (kept, global) = run(Measure::BalancedAccuracy, &accuracy, &last);
        assert_eq!((kept.round, global.key.as_str()), (5, "round-5"));
        assert_eq!(kept.why, "the last: balanced accuracy 0.800");
    }

    #[test]
    fn patience_ends_after_so_many_scores_that_are_not_better_by_more_than_the_delta() {
        let values = [3.0, 2.0, 1.95, 1.93, 1.9, 1.0];
        let strict = rounds(Keep::Best, Some(2), Some(0.1));
        let (kept, _) = run(Measure::Loss, &values, &strict);
        assert_eq!((kept.last, kept.round), (3, 3));
        assert_eq!(
            kept.stopped_early.as_deref(),
            Some("none of the last 2 scores was better than loss 2.0000 by more than 0.1")
        );
        let lax = rounds(Keep::Last, Some(2), None);
        let (kept, _) = run(Measure::Loss, &values, &lax);
        assert_eq!((kept.last, kept.stopped_early), (5, None));
        let (kept, _) = run(
            Measure::Loss,
            &[1.0, 1.0],
            &rounds(Keep::Last, Some(1), None),
        );
        assert_eq!(
            kept.stopped_early.as_deref(),
            Some("the last score was not better than loss 1.0000")
        );
    }

    #[test]
    fn scores_of_other_sites_are_not_compared() {
        let rounds = rounds(Keep::Best, Some(2), None);
        let mut course = Course::default();
        for (round, value) in [(0, 2.0), (1, 1.9)] {
            course = course.after(scored(round, Measure::Loss, value), &rounds);
        }
        // b, whose records are the hard ones, is lost: the loss falls, and nothing has improved.
        let without = |round, value| {
            let mut one = scored(round, Measure::Loss, value);
            one.sites.pop();
            one
        };
        course = course.after(without(2, 1.0), &rounds);
        assert_eq!((course.scores, course.without_improvement), (1, 0));
        course = course.after(without(3, 0.9), &rounds);
        assert_eq!(course.best.as_ref().map(|best| best.round), Some(3));
        // It comes back: what was better without it is no mark for what follows.
        course = course.after(scored(4, Measure::Loss, 1.8), &rounds);
        assert_eq!(course.best.as_ref().map(|best| best.round), Some(4));
        course = course.after(scored(5, Measure::Loss, 1.7), &rounds);
        assert_eq!((course.scores, course.without_improvement), (2, 0));
    }

    #[test]
    fn every_measure_points_its_own_way() {
        let mut score = Score {
            records: 4,
            loss_sum: 2.0,
            labelled_tokens: 4,
            confusion: vec![vec![3, 0], vec![1, 0]],
            ..Score::default()
        };
        score.answers = Some(Answers {
            records: 4,
            exact: 1,
            f1_sum: 2.0,
            rouge_l_sum: 3.0,
            ..Answers::default()
        });
        let check = |measure: Measure, value: f64, words: &str, better: f64| {
            let figure = Figure::of(&score, measure).expect("a figure");
            assert!((figure.value - value).abs() < 1e-12, "{figure:?}");
            assert_eq!(figure.to_string(), words);
            let other = Figure {
                measure,
                value: better,
            };
            assert!(other.gain_over(&figure) > 0.0, "{measure:?}");
            let name = serde_json::to_value(measure).expect("a name");
            assert_eq!(name, measure.name());
        };
        check(
            Measure::BalancedAccuracy,
            0.5,
            "balanced accuracy 0.500",
            0.6,
        );
        check(Measure::Accuracy, 0.75, "accuracy 0.750", 0.8);
        check(Measure::Loss, 0.5, "loss 0.5000", 0.4);
        check(Measure::Perplexity, 0.5f64.exp(), "perplexity 1.65", 1.5);
        check(Measure::ExactMatch, 0.25, "exact match 0.250", 0.5);
        check(Measure::F1, 0.5, "f1 0.500", 0.6);
        check(Measure::RougeL, 0.75, "rouge l 0.750", 0.8);
        check(Measure::Bleu, 0.0, "bleu 0.00", 1.0);
    }

    #[test]
    fn a_score_of_no_records_or_that_is_not_finite_has_no_figure() {
        let mut score = Score::default();
        for measure in [Measure::BalancedAccuracy, Measure::Loss] {
            assert_eq!(Figure::of(&score, measure), None);
        }
        score.labelled_tokens = 1;
        score.loss_sum = f64::NAN;
        assert_eq!(Figure::of(&score, Measure::Loss), None);
    }
}

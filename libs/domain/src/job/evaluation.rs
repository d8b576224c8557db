//! The `evaluation` section of a job file: what is asked of the sites' held-out records, and what rounds are compared by.

use serde::{Deserialize, Serialize};

use super::course::Measure;
use super::spec::Spec;

/// Scoring on the sites' held-out records, before training, after rounds, and at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// After every so many rounds; the first and the last score are always taken.
    #[serde(default = "one")]
    pub every: u32,
    /// Held-out records per site after a round; absent: all of them. The first and the last score use all.
    #[serde(default)]
    pub sample: Option<u32>,
    /// Candidate completions; the likeliest one is the answer. Empty: loss alone.
    #[serde(default)]
    pub choices: Vec<String>,
    /// Answers that the sites generate and compare with the records' own: exact match, F1, ROUGE-L, BLEU. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
    /// What scores are compared by; absent: balanced accuracy if there are choices, else the loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure: Option<Measure>,
}

/// How much is generated: a token of an answer takes a pass through the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answers {
    /// Held-out records of each site that are answered, at most; the same ones in every round.
    pub records: u32,
    /// Tokens of an answer at most.
    pub tokens: u16,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            records: 64,
            tokens: 32,
        }
    }
}

/// Limits of [`Answers`].
const RECORDS_LIMIT: u32 = 10_000;
const TOKENS_LIMIT: u16 = 1024;

impl Evaluation {
    /// Refuses what cannot be meant, or does not go with the rest of the job.
    pub(super) fn check(&self, spec: &Spec, refuse: &mut impl FnMut(&str, String)) {
        let long = |choice: &String| choice.is_empty() || choice.len() > 200;
        let (count, long) = (self.choices.len(), self.choices.iter().any(long));
        if count == 1 || count > 64 || long {
            refuse(
                "evaluation.choices",
                "give none, or 2 to 64 completions of 1 to 200 bytes".to_owned(),
            );
        }
        if self.every == 0 || self.sample == Some(0) {
            refuse("evaluation", "`every` and `sample` start at 1".to_owned());
        }
        if let Some(answers) = self.answers {
            if !(1..=RECORDS_LIMIT).contains(&answers.records) {
                let problem = format!("use 1 to {RECORDS_LIMIT}");
                refuse("evaluation.answers.records", problem);
            }
            if !(1..=TOKENS_LIMIT).contains(&answers.tokens) {
                let problem = format!("use 1 to {TOKENS_LIMIT}");
                refuse("evaluation.answers.tokens", problem);
            }
        }
        if spec.training.classifies() && self.answers.is_some() {
            let problem =
                "a classification head answers with a class, and generates nothing: leave it out";
            refuse("evaluation.answers", problem.to_owned());
        }
        let compares = spec.rounds.compares_scores();
        let measure = spec.measure().unwrap_or(Measure::Loss);
        if measure.needs_choices() && spec.classes().is_empty() {
            let problem = "it is of answers among choices: give evaluation.choices";
            refuse("evaluation.measure", problem.to_owned());
        }
        if measure.needs_answers() && self.answers.is_none() {
            let problem = "it is of generated answers: give evaluation.answers";
            refuse("evaluation.measure", problem.to_owned());
        }
        // Answers are of the same records each time, whatever the sample.
        if self.sample.is_some() && compares && !measure.needs_answers() {
            refuse(
                "evaluation.sample",
                "`rounds.keep: best` and `rounds.patience` compare scores, and the first and the \
                 last are of all records: leave `sample` out"
                    .to_owned(),
            );
        }
    }
}

const fn one() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str, rounds: &str) -> Spec {
        let text = format!(
            r#"{{"name":"n","model":{{"source":"file:///m"}},"data":{{"dataset":"d"}},
                "rounds":{rounds},"evaluation":{json}}}"#
        );
        serde_json::from_str(&text).expect(&text)
    }

    fn check(json: &str, compares: bool, expected: &[&str]) {
        let rounds = if compares { r#"{"keep":"best"}"# } else { "{}" };
        let refusals = spec(json, rounds).check().err().unwrap_or_default();
        let fields = refusals
            .iter()
            .map(|one| one.field.trim_start_matches("evaluation."));
        assert_eq!(fields.collect::<Vec<_>>(), expected, "{json}");
    }

    #[test]
    fn a_measure_needs_what_it_is_taken_from() {
        check("{}", true, &[]);
        check(r#"{"measure":"perplexity"}"#, true, &[]);
        check(r#"{"measure":"accuracy"}"#, true, &["measure"]);
        let choices = r#""choices":[" yes"," no"]"#;
        check(&format!(r#"{{{choices},"measure":"accuracy"}}"#), true, &[]);
        for measure in ["exact_match", "f1", "rouge_l", "bleu"] {
            check(&format!(r#"{{"measure":"{measure}"}}"#), true, &["measure"]);
            check(
                &format!(r#"{{"measure":"{measure}","answers":{{"records":16}}}}"#),
                true,
                &[],
            );
        }
        check(
            r#"{"answers":{"records":0,"tokens":2000}}"#,
            false,
            &["answers.records", "answers.tokens"],
        );
    }

    #[test]
    fn a_sample_is_no_basis_for_comparing_all_records() {
        check(r#"{"sample":8}"#, false, &[]);
        check(r#"{"sample":8}"#, true, &["sample"]);
        check(r#"{"sample":8,"answers":{},"measure":"f1"}"#, true, &[]);
    }

    #[test]
    fn what_was_not_said_follows_from_the_choices() {
        let measure = |json: &str| spec(json, "{}").measure().expect("it is scored");
        assert_eq!(measure("{}"), Measure::Loss);
        assert_eq!(
            measure(r#"{"choices":["a","b"]}"#),
            Measure::BalancedAccuracy
        );
        assert_eq!(measure(r#"{"answers":{},"measure":"f1"}"#), Measure::F1);
    }
}

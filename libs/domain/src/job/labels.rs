//! Classification in a job file: by a head of its own, `training.labels`, or by words, `training.choices`; and what may stand
//! beside them.

use std::collections::BTreeSet;

use super::aggregation::ServerKind;
use super::choice::Choice;
use super::course::Measure;
use super::spec::{Optimizer, Spec, Training};
use crate::adapter::Projection;

/// The most classes that a job's head tells apart.
pub const LABEL_LIMIT: usize = 64;

impl Training {
    /// Whether records are classified by a head of their own, trained in full beside the adapter, rather than words
    /// learned.
    #[must_use]
    pub const fn classifies(&self) -> bool {
        !self.labels.is_empty()
    }
}

impl Spec {
    /// What answers are counted by, in the order of their counts: the labels, or the choices.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        match self.training.classifies() {
            true => &self.training.labels,
            false => self.choices(),
        }
    }

    /// The candidate completions that held-out records are scored by: the evaluation's, or those that the training is
    /// among; none where the job is not scored.
    #[must_use]
    pub fn choices(&self) -> &[String] {
        match &self.evaluation {
            None => &[],
            Some(own) if own.choices.is_empty() => &self.training.choices,
            Some(own) => &own.choices,
        }
    }

    /// Rows of tokens that a held-out record is scored with: one for each choice, of which a model says how likely its words
    /// are; a single one where the loss is among the choices, or there are none.
    #[must_use]
    pub fn scored_rows(&self) -> usize {
        match self.training.choices.is_empty() {
            true => self.choices().len().max(1),
            false => 1,
        }
    }

    /// What scores of the job are compared by: what it says, or balanced accuracy where there are classes, else the
    /// loss; none where it is not scored.
    #[must_use]
    pub fn measure(&self) -> Option<Measure> {
        let asked = self.evaluation.as_ref()?.measure;
        Some(asked.unwrap_or(if self.classes().is_empty() {
            Measure::Loss
        } else {
            Measure::BalancedAccuracy
        }))
    }

    /// Refuses answers that a loss cannot be among. Whether each is one token only the model's tokenizer knows: a site says
    /// so.
    pub(super) fn check_choices(&self, refuse: &mut impl FnMut(&str, String)) {
        let choices = &self.training.choices;
        if choices.is_empty() {
            return;
        }
        if !are_classes(choices) {
            refuse(
                "training.choices",
                format!("give none, or 2 to {LABEL_LIMIT} different answers of 1 to 200 bytes"),
            );
        }
        if self.training.classifies() {
            let problem = "labels are told apart by a head, choices by words: give one of them";
            refuse("training.choices", problem.to_owned());
        }
        if self.choices() != choices && !self.choices().is_empty() {
            let problem = "a job with training.choices is scored among these: leave it out, or give the same in the same order";
            refuse("evaluation.choices", problem.to_owned());
        }
    }

    /// Refuses what no head can be made of, and what does not go with one.
    pub(super) fn check_labels(&self, refuse: &mut impl FnMut(&str, String)) {
        let labels = &self.training.labels;
        if labels.is_empty() {
            return;
        }
        if !are_classes(labels) {
            refuse(
                "training.labels",
                format!("give none, or 2 to {LABEL_LIMIT} different labels of 1 to 200 bytes"),
            );
        }
        if self.training.optimizer == Optimizer::Mezo {
            refuse(
                "training.optimizer",
                "zeroth-order steps move factors alone, and a classification head is learned in full: use adamw or auto"
                    .to_owned(),
            );
        }
        let aggregation = &self.aggregation;
        if aggregation.strategy.has_side_term() {
            refuse(
                "aggregation.strategy",
                format!(
                    "{} restarts factors beside a side term, and a classification head has none: use product, slice, \
                     fedit, ffa or sum",
                    aggregation.strategy.name()
                ),
            );
        }
        if aggregation.optimizer.kind != ServerKind::Fedavg {
            refuse(
                "aggregation.optimizer.kind",
                format!(
                    "{} keeps moments of factors alone, and a classification head is averaged as it is: use fedavg",
                    aggregation.optimizer.kind.name()
                ),
            );
        }
        if let Choice::Fixed(targets) = &self.adapter.targets
            && targets.contains(&Projection::Gate)
        {
            refuse(
                "adapter.targets",
                "a classification head is an encoder's, whose feed-forward network has no gate: use q, k, v, o, up, \
                 down, or auto"
                    .to_owned(),
            );
        }
        let Some(evaluation) = &self.evaluation else {
            return;
        };
        if !evaluation.choices.is_empty() {
            let problem =
                "a job with training.labels is scored among its labels: leave choices out";
            refuse("evaluation.choices", problem.to_owned());
        }
        if evaluation.answers.is_some() {
            let problem = "an encoder with a classification head writes no answers: leave them out";
            refuse("evaluation.answers", problem.to_owned());
        }
    }
}

/// Whether these are classes that can be told apart, each with a name.
fn are_classes(names: &[String]) -> bool {
    let distinct: BTreeSet<_> = names.iter().collect();
    let named = |name: &String| !name.trim().is_empty() && name.len() <= 200;
    (2..=LABEL_LIMIT).contains(&names.len())
        && distinct.len() == names.len()
        && names.iter().all(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(more: &str) -> Vec<String> {
        let text = format!(
            r#"{{"name":"n","model":{{"source":"file:///m"}},"data":{{"dataset":"d"}},{more}}}"#
        );
        let spec: Spec = serde_json::from_str(&text).expect(&text);
        let refusals = spec.check().err().unwrap_or_default();
        refusals.into_iter().map(|refusal| refusal.field).collect()
    }

    #[test]
    fn labels_are_few_and_different() {
        let with = |labels: &str| refused(&format!(r#""training":{{"labels":{labels}}}"#));
        assert!(with(r#"["ham","spam"]"#).is_empty());
        assert!(with("[]").is_empty());
        for bad in [r#"["ham"]"#, r#"["ham","ham"]"#, r#"["ham"," "]"#] {
            assert_eq!(with(bad), ["training.labels"], "{bad}");
        }
        let many: Vec<String> = (0..=LABEL_LIMIT).map(|n| n.to_string()).collect();
        let many = serde_json::to_string(&many).expect("serializes");
        assert_eq!(with(&many), ["training.labels"]);
    }

    #[test]
    fn a_loss_is_among_few_different_answers_by_which_the_job_is_scored() {
        let with = |choices: &str, rest: &str| {
            refused(&format!(r#""training":{{"choices":{choices}}}{rest}"#))
        };
        let pair = r#"[" yes"," no"]"#;
        assert!(with(pair, "").is_empty());
        assert!(with(pair, r#","evaluation":{}"#).is_empty());
        let same = format!(r#","evaluation":{{"choices":{pair}}}"#);
        assert!(with(pair, &same).is_empty());
        for bad in [r#"[" yes"]"#, r#"[" yes"," yes"]"#, r#"[" yes"," "]"#] {
            assert_eq!(with(bad, ""), ["training.choices"], "{bad}");
        }
        let other = r#","evaluation":{"choices":[" no"," yes"]}"#;
        assert_eq!(with(pair, other), ["evaluation.choices"]);
        let both = format!(r#""training":{{"labels":["a","b"],"choices":{pair}}}"#);
        assert_eq!(refused(&both), ["training.choices"]);
        let zeroth = format!(
            r#""training":{{"optimizer":"mezo","choices":{pair}}},"adapter":{{"rank":8,"rank_max":8}},
               "aggregation":{{"strategy":"sum"}},"evaluation":{{}}"#
        );
        assert!(refused(&zeroth).is_empty());
    }

    #[test]
    fn a_job_trained_among_answers_is_scored_among_them() {
        let text = |rest: &str| {
            format!(
                r#"{{"name":"n","model":{{"source":"file:///m"}},"data":{{"dataset":"d"}},
                   "training":{{"choices":[" yes"," no"]}}{rest}}}"#
            )
        };
        let of = |rest: &str| serde_json::from_str::<Spec>(&text(rest)).expect("a job");
        let scored = of(r#","evaluation":{}"#);
        assert_eq!(scored.classes(), [" yes", " no"]);
        assert_eq!(scored.measure(), Some(Measure::BalancedAccuracy));
        assert_eq!(scored.scored_rows(), 1);
        assert!(of("").choices().is_empty());
    }

    #[test]
    fn what_does_not_go_with_a_head_is_refused_by_its_field() {
        let check = |training: &str, rest: &str, field: &str| {
            let text = format!(r#""training":{{"labels":["a","b"]{training}}}{rest}"#);
            let found = refused(&text);
            assert!(found.iter().any(|own| own == field), "{text}: {found:?}");
        };
        let rank = r#","adapter":{"rank":4}"#;
        check(r#","optimizer":"mezo""#, "", "training.optimizer");
        let residual = format!(r#"{rank},"aggregation":{{"strategy":"residual"}}"#);
        check("", &residual, "aggregation.strategy");
        let adam = format!(
            r#"{rank},"aggregation":{{"strategy":"fedit","optimizer":{{"kind":"fedadam"}}}}"#
        );
        check("", &adam, "aggregation.optimizer.kind");
        check(
            "",
            r#","adapter":{"targets":["q","gate"]}"#,
            "adapter.targets",
        );
        let choices = r#","evaluation":{"choices":["a","b"]}"#;
        check("", choices, "evaluation.choices");
        let answers = r#","evaluation":{"answers":{}}"#;
        check("", answers, "evaluation.answers");
    }

    #[test]
    fn a_job_with_labels_is_counted_by_them_and_trains_by_gradients() {
        let text = r#"{"name":"n","model":{"source":"file:///m"},"data":{"dataset":"d"},"evaluation":{},
            "training":{"labels":["a","b"]}}"#;
        let spec: Spec = serde_json::from_str(text).expect("a job");
        assert_eq!(spec.classes(), ["a", "b"]);
        assert!(!spec.takes_zeroth_order());
        assert_eq!(spec.measure(), Some(Measure::BalancedAccuracy));
    }
}

//! Sequence classification in a job file: `training.labels`, and what may stand beside them.

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
    /// What answers are counted by, in the order of their counts: the labels, or the choices of the evaluation.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        let choices = self.evaluation.as_ref().map(|own| own.choices.as_slice());
        match self.training.classifies() {
            true => &self.training.labels,
            false => choices.unwrap_or_default(),
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

    /// Refuses what no head can be made of, and what does not go with one.
    pub(super) fn check_labels(&self, refuse: &mut impl FnMut(&str, String)) {
        let labels = &self.training.labels;
        if labels.is_empty() {
            return;
        }
        let distinct: std::collections::BTreeSet<_> = labels.iter().collect();
        let long = labels
            .iter()
            .any(|label| label.trim().is_empty() || label.len() > 200);
        if !(2..=LABEL_LIMIT).contains(&labels.len()) || distinct.len() != labels.len() || long {
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

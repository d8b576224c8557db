//! What zeroth-order steps move. A job's sites move adapters alone: what is for one machine is refused with that reason.

use serde::{Deserialize, Serialize};

/// What zeroth-order steps move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parameters {
    /// An adapter beside the model.
    #[default]
    Adapter,
    /// The model itself: on one machine alone, so a job that says it is refused.
    All,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde calls it with"
)]
pub(super) const fn is_adapter(parameters: &Parameters) -> bool {
    matches!(parameters, Parameters::Adapter)
}

impl Parameters {
    pub(super) fn check(self, refuse: &mut impl FnMut(&str, String)) {
        if self == Self::All {
            let problem = "a job's sites train and merge adapters; use adapter, or on one machine \
                           `fedpipe train --optimizer mezo --parameters all`";
            refuse("training.mezo.parameters", problem.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::job::spec::{Spec, Training};

    fn job(optimizer: &str, parameters: &str) -> Spec {
        let strategy = if optimizer == "mezo" {
            "sum"
        } else {
            "product"
        };
        let text = format!(
            r#"{{"name":"j","model":{{"source":"file:///m"}},"data":{{"dataset":"mail"}},
                "aggregation":{{"strategy":"{strategy}"}},"adapter":{{"rank":8,"rank_max":8}},
                "training":{{"optimizer":"{optimizer}","mezo":{{"parameters":"{parameters}"}}}}}}"#
        );
        serde_json::from_str(&text).expect("a job")
    }

    /// All parameters of a model are trained on one machine: see docs/zeroth.md.
    #[test]
    fn a_job_over_all_parameters_is_refused_by_that_field_with_what_to_do() {
        for optimizer in ["mezo", "auto"] {
            let refusals = job(optimizer, "all").check().expect_err("refused");
            let fields: Vec<&str> = refusals.iter().map(|one| one.field.as_str()).collect();
            assert_eq!(fields, ["training.mezo.parameters"]);
            let problem = &refusals[0].problem;
            assert!(problem.contains("train --optimizer mezo --parameters all"));
            assert_eq!(job(optimizer, "adapter").check(), Ok(()));
        }
        let text = serde_json::to_string(&job("mezo", "adapter")).expect("JSON");
        assert!(!text.contains("parameters"), "as jobs always were: {text}");
        let other = r#"{"optimizer":"mezo","mezo":{"parameters":"some"}}"#;
        assert!(serde_json::from_str::<Training>(other).is_err());
    }
}

//! What zeroth-order jobs may have beyond `FedMeZO`: as many directions as a bound on the estimate's variance asks for,
//! passes that are computed as one, a mask, and directions scaled by how far each number moved.

use serde::{Deserialize, Serialize};

use super::{Mezo, Seeds, Wire};

/// Only the numbers of the adapter that are largest in the merged adapter of an earlier round move
/// (Meerkat, arXiv 2506.03337: a static sparse mask).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// Share of each tensor's numbers that move. A tensor that is still all zeros moves whole.
    pub share: f64,
    /// The round whose merged adapter says which; until it is there all numbers move. 0: the untrained adapter.
    #[serde(default)]
    pub after: u32,
}

/// Directions are shorter where the adapter moved far and longer where it did not: `z ~ N(0, H⁻¹)`, with
/// `H ← (1−ν)·H + ν·Δ²` over the last rounds (`HiSo`, arXiv 2506.02370).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// ν: what the latest round weighs.
    #[serde(default = "usual_weight")]
    pub weight: f64,
    /// How many rounds back it looks: whoever knows their scalars knows the scale.
    #[serde(default = "usual_rounds")]
    pub rounds: u32,
}

const fn usual_weight() -> f64 {
    0.1
}

const fn usual_rounds() -> u32 {
    4
}

/// Rounds that a scale may look back at.
const ROUNDS_LIMIT: u32 = 16;

/// Scalars of these rounds at most, 32 KiB: half of what a task tells.
const SCALARS_LIMIT: u64 = 8192;

/// The round after which a mask begins at the latest.
const AFTER_LIMIT: u32 = 10_000;

impl Mezo {
    /// Checks what is beyond the paper.
    pub(super) fn check_beyond(&self, steps: u32, refuse: &mut impl FnMut(&str, String)) {
        if !(self.variance.is_finite() && self.variance >= 0.0) {
            let problem = "use a number from 0; 0 takes all perturbations in every step".to_owned();
            refuse("training.mezo.variance", problem);
        }
        if self.variance > 0.0 && self.perturbations < 2 {
            let problem = "there is one direction a step; give more as training.mezo.perturbations"
                .to_owned();
            refuse("training.mezo.variance", problem);
        }
        if self.variance > 0.0 && self.trim > 0.0 {
            let problem = "a step of fewer directions has 0 for the others and more for its own, which a trimmed mean \
                           leaves out as outliers; use training.mezo.clip in its place, or variance 0";
            refuse("training.mezo.trim", problem.to_owned());
        }
        // In 32 bits: as many perturbations as were refused just before come here too.
        let passes = 2 * u32::from(self.perturbations);
        if self.abreast == 0 || u32::from(self.abreast) > passes {
            let problem = format!("use 1 to {passes}, the passes of a step");
            refuse("training.mezo.abreast", problem);
        }
        if self.variance > 0.0 && self.abreast > 2 {
            let problem =
                "whether a direction is needed is known after the ones before it; use 1 or 2"
                    .to_owned();
            refuse("training.mezo.abreast", problem);
        }
        self.check_mask(refuse);
        self.check_scaling(steps, refuse);
    }

    fn check_mask(&self, refuse: &mut impl FnMut(&str, String)) {
        let Some(Mask { share, after }) = self.mask else {
            return;
        };
        if !(share > 0.0 && share < 1.0) {
            let problem = "use a number between 0 and 1".to_owned();
            refuse("training.mezo.mask.share", problem);
        }
        if after > AFTER_LIMIT {
            let problem = format!("use 0 to {AFTER_LIMIT}");
            refuse("training.mezo.mask.after", problem);
        }
    }

    fn check_scaling(&self, steps: u32, refuse: &mut impl FnMut(&str, String)) {
        let Some(Scaling { weight, rounds }) = self.scaling else {
            return;
        };
        if !(weight > 0.0 && weight < 1.0) {
            let problem = "use a number between 0 and 1".to_owned();
            refuse("training.mezo.scaling.weight", problem);
        }
        if !(1..=ROUNDS_LIMIT).contains(&rounds) {
            let problem = format!("use 1 to {ROUNDS_LIMIT}");
            refuse("training.mezo.scaling.rounds", problem);
        }
        let scalars = self.scalars(steps).saturating_mul(u64::from(rounds));
        if scalars > SCALARS_LIMIT {
            let problem = format!(
                "rounds × local_steps × perturbations are {scalars} scalars, a task tells {SCALARS_LIMIT} of them; use fewer"
            );
            refuse("training.mezo.scaling.rounds", problem);
        }
        if self.wire != Wire::Scalars || self.seeds != Seeds::Shared {
            let problem = "the scale follows from scalars that all sites know: use wire scalars and seeds shared";
            refuse("training.mezo.scaling", problem.to_owned());
        }
    }

    /// What is left out beside first-order sites, whose merges nobody replays.
    pub(super) fn check_beyond_beside(&self, refuse: &mut impl FnMut(&str, String)) {
        if self.mask.is_some() {
            let problem = "a merge in factors turns the numbers that it goes by; use it where all sites train zeroth-order";
            refuse("training.mezo.mask", problem.to_owned());
        }
        if self.scaling.is_some() {
            let problem = "there are no scalars that all sites know; use it where all sites train zeroth-order";
            refuse("training.mezo.scaling", problem.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::job::spec::Spec;

    fn refusals(optimizer: &str, mezo: &str) -> Vec<(String, String)> {
        let text = format!(
            r#"{{"name":"j","model":{{"source":"file:///m"}},"data":{{"dataset":"mail"}},
                "aggregation":{{"strategy":"{}"}},"adapter":{{"rank":8,"rank_max":8}},
                "training":{{"optimizer":"{optimizer}","local_steps":30,"mezo":{{{mezo}}}}}}}"#,
            if optimizer == "mezo" {
                "sum"
            } else {
                "product"
            },
        );
        let spec: Spec = serde_json::from_str(&text).expect("a job");
        let refused = spec.check().err().unwrap_or_default();
        let pair = |one: crate::job::spec::Refusal| (one.field.to_owned(), one.problem);
        refused.into_iter().map(pair).collect()
    }

    fn refused(optimizer: &str, mezo: &str, field: &str, because: &str) {
        let found = refusals(optimizer, mezo);
        let named = found
            .iter()
            .any(|(of, problem)| of == field && problem.contains(because));
        assert!(named, "{field}: {because} in {found:?}");
    }

    #[test]
    fn what_goes_together_is_accepted() {
        for mezo in [
            r#""perturbations":8,"variance":0.5"#,
            r#""perturbations":8,"abreast":16"#,
            r#""perturbations":8,"trim":0.2"#,
            r#""mask":{"share":0.1,"after":3}"#,
            r#""mask":{"share":0.1},"seeds":"per-worker""#,
            r#""scaling":{}"#,
            r#""scaling":{"weight":0.3,"rounds":8},"mask":{"share":0.5},"perturbations":4,"variance":1,"abreast":2"#,
        ] {
            assert_eq!(refusals("mezo", mezo), [], "{mezo}");
        }
        let beside = r#""perturbations":8,"variance":0.5,"abreast":2"#;
        assert_eq!(refusals("auto", beside), []);
    }

    #[test]
    fn what_has_no_meaning_is_refused_by_its_field() {
        let all = |mezo: &str, field: &str, because: &str| {
            refused("mezo", mezo, &format!("training.mezo.{field}"), because);
        };
        all(r#""variance":-1"#, "variance", "from 0");
        all(r#""variance":0.5"#, "variance", "one direction");
        all(r#""abreast":0"#, "abreast", "1 to 2");
        all(r#""abreast":3"#, "abreast", "1 to 2");
        all(r#""perturbations":40000"#, "perturbations", "1 to 256");
        let trimmed = r#""perturbations":8,"variance":1,"trim":0.2"#;
        all(trimmed, "trim", "use training.mezo.clip");
        let later = r#""perturbations":8,"variance":1,"abreast":4"#;
        all(later, "abreast", "known after");
        for share in ["0", "1", "-0.5"] {
            let mask = format!(r#""mask":{{"share":{share}}}"#);
            all(&mask, "mask.share", "between");
        }
        all(
            r#""mask":{"share":0.5,"after":10001}"#,
            "mask.after",
            "10000",
        );
        all(r#""scaling":{"weight":1}"#, "scaling.weight", "between");
        all(r#""scaling":{"rounds":0}"#, "scaling.rounds", "1 to 16");
        let long = r#""perturbations":32,"scaling":{"rounds":16}"#;
        all(long, "scaling.rounds", "15360 scalars");
        let own = r#""scaling":{},"seeds":"per-worker""#;
        all(own, "scaling", "seeds shared");
        let beside = |mezo: &str, field: &str| refused("auto", mezo, field, "all sites train");
        beside(r#""mask":{"share":0.5}"#, "training.mezo.mask");
        beside(r#""scaling":{}"#, "training.mezo.scaling");
    }
}

//! How zeroth-order sites train, and how their steps travel: the job file's `training.mezo`.

mod beyond;
mod parameters;

use serde::{Deserialize, Serialize};

pub use beyond::{Mask, Scaling};
pub use parameters::Parameters;

use super::choice::Choice;
use super::rounds::Late;
use super::spec::{Compute, Optimizer, Spec};
use crate::zeroth::SCALARS_LIMIT;

/// What the numbers of a direction are drawn from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Standard normal.
    #[default]
    Gaussian,
    /// One or minus one, each as likely.
    Rademacher,
}

/// Who walks along which directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seeds {
    /// All sites along the same direction in each step: the mean of their scalars is all that anybody needs
    /// to know of a round (`DeComFL`, arXiv 2405.15861).
    #[default]
    Shared,
    /// Each site along its own (`FedMeZO`, arXiv 2402.05926).
    PerWorker,
}

/// As what a site's steps travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// As their scalars, in the report itself.
    #[default]
    Scalars,
    /// As the trained adapter, through object storage.
    Tensors,
}

/// What a site's own rate follows from: `η·(1 + spread·Φ_i)` with `Φ_i = (s_i − s̄) / max_j |s_j − s̄|` of a statistic s
/// of the sites that took part in the round before (`FedMeZO`, arXiv 2402.05926).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rates {
    /// One rate for all.
    #[default]
    Fixed,
    /// Φ is drawn anew for each site and round, evenly from −1 to 1; for comparison.
    Random,
    /// The mean loss of its steps in the round before.
    RoundLoss,
    /// The mean of that over the last five rounds.
    FiveRoundLoss,
    /// How far its change in the round before lies from the mean of all.
    ModelDifference,
}

impl Rates {
    /// How many earlier rounds it goes by.
    #[must_use]
    pub const fn rounds(self) -> u32 {
        match self {
            Self::Fixed | Self::Random => 0,
            Self::RoundLoss | Self::ModelDifference => 1,
            Self::FiveRoundLoss => 5,
        }
    }
}

/// Zeroth-order training: `g = (F(θ+μz) − F(θ−μz)) / 2μ`, then `θ ← θ − η·g·z`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mezo {
    /// What is moved.
    #[serde(skip_serializing_if = "parameters::is_adapter")]
    pub parameters: Parameters,
    /// μ: how far the adapter is moved along a direction.
    pub perturbation: f64,
    /// P: directions of a step, whose estimates are averaged.
    pub perturbations: u16,
    /// What directions are drawn from.
    pub distribution: Distribution,
    /// A scalar beyond this, either way, counts as this; 0 turns it off.
    pub clip: f64,
    /// Share of the sites' scalars that is left out of their mean at each end, step by step.
    pub trim: f64,
    /// Who walks along which directions.
    pub seeds: Seeds,
    /// As what the steps travel.
    pub wire: Wire,
    /// η of zeroth-order sites beside others, a tenth of theirs if absent; where all are, it is the job's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// What sites' rates differ by.
    pub rates: Rates,
    /// By how much at most, as a share of the job's rate.
    pub rate_spread: f64,
    /// A step takes directions until the variance of its estimate, of one number, is at most this, and P at most
    /// (`FwdLLM`, arXiv 2308.13894); 0: always P.
    #[serde(skip_serializing_if = "is_zero")]
    pub variance: f64,
    /// Passes of a step that are computed as one, at most: a site takes as many as its memory has room for.
    #[serde(skip_serializing_if = "is_one")]
    pub abreast: u16,
    /// Which numbers of the adapter move; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<Mask>,
    /// By what directions are scaled; absent: by nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
}

impl Default for Mezo {
    /// μ = 1e-2, MeZO's own advice for LoRA; rates spread as in `FedMeZO`, where α is half of η.
    fn default() -> Self {
        Self {
            parameters: Parameters::Adapter,
            perturbation: 1e-2,
            perturbations: 1,
            distribution: Distribution::Gaussian,
            clip: 0.0,
            trim: 0.0,
            seeds: Seeds::Shared,
            wire: Wire::Scalars,
            learning_rate: None,
            rates: Rates::Fixed,
            rate_spread: RATE_SPREAD,
            variance: 0.0,
            abreast: 1,
            mask: None,
            scaling: None,
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde calls it with"
)]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde calls it with"
)]
const fn is_one(count: &u16) -> bool {
    *count == 1
}

/// The share of the job's rate by which sites' rates differ at most, unless a job says otherwise.
const RATE_SPREAD: f64 = 0.5;

/// Directions of a step at most.
const PERTURBATIONS_LIMIT: u16 = 256;

impl Mezo {
    /// Whether nothing was said.
    #[must_use]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Scalars of a round of so many steps.
    #[must_use]
    pub fn scalars(&self, steps: u32) -> u64 {
        u64::from(steps) * u64::from(self.perturbations)
    }

    /// Checks the fields, and that they may stand together with the rest of the job.
    pub(super) fn check(&self, spec: &Spec, refuse: &mut impl FnMut(&str, String)) {
        match spec.training.optimizer {
            Optimizer::Mezo => {
                self.check_fields(spec, refuse);
                self.check_others(spec, refuse);
            }
            Optimizer::Auto if !self.is_default() => {
                self.check_fields(spec, refuse);
                self.check_beside(refuse);
            }
            Optimizer::Adamw | Optimizer::Sgd if !self.is_default() => {
                let problem = "it says something only with training.optimizer: mezo or auto";
                refuse("training.mezo", problem.to_owned());
            }
            Optimizer::Auto | Optimizer::Adamw | Optimizer::Sgd => {}
        }
    }

    /// What only sites that all train zeroth-order have.
    fn check_beside(&self, refuse: &mut impl FnMut(&str, String)) {
        if self.trim > 0.0 {
            let problem = "beside first-order sites there is no mean of scalars; use 0".to_owned();
            refuse("training.mezo.trim", problem);
        }
        if self.rates != Rates::Fixed {
            let problem =
                "sites have rates of their own only where all train zeroth-order".to_owned();
            refuse("training.mezo.rates", problem);
        }
        self.check_beyond_beside(refuse);
        let sound = |rate: f64| rate.is_finite() && (0.0..=10.0).contains(&rate);
        if !self.learning_rate.is_none_or(sound) {
            refuse("training.mezo.learning_rate", "use 0 to 10".to_owned());
        }
    }

    fn check_fields(&self, spec: &Spec, refuse: &mut impl FnMut(&str, String)) {
        self.parameters.check(refuse);
        if !(self.perturbation.is_finite() && self.perturbation > 0.0 && self.perturbation <= 1.0) {
            let problem = "use a number above 0, at most 1".to_owned();
            refuse("training.mezo.perturbation", problem);
        } else if !(self.perturbation as f32).is_normal() {
            let problem =
                "steps are made in 32 bits, where this is as good as 0; use more, such as 1e-3";
            refuse("training.mezo.perturbation", problem.to_owned());
        }
        if !(1..=PERTURBATIONS_LIMIT).contains(&self.perturbations) {
            let problem = format!("use 1 to {PERTURBATIONS_LIMIT}");
            refuse("training.mezo.perturbations", problem);
        }
        if !(self.clip.is_finite() && self.clip >= 0.0) {
            let problem = "use a number from 0; 0 turns clipping off".to_owned();
            refuse("training.mezo.clip", problem);
        } else if self.clip > 0.0 && !(self.clip as f32).is_normal() {
            let problem = "scalars have 32 bits, where this is as good as 0 or infinite; use another, or 0 to turn \
                           clipping off";
            refuse("training.mezo.clip", problem.to_owned());
        }
        if !(0.0..0.5).contains(&self.trim) {
            let problem = "use a number from 0 up to, not including, 0.5".to_owned();
            refuse("training.mezo.trim", problem);
        }
        if self.trim > 0.0 && self.seeds != Seeds::Shared {
            let problem = "only scalars along the same directions have a mean: use seeds shared";
            refuse("training.mezo.trim", problem.to_owned());
        }
        if !(self.rate_spread > 0.0 && self.rate_spread < 1.0) {
            let problem =
                "use a number between 0 and 1: no site's rate may come to 0 or below".to_owned();
            refuse("training.mezo.rate_spread", problem);
        } else if self.rates == Rates::Fixed && self.rate_spread != RATE_SPREAD {
            let problem =
                "with one rate for all it says nothing; give training.mezo.rates".to_owned();
            refuse("training.mezo.rate_spread", problem);
        }
        self.check_beyond(spec.training.most_steps(), refuse);
        let scalars = self.scalars(spec.training.most_steps());
        if self.wire == Wire::Scalars && scalars > SCALARS_LIMIT as u64 {
            refuse(
                "training.mezo.wire",
                format!(
                    "local_steps × perturbations are {scalars} scalars, a message holds {SCALARS_LIMIT}; use fewer, or tensors"
                ),
            );
        }
        if self.wire == Wire::Tensors && self.seeds == Seeds::Shared {
            refuse(
                "training.mezo.wire",
                "tensors show nothing of the shared directions; use scalars, or seeds per-worker"
                    .to_owned(),
            );
        }
    }

    /// What other fields say that zeroth-order steps do not have, or that would change what they replay.
    fn check_others(&self, spec: &Spec, refuse: &mut impl FnMut(&str, String)) {
        let training = &spec.training;
        if self.learning_rate.is_some() {
            let problem =
                "where all sites train zeroth-order give training.learning_rate".to_owned();
            refuse("training.mezo.learning_rate", problem);
        }
        if training.weight_decay != 0.0 {
            let problem = "zeroth-order steps have no decay; leave it out".to_owned();
            refuse("training.weight_decay", problem);
        }
        if training.proximal != 0.0 {
            let problem = "zeroth-order steps have no proximal term; leave it out".to_owned();
            refuse("training.proximal", problem);
        }
        if let Choice::Fixed(rank) = spec.adapter.rank
            && rank != spec.adapter.rank_max
        {
            refuse(
                "adapter.rank",
                format!(
                    "zeroth-order sites train the whole merged adapter: use rank_max ({})",
                    spec.adapter.rank_max
                ),
            );
        }
        if matches!(spec.precision.compute, Compute::Bf16 | Compute::Int8) {
            refuse(
                "precision.compute",
                "the slope is a small difference of two losses, which this arithmetic rounds away; use f32 or auto"
                    .to_owned(),
            );
        }
        if spec.rounds.late == Late::Credit && self.seeds == Seeds::Shared {
            refuse(
                "rounds.late",
                "a late site walked along another round's directions; use drop, or seeds per-worker"
                    .to_owned(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(more: &str) -> Spec {
        let text = format!(
            r#"{{"name":"j","model":{{"source":"file:///m"}},"data":{{"dataset":"mail"}},
                "aggregation":{{"strategy":"sum"}},"adapter":{{"rank":8,"rank_max":8}},{more}}}"#
        );
        serde_json::from_str(&text).expect("a job")
    }

    fn refused(more: &str, field: &str, because: &str) {
        let refusals = spec(more).check().expect_err("refused");
        let found = refusals
            .iter()
            .find(|one| one.field == field && one.problem.contains(because));
        assert!(found.is_some(), "{field}: {because} in {refusals:?}");
    }

    #[test]
    fn a_zeroth_order_job_needs_to_say_little() {
        let short = spec(r#""training":{"optimizer":"mezo"}"#);
        assert_eq!(short.check(), Ok(()));
        let text = serde_json::to_string(&short).expect("JSON");
        assert!(!text.contains("\"mezo\":{"), "{text}");
        let paper = spec(
            r#""training":{"optimizer":"mezo","local_steps":30,"mezo":{"perturbation":1e-3,
               "seeds":"per-worker","wire":"tensors"}}"#,
        );
        assert_eq!(paper.check(), Ok(()));
    }

    #[test]
    fn sites_may_have_rates_of_their_own_in_a_zeroth_order_job() {
        for rates in [
            "random",
            "round-loss",
            "five-round-loss",
            "model-difference",
        ] {
            let mezo = format!(r#""mezo":{{"rates":"{rates}","rate_spread":0.25}}"#);
            let job = spec(&format!(r#""training":{{"optimizer":"mezo",{mezo}}}"#));
            assert_eq!(job.check(), Ok(()), "{rates}");
            let first_order = format!(r#""training":{{"optimizer":"adamw",{mezo}}}"#);
            refused(&first_order, "training.mezo", "only with");
        }
        let other = r#"{"optimizer":"mezo","mezo":{"rates":"loss"}}"#;
        assert!(serde_json::from_str::<super::super::spec::Training>(other).is_err());
    }

    #[test]
    fn every_field_has_its_limits() {
        let mezo = |fields: &str| {
            format!(r#""training":{{"optimizer":"mezo","local_steps":300,"mezo":{{{fields}}}}}"#)
        };
        for (fields, field, because) in [
            (r#""perturbation":0"#, "perturbation", "above 0"),
            (r#""perturbation":1e-46"#, "perturbation", "32 bits"),
            (r#""perturbations":0"#, "perturbations", "1 to 256"),
            (r#""clip":-1"#, "clip", "from 0"),
            (r#""clip":1e-46"#, "clip", "32 bits"),
            (r#""clip":1e39"#, "clip", "32 bits"),
            (r#""trim":0.5"#, "trim", "up to"),
            (
                r#""trim":0.1,"seeds":"per-worker""#,
                "trim",
                "use seeds shared",
            ),
            (r#""perturbations":100"#, "wire", "30000 scalars"),
            (r#""wire":"tensors""#, "wire", "seeds per-worker"),
            (
                r#""rates":"round-loss","rate_spread":1"#,
                "rate_spread",
                "between 0 and 1",
            ),
            (
                r#""rates":"random","rate_spread":0"#,
                "rate_spread",
                "between 0 and 1",
            ),
            (r#""rate_spread":0.4"#, "rate_spread", "says nothing"),
        ] {
            refused(&mezo(fields), &format!("training.mezo.{field}"), because);
        }
    }

    #[test]
    fn what_zeroth_order_steps_do_not_have_is_refused() {
        let training = |more: &str| format!(r#""training":{{"optimizer":"mezo"{more}}}"#);
        let plain = training("");
        refused(
            &training(r#","weight_decay":0.1"#),
            "training.weight_decay",
            "no decay",
        );
        refused(
            &training(r#","proximal":0.1"#),
            "training.proximal",
            "no proximal",
        );
        let bf16 = format!(r#"{plain},"precision":{{"compute":"bf16"}}"#);
        refused(&bf16, "precision.compute", "rounds away");
        let late = format!(r#"{plain},"rounds":{{"late":"credit"}}"#);
        refused(&late, "rounds.late", "another round's directions");
        refused(
            r#""training":{"optimizer":"adamw","mezo":{"clip":3}}"#,
            "training.mezo",
            "only with",
        );
    }

    #[test]
    fn beside_first_order_sites_a_job_says_how_zeroth_order_ones_step() {
        let auto = |mezo: &str| format!(r#""training":{{"optimizer":"auto","mezo":{{{mezo}}}}}"#);
        let job = spec(&auto(r#""perturbations":4,"clip":50,"learning_rate":2e-4"#));
        assert_eq!(job.check(), Ok(()));
        assert!(job.takes_zeroth_order());
        assert_eq!(job.training.zeroth_order_rate(), 2e-4);
        let job = spec(r#""training":{"optimizer":"auto","learning_rate":1e-3}"#);
        assert_eq!(job.check(), Ok(()));
        assert!((job.training.zeroth_order_rate() - 1e-4).abs() < 1e-12);
        refused(&auto(r#""trim":0.1"#), "training.mezo.trim", "no mean");
        refused(
            &auto(r#""rates":"round-loss""#),
            "training.mezo.rates",
            "only where all",
        );
        refused(
            r#""training":{"optimizer":"mezo","mezo":{"learning_rate":1e-4}}"#,
            "training.mezo.learning_rate",
            "give training.learning_rate",
        );
        let mut job = job;
        job.aggregation.strategy = super::super::Strategy::Ffa;
        assert!(!job.takes_zeroth_order(), "it trains B alone");
    }

    #[test]
    fn a_plain_auto_job_of_more_steps_than_a_message_holds_is_taken_and_none_is_zeroth_order() {
        let auto =
            |mezo: &str| format!(r#""training":{{"optimizer":"auto","local_steps":20000{mezo}}}"#);
        let plain = spec(&auto(""));
        assert_eq!(plain.check(), Ok(()));
        assert!(!plain.takes_zeroth_order());
        let named = auto(r#","mezo":{"clip":1}"#);
        refused(&named, "training.mezo.wire", "20000 scalars");
    }

    #[test]
    fn there_is_one_rank_and_one_rule() {
        let text = r#"{"name":"j","model":{"source":"file:///m"},"data":{"dataset":"mail"},
            "training":{"optimizer":"mezo"},"adapter":{"rank":4,"rank_max":8}}"#;
        let mut spec: Spec = serde_json::from_str(text).expect("a job");
        let fields = |spec: &Spec| -> Vec<String> {
            let refusals = spec.check().expect_err("refused").into_iter();
            refusals.map(|one| one.field).collect()
        };
        assert_eq!(fields(&spec), ["aggregation.strategy", "adapter.rank"]);
        spec.aggregation.strategy = super::super::Strategy::Sum;
        spec.adapter.rank = Choice::Auto;
        assert_eq!(fields(&spec), ["adapter.rank"]);
    }
}

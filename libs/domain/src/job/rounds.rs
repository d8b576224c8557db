//! The `rounds` section of a job file: how many rounds, with whom, for how long, what becomes of an
//! update that is late, and which round's adapter the job ends with.

use serde::{Deserialize, Serialize};

use super::choice::Choice;
use super::quorum::Quorum;
use super::sample::Sample;

/// What one round of age takes from the weight of a late update, where the job does not say: the
/// factors in use are near it, 2/e = 0.74 (Chen et al., arXiv 1903.07424) and 1/√2 = 0.71 (`FedBuff`,
/// arXiv 2106.06639).
pub const DISCOUNT: f64 = 0.7;

/// How many rounds, with whom, for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rounds {
    /// Rounds of train and merge, at most.
    pub count: u32,
    /// Updates that close a round after its deadline; auto: of more than half of the sites that it
    /// asks; all: of every admitted site (with `sample`: of every site that it asks), so that the same
    /// inputs give the same bytes whatever happens.
    pub quorum: Quorum,
    /// Seconds a round may take; auto: from the plan's prediction.
    pub deadline: Choice<u32>,
    /// How many of the planned sites a round asks; which ones is drawn from the job's seed and the
    /// round's number, each site as likely as the others.
    pub sample: Sample,
    /// What becomes of an update that was not there when its round closed.
    pub late: Late,
    /// With `late: credit`: a late update weighs its usual weight times this, once for each round of
    /// age. Above 0, at most 1; absent: 0.7.
    pub staleness_discount: Option<f64>,
    /// Which round's adapter the job ends with.
    pub keep: Keep,
    /// Training stops early after so many scores in a row without improvement; absent: never.
    pub patience: Option<u32>,
    /// With `patience`: a score is an improvement if it is better by more than this; absent: by
    /// anything.
    pub min_delta: Option<f64>,
}

/// What becomes of an update that was not there when its round closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Late {
    /// Its site is told to stop, and starts anew with the next round.
    #[default]
    Drop,
    /// Its site goes on, and the update counts, discounted, in the round in which it arrives.
    Credit,
}

/// Which round's adapter the job ends with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The last.
    #[default]
    Last,
    /// The one with the best score: balanced accuracy if the job has choices, else the loss. Of equals
    /// the earliest.
    Best,
}

impl Default for Rounds {
    fn default() -> Self {
        Self {
            count: 3,
            quorum: Quorum::Auto,
            deadline: Choice::Auto,
            sample: Sample::All,
            late: Late::Drop,
            staleness_discount: None,
            keep: Keep::Last,
            patience: None,
            min_delta: None,
        }
    }
}

impl Rounds {
    /// Updates that a round needs which asks so many of the admitted sites.
    #[must_use]
    pub fn needed(&self, asked: usize, admitted: usize) -> usize {
        match (self.quorum, self.sample) {
            (Quorum::All, Sample::Count(_) | Sample::Fraction(_)) => asked.max(1),
            (quorum, _) => quorum.of_round(asked, admitted),
        }
    }

    /// What an update's weight is multiplied by that is `age` rounds old: `staleness_discount^age`.
    /// The shares of a round's updates are then made to add up to 1, as without late ones.
    #[must_use]
    pub fn discount(&self, age: u32) -> f64 {
        let exponent = i32::try_from(age).unwrap_or(i32::MAX);
        self.staleness_discount.unwrap_or(DISCOUNT).powi(exponent)
    }

    /// Whether what follows depends on which of two scores is better.
    #[must_use]
    pub fn compares_scores(&self) -> bool {
        self.keep == Keep::Best || self.patience.is_some()
    }

    /// Refuses what cannot be meant, and combinations that contradict themselves.
    pub(super) fn check(
        &self,
        named_sites: usize,
        is_scored: bool,
        refuse: &mut impl FnMut(&str, String),
    ) {
        if !(1..=100_000).contains(&self.count) {
            refuse("rounds.count", "use 1 to 100000".to_owned());
        }
        if self.deadline == Choice::Fixed(0) {
            refuse(
                "rounds.deadline",
                "use at least 1 second, or auto".to_owned(),
            );
        }
        self.check_sites(named_sites, refuse);
        self.check_late(refuse);
        self.check_end(is_scored, refuse);
    }

    fn check_sites(&self, named_sites: usize, refuse: &mut impl FnMut(&str, String)) {
        let named = u32::try_from(named_sites).unwrap_or(u32::MAX);
        if let Some(problem) = self.sample.problem() {
            refuse("rounds.sample", problem.to_owned());
        } else if let Sample::Count(count) = self.sample
            && named > 0
            && count > named
        {
            let all = "use at most that, or `all`";
            refuse(
                "rounds.sample",
                format!("{count} is more than the {named} sites named in data.sites; {all}"),
            );
        }
        let Quorum::Fixed(quorum) = self.quorum else {
            return;
        };
        let problem = match self.sample {
            _ if quorum == 0 => {
                "use at least 1, `auto` for more than half of the sites, or `all`".to_owned()
            }
            Sample::Fraction(_) => {
                "how many sites a fraction is, is not known before the plan: use `auto` (more than \
                 half of those asked) or `all` (each of them), or give rounds.sample as a number"
                    .to_owned()
            }
            Sample::Count(count) if quorum > count => {
                format!("{quorum} is more than the {count} sites that a round asks (rounds.sample)")
            }
            _ if named > 0 && quorum > named => {
                format!("{quorum} is more than the {named} sites named in data.sites")
            }
            _ => return,
        };
        refuse("rounds.quorum", problem);
    }

    fn check_late(&self, refuse: &mut impl FnMut(&str, String)) {
        if self.late == Late::Drop {
            if self.staleness_discount.is_some() {
                refuse(
                    "rounds.staleness_discount",
                    "late updates are dropped: give `late: credit`, or leave this out".to_owned(),
                );
            }
            return;
        }
        if self.quorum == Quorum::All {
            refuse(
                "rounds.late",
                "with `quorum: all` no round closes before every update is there: use `late: drop`, \
                 or another quorum"
                    .to_owned(),
            );
        }
        if self.count == 1 {
            refuse(
                "rounds.late",
                "a single round has no later one to be credited in: use `late: drop`".to_owned(),
            );
        }
        let legal = |discount: f64| discount > 0.0 && discount <= 1.0;
        if !self.staleness_discount.is_none_or(legal) {
            refuse(
                "rounds.staleness_discount",
                "use a number above 0 and at most 1".to_owned(),
            );
        }
    }

    fn check_end(&self, is_scored: bool, refuse: &mut impl FnMut(&str, String)) {
        if self.keep == Keep::Best && !is_scored {
            refuse(
                "rounds.keep",
                "which round is best is known from scores: give `evaluation`, or use `last`"
                    .to_owned(),
            );
        }
        if self.patience.is_some() && !is_scored {
            refuse(
                "rounds.patience",
                "an improvement is seen in scores: give `evaluation`, or leave this out".to_owned(),
            );
        }
        if self.patience == Some(0) {
            refuse("rounds.patience", "use at least 1 evaluation".to_owned());
        }
        match self.min_delta {
            Some(delta) if !(delta.is_finite() && delta >= 0.0) => {
                refuse("rounds.min_delta", "use a number from 0".to_owned());
            }
            Some(_) if self.patience.is_none() => {
                refuse(
                    "rounds.min_delta",
                    "it says what counts as an improvement for `patience`: give both or neither"
                        .to_owned(),
                );
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str, named: usize, scored: bool) -> Vec<String> {
        let rounds: Rounds = serde_json::from_str(json).expect(json);
        let mut fields = Vec::new();
        rounds.check(named, scored, &mut |field, problem| {
            assert!(!problem.is_empty());
            fields.push(field.trim_start_matches("rounds.").to_owned());
        });
        fields
    }

    fn check(json: &str, named: usize, scored: bool, expected: &[&str]) {
        let found = refused(json, named, scored);
        assert_eq!(
            found, expected,
            "{json} with {named} sites, scored {scored}"
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused_and_what_does_not_is_not() {
        check("{}", 0, false, &[]);
        check(r#"{"sample":2,"quorum":2}"#, 3, false, &[]);
        check(r#"{"sample":2,"quorum":3}"#, 3, false, &["quorum"]);
        check(r#"{"sample":4}"#, 3, false, &["sample"]);
        check(r#"{"sample":0}"#, 0, false, &["sample"]);
        check(r#"{"sample":1.5}"#, 0, false, &["sample"]);
        check(r#"{"sample":0.5,"quorum":"all"}"#, 0, false, &[]);
        check(r#"{"sample":0.5,"quorum":1}"#, 0, false, &["quorum"]);
        check(r#"{"quorum":4}"#, 3, false, &["quorum"]);
        check(r#"{"quorum":0}"#, 0, false, &["quorum"]);
        check(r#"{"late":"credit"}"#, 0, false, &[]);
        check(r#"{"late":"credit","count":1}"#, 0, false, &["late"]);
        check(r#"{"late":"credit","quorum":"all"}"#, 0, false, &["late"]);
        let discounted = r#"{"late":"credit","staleness_discount":1.0}"#;
        check(discounted, 0, false, &[]);
        let discount = ["staleness_discount"];
        for bad in ["0", "1.01", "-1"] {
            let json = format!(r#"{{"late":"credit","staleness_discount":{bad}}}"#);
            check(&json, 0, false, &discount);
        }
        check(r#"{"staleness_discount":0.5}"#, 0, false, &discount);
        check(r#"{"keep":"best"}"#, 0, false, &["keep"]);
        check(
            r#"{"keep":"best","patience":2,"min_delta":0.01}"#,
            0,
            true,
            &[],
        );
        check(r#"{"patience":2}"#, 0, false, &["patience"]);
        check(r#"{"patience":0}"#, 0, true, &["patience"]);
        check(r#"{"min_delta":0.1}"#, 0, true, &["min_delta"]);
        check(
            r#"{"patience":1,"min_delta":-0.1}"#,
            0,
            true,
            &["min_delta"],
        );
    }

    #[test]
    fn a_round_needs_its_quorum_of_those_it_asks() {
        let needed = |json: &str, asked| {
            let rounds: Rounds = serde_json::from_str(json).expect(json);
            rounds.needed(asked, 5)
        };
        assert_eq!(needed(r#"{}"#, 4), 3);
        assert_eq!(needed(r#"{"quorum":"all"}"#, 4), 5);
        assert_eq!(needed(r#"{"quorum":"all","sample":2}"#, 2), 2);
        assert_eq!(needed(r#"{"quorum":2,"sample":3}"#, 3), 2);
        assert_eq!(needed(r#"{"sample":0.4}"#, 2), 2);
    }

    #[test]
    fn each_round_of_age_discounts_once() {
        let rounds = Rounds {
            staleness_discount: Some(0.5),
            ..Rounds::default()
        };
        assert_eq!([0, 1, 2].map(|age| rounds.discount(age)), [1.0, 0.5, 0.25]);
        assert_eq!(Rounds::default().discount(1), DISCOUNT);
    }
}

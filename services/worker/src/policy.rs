//! Whether the site admits a task. A refusal is a sentence for the submitter.
//!
//! Policy is the site's own and is asked again for every task: a site that changes its mind is
//! obeyed with the next one.

use std::fs;
use std::path::{Component, Path, PathBuf};

use contract::message::task::{Head, ModelRef};
use domain::artifact::Digest;
use domain::hub;
use domain::time::UnixMillis;

use crate::config::Policy;

/// Records over which a figure must be averaged to leave a site that did not consent to less.
pub const SMALLEST_COUNT: u64 = 8;

/// Why the site does not admit a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

fn refuse(reason: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal(reason.into()))
}

impl Policy {
    /// Whether a task with this head may run now.
    ///
    /// # Errors
    /// The first rule that does not admit it.
    pub fn admit(&self, head: &Head, now: UnixMillis) -> Result<(), Refusal> {
        let submitters = &self.allow_submitters;
        if !submitters.is_empty() && !submitters.contains(&head.submitter) {
            let submitter = &head.submitter;
            return refuse(format!("jobs of submitter {submitter} are not admitted"));
        }
        let datasets = &self.allow_datasets;
        if !datasets.is_empty() && !datasets.contains(&head.dataset) {
            let dataset = &head.dataset;
            return refuse(format!("data set {dataset} is not open to jobs"));
        }
        if let Some(hours) = self.hours.filter(|hours| !hours.contain(now)) {
            return refuse(format!("the site works at {hours} o'clock UTC only"));
        }
        if let Some(model) = head.model.hub() {
            return self.admit_hub(&model);
        }
        match &head.model {
            ModelRef::Digest(digest) => self.admit_digest(digest),
            ModelRef::Path(path) if !self.allow_models.is_empty() => refuse(format!(
                "only models named by an admitted digest are used, not {path}"
            )),
            ModelRef::Path(path) => self.admit_path(path).map(drop),
        }
    }

    fn admit_digest(&self, digest: &Digest) -> Result<(), Refusal> {
        if self.allow_models.is_empty() || self.allow_models.contains(digest) {
            return Ok(());
        }
        refuse(format!("model {digest} is not admitted"))
    }

    /// Whether this model may be fetched from the Hub.
    ///
    /// # Errors
    /// If the site fetches no such models, or its revision may move.
    pub fn admit_hub(&self, model: &hub::Model) -> Result<(), Refusal> {
        if !model.is_pinned() {
            return refuse(format!(
                "{model} names no commit, so sites could get different models"
            ));
        }
        if self.allow_hub.iter().any(|rule| rule.admits(model)) {
            return Ok(());
        }
        refuse(format!(
            "{model} is not fetched from the Hub by this site; it can allow it with policy.allow_hub"
        ))
    }

    /// The real path of a model that a job names by path, if it lies below an admitted folder.
    ///
    /// # Errors
    /// If it does not; symbolic links are followed first.
    pub fn admit_path(&self, source: &str) -> Result<PathBuf, Refusal> {
        let path = Path::new(source.strip_prefix("file://").unwrap_or(source));
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        let shown = path.display();
        if !path.is_absolute() || !path.components().all(plain) {
            return Err(Refusal(format!(
                "{shown} is not an absolute path without `..`"
            )));
        }
        let refused = || Refusal(format!("models below {shown} are not admitted by path"));
        // A path that does not exist is judged by its letters; opening it fails later, with a reason.
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let below = |folder: &PathBuf| {
            let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
            real.starts_with(folder)
        };
        if self.allow_paths.iter().any(below) {
            Ok(real)
        } else {
            Err(refused())
        }
    }

    /// Whether figures averaged over so many records may leave the site. Nothing is said of none.
    ///
    /// # Errors
    /// If they are fewer than 8 and the site did not consent.
    pub fn admit_count(&self, what: &str, records: u64) -> Result<(), Refusal> {
        if records == 0 || records >= SMALLEST_COUNT || self.share_small_counts {
            return Ok(());
        }
        refuse(format!(
            "{what} would be averaged over {records} records, fewer than {SMALLEST_COUNT}; \
             the site can consent with policy.share_small_counts"
        ))
    }

    /// The policy in a sentence, for the registration.
    #[must_use]
    pub fn sentence(&self) -> String {
        let or = |rule: bool, text: String, otherwise: &str| {
            if rule { text } else { otherwise.to_owned() }
        };
        let names = |items: Vec<String>| items.join(", ");
        let submitters = names(
            self.allow_submitters
                .iter()
                .map(ToString::to_string)
                .collect(),
        );
        let datasets = names(
            self.allow_datasets
                .iter()
                .map(ToString::to_string)
                .collect(),
        );
        let models = self.allow_models.len();
        let parts = [
            or(
                !submitters.is_empty(),
                format!("jobs of {submitters}"),
                "all submitters",
            ),
            or(
                models > 0,
                format!("{models} admitted models"),
                "all models by digest",
            ),
            or(
                !self.allow_hub.is_empty(),
                format!(
                    "of the Hub {}",
                    names(self.allow_hub.iter().map(ToString::to_string).collect())
                ),
                "none of the Hub",
            ),
            or(
                !datasets.is_empty(),
                format!("data sets {datasets}"),
                "all data sets",
            ),
            self.hours.map_or_else(
                || "at all hours".to_owned(),
                |h| format!("at {h} o'clock UTC"),
            ),
            or(
                self.share_small_counts,
                "shares figures of few records".to_owned(),
                "no figure of fewer than 8 records",
            ),
        ];
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use domain::id::{Epoch, JobId};

    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::from_bytes(&[byte; 32])
    }

    fn head() -> Head {
        Head {
            worker: "w".parse().unwrap(),
            job: JobId::from_bits(1),
            epoch: Epoch(1),
            submitter: "alice".parse().unwrap(),
            model: ModelRef::Digest(digest(1)),
            dataset: "mail".parse().unwrap(),
            expires_at: UnixMillis(u64::MAX),
        }
    }

    fn check(policy: &Policy, head: &Head, expected: Option<&str>) {
        let noon = UnixMillis(12 * 3_600_000);
        let found = policy
            .admit(head, noon)
            .map_err(|refusal| refusal.to_string());
        match expected {
            None => assert_eq!(found, Ok(())),
            Some(part) => assert!(found.as_ref().is_err_and(|r| r.contains(part)), "{found:?}"),
        }
    }

    #[test]
    fn an_empty_policy_admits_digests_and_no_paths() {
        let policy = Policy::default();
        check(&policy, &head(), None);
        let by_path = Head {
            model: ModelRef::Path("file:///srv/model".to_owned()),
            ..head()
        };
        check(&policy, &by_path, Some("/srv/model"));
    }

    #[test]
    fn a_model_of_the_hub_needs_the_sites_word_and_a_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let of_hub = |revision: &str| Head {
            model: ModelRef::Path(format!("hf://org/name@{revision}")),
            ..head()
        };
        check(
            &Policy::default(),
            &of_hub(commit),
            Some("policy.allow_hub"),
        );
        let policy = Policy {
            allow_hub: ["org/*".parse().unwrap()].into(),
            ..Policy::default()
        };
        check(&policy, &of_hub(commit), None);
        check(&policy, &of_hub("main"), Some("names no commit"));
        assert!(policy.sentence().contains("of the Hub org/*"));
    }

    #[test]
    fn each_rule_refuses_with_its_reason() {
        let policy = Policy {
            allow_submitters: ["bob".parse().unwrap()].into(),
            ..Policy::default()
        };
        check(&policy, &head(), Some("submitter alice"));
        let policy = Policy {
            allow_models: [digest(2)].into(),
            ..Policy::default()
        };
        check(&policy, &head(), Some("sha256:0101"));
        let policy = Policy {
            allow_datasets: ["other".parse().unwrap()].into(),
            ..Policy::default()
        };
        check(&policy, &head(), Some("data set mail"));
        let policy = Policy {
            hours: Some("22-06".parse().unwrap()),
            ..Policy::default()
        };
        check(&policy, &head(), Some("22-06"));
    }

    #[test]
    fn a_link_out_of_an_admitted_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        let closed = folder.path().join("closed");
        fs::create_dir_all(&open).unwrap();
        fs::create_dir_all(&closed).unwrap();
        std::os::unix::fs::symlink(&closed, open.join("link")).unwrap();
        let policy = Policy {
            allow_paths: vec![open.clone()],
            ..Policy::default()
        };
        let admits = |path: PathBuf| {
            policy
                .admit_path(&format!("file://{}", path.display()))
                .is_ok()
        };
        assert!(admits(open.join("model.gguf")));
        assert!(!admits(open.join("link")));
        assert!(!admits(open.join("../closed")));
        assert!(!admits(closed));
        assert!(policy.admit_path("open/model").is_err());
    }

    #[test]
    fn small_counts_need_consent_and_none_needs_nothing() {
        let mut policy = Policy::default();
        assert!(policy.admit_count("the loss", 7).is_err());
        assert!(policy.admit_count("the loss", 8).is_ok());
        assert!(policy.admit_count("the score", 0).is_ok());
        policy.share_small_counts = true;
        assert!(policy.admit_count("the loss", 1).is_ok());
    }
}

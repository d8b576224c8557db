//! Where objects lie in storage: the layout that every service and every permission goes by.
//!
//! Below each prefix lies content-addressed content: `<prefix>/parts/<sha256>` and the manifest that
//! seals it, `<prefix>/<sha256>.manifest` (of a model: `manifest`). What is deleted together lies together.

use crate::artifact::Digest;
use crate::id::{JobId, WorkerName};

/// A key under which nothing is ever stored: whoever is answered "not there" has reached storage.
pub const REACH: &str = "reach";

/// Everything of a job.
#[must_use]
pub fn job_prefix(job: &JobId) -> String {
    format!("jobs/{job}")
}

/// Merged adapters of a job.
#[must_use]
pub fn global_prefix(job: &JobId) -> String {
    format!("jobs/{job}/global")
}

/// All updates of a job.
#[must_use]
pub fn updates_prefix(job: &JobId) -> String {
    format!("jobs/{job}/updates")
}

/// The update of one worker in one round.
#[must_use]
pub fn update_prefix(job: &JobId, worker: &WorkerName, round: u32) -> String {
    format!("jobs/{job}/updates/{worker}/{round}")
}

/// The moments of the server's optimizer after one round. No worker may read them.
#[must_use]
pub fn optimizer_prefix(job: &JobId, round: u32) -> String {
    format!("jobs/{job}/optimizer/{round}")
}

/// What one worker writes and reads to measure its link.
#[must_use]
pub fn probe_prefix(job: &JobId, worker: &WorkerName) -> String {
    format!("jobs/{job}/probes/{worker}")
}

/// A model.
#[must_use]
pub fn model_prefix(model: &Digest) -> String {
    format!("models/{}", model.hex())
}

/// What a key is part of, as far as workers have to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// [`REACH`].
    Reach,
    /// A model.
    Model(Digest),
    /// A merged adapter.
    Global(JobId),
    /// An update.
    Update {
        /// Of which job.
        job: JobId,
        /// By whom.
        worker: WorkerName,
        /// In which round.
        round: u32,
    },
    /// A measurement of a link.
    Probe {
        /// For which job.
        job: JobId,
        /// Whose.
        worker: WorkerName,
    },
}

/// Reads a key; `None` for whatever is not exactly a name of this layout.
#[must_use]
pub fn parse(key: &str) -> Option<Place> {
    let segments: Vec<&str> = key.split('/').collect();
    match segments.as_slice() {
        [REACH] => Some(Place::Reach),
        ["models", model, name @ ..] => {
            let of_model = name == ["manifest"] || is_part(name);
            of_model.then_some(Place::Model(digest(model)?))
        }
        ["jobs", job, "global", name @ ..] => {
            is_content(name).then_some(Place::Global(job.parse().ok()?))
        }
        ["jobs", job, "updates", worker, round, name @ ..] => {
            let (job, worker) = (job.parse().ok()?, worker.parse().ok()?);
            let round = number(round)?;
            is_content(name).then_some(Place::Update { job, worker, round })
        }
        ["jobs", job, "probes", worker, probe, part] => {
            let seed = probe.strip_prefix("probe-")?;
            let legal = is_hex(seed, 16) && number(part).is_some();
            let (job, worker) = (job.parse().ok()?, worker.parse().ok()?);
            legal.then_some(Place::Probe { job, worker })
        }
        _ => None,
    }
}

fn is_content(name: &[&str]) -> bool {
    match name {
        [manifest] => manifest
            .strip_suffix(".manifest")
            .is_some_and(|hex| is_hex(hex, 64)),
        _ => is_part(name),
    }
}

fn is_part(name: &[&str]) -> bool {
    matches!(name, ["parts", hex] if is_hex(hex, 64))
}

fn is_hex(text: &str, digits: usize) -> bool {
    let legal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.len() == digits && text.chars().all(legal)
}

fn digest(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}

/// A number in its only spelling: `01` and `+1` are other keys.
fn number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobId {
        JobId::from_bits(7)
    }

    fn worker() -> WorkerName {
        "site-a".parse().expect("legal")
    }

    fn names() -> [String; 2] {
        let hex = "ab".repeat(32);
        [format!("{hex}.manifest"), format!("parts/{hex}")]
    }

    #[test]
    fn what_is_built_here_is_read_here() {
        let model = Digest::from_bytes(&[1; 32]);
        let update = Place::Update {
            job: job(),
            worker: worker(),
            round: 12,
        };
        for name in names() {
            let global = format!("{}/{name}", global_prefix(&job()));
            assert_eq!(parse(&global), Some(Place::Global(job())));
            let key = format!("{}/{name}", update_prefix(&job(), &worker(), 12));
            assert_eq!(parse(&key), Some(update.clone()), "{key}");
        }
        for name in ["manifest", names()[1].as_str()] {
            let key = format!("{}/{name}", model_prefix(&model));
            assert_eq!(parse(&key), Some(Place::Model(model.clone())), "{key}");
        }
        let probe = Place::Probe {
            job: job(),
            worker: worker(),
        };
        let key = format!(
            "{}/probe-00000000000000ff/3",
            probe_prefix(&job(), &worker())
        );
        assert_eq!(parse(&key), Some(probe));
        assert_eq!(parse(REACH), Some(Place::Reach));
    }

    #[test]
    fn whatever_else_names_nothing() {
        let hex = "ab".repeat(32);
        let (job, upper) = (job(), hex.to_uppercase());
        for key in [
            String::new(),
            "models".to_owned(),
            format!("models/{hex}"),
            format!("models/{hex}/parts"),
            format!("models/{hex}/parts/../manifest"),
            format!("models/{upper}/manifest"),
            format!("models/{hex}/manifest/"),
            format!("/models/{hex}/manifest"),
            format!("jobs/{job}"),
            format!("jobs/{job}/report/{hex}.manifest"),
            format!("jobs/{job}/global/{upper}.manifest"),
            format!("jobs/{job}/global/../../x/global/{hex}.manifest"),
            format!("jobs/job_1/global/{hex}.manifest"),
            format!("jobs/{job}/updates/site-a/{hex}.manifest"),
            format!("jobs/{job}/updates/site-a/01/{hex}.manifest"),
            format!("jobs/{job}/updates/site-a/-1/{hex}.manifest"),
            format!("jobs/{job}/updates/site-a/../site-b/1/{hex}.manifest"),
            format!("jobs/{job}/updates/../1/{hex}.manifest"),
            format!("jobs/{job}/probes/site-a/probe-ff/0"),
            format!("jobs/{job}/probes/site-a/probe-00000000000000ff/x"),
            format!("jobs/{job}/probes/site-a/../site-b/0"),
        ] {
            assert_eq!(parse(&key), None, "{key}");
        }
    }
}

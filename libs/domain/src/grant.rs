//! What a worker may do in object storage, object by object: the rule behind every signed URL.
//!
//! A worker without credentials asks for URLs; [`judge`] says for each whether this worker may have
//! it. It reads what its jobs learn from (the model, the merged adapters), it creates its own update
//! of the round that is open, and it measures its link while its job is being measured. Nothing else.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::WorkerName;
use crate::job::{Job, Phase};
use crate::object::{self, Place};

/// Objects that can be asked for at once.
pub const BATCH: usize = 64;

/// What to do with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Read it.
    Get,
    /// Learn whether it is there, and how long it is.
    Head,
    /// Create it; what is there is never replaced.
    Put,
    /// Delete it.
    Delete,
}

/// An object, and what to do with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Wanted {
    /// What to do.
    pub access: Access,
    /// Its key.
    pub key: String,
}

/// A URL that carries the right to do one thing with one object. Whoever has it has the right, so it
/// is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignedUrl(String);

impl SignedUrl {
    /// The URL itself, for the one who uses it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for SignedUrl {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a worker may not have what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No job of this name is stored, or none was named.
    NoJob,
    /// The worker is not among the job's sites.
    NotTakingPart,
    /// The job has ended.
    JobEnded,
    /// The key is not one of this storage's layout.
    NotAKey,
    /// The object belongs to another job.
    OtherJob,
    /// The object belongs to another worker.
    OtherWorker,
    /// The object belongs to a model that the job does not train.
    OtherModel,
    /// The job is not in the phase or the round in which this is written.
    NotOpen,
    /// No worker may do this with such an object.
    NotAllowed,
    /// More objects than can be asked for at once.
    TooMany,
    /// Objects lie in a folder, for which there are no URLs: the worker needs its own `[storage]`.
    NoUrls,
    /// Whoever signs cannot read the job's record. A worker of a release before this word asks again instead.
    Unreadable,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoJob => "no such job",
            Self::NotTakingPart => "this worker does not take part in the job",
            Self::JobEnded => "the job has ended",
            Self::NotAKey => "it is not the name of an object",
            Self::OtherJob => "it belongs to another job",
            Self::OtherWorker => "it belongs to another worker",
            Self::OtherModel => "it belongs to a model that the job does not train",
            Self::NotOpen => "the job is not where this is written",
            Self::NotAllowed => "no worker may do this with it",
            Self::TooMany => "more objects than can be asked for at once",
            Self::NoUrls => "objects lie in a folder, the worker needs its own [storage]",
            Self::Unreadable => {
                "the api's release cannot read the job's record, which a newer one probably wrote"
            }
        })
    }
}

/// What was refused, and why; nothing of the same batch was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("`{key}` is not granted: {reason}")]
pub struct Refusal {
    /// The key, shortened if it is very long; empty if the whole batch was refused.
    pub key: String,
    /// Why.
    pub reason: Reason,
}

/// Longest key that is repeated in a refusal, in characters.
const SHOWN: usize = 200;

impl Refusal {
    /// A refusal of this key.
    #[must_use]
    pub fn of(key: &str, reason: Reason) -> Self {
        let key = key.chars().take(SHOWN).collect();
        Self { key, reason }
    }
}

/// Whether `worker` may have all of `wanted` for the job that it named, as stored at this moment.
///
/// # Errors
/// The first thing that it may not have, and why.
pub fn judge(worker: &WorkerName, job: Option<&Job>, wanted: &[Wanted]) -> Result<(), Refusal> {
    if wanted.len() > BATCH {
        return Err(Refusal::of("", Reason::TooMany));
    }
    for one in wanted {
        judge_one(worker, job, one).map_err(|reason| Refusal::of(&one.key, reason))?;
    }
    Ok(())
}

fn judge_one(worker: &WorkerName, job: Option<&Job>, wanted: &Wanted) -> Result<(), Reason> {
    let place = object::parse(&wanted.key).ok_or(Reason::NotAKey)?;
    if place == Place::Reach {
        return allowed(wanted.access == Access::Head);
    }
    let job = job.ok_or(Reason::NoJob)?;
    if !job.participants.contains(worker) {
        return Err(Reason::NotTakingPart);
    }
    if job.phase.is_terminal() {
        return Err(Reason::JobEnded);
    }
    let reads = matches!(wanted.access, Access::Get | Access::Head);
    match place {
        Place::Reach => allowed(false),
        Place::Model(model) if job.spec.model.digest.as_ref() != Some(&model) => {
            Err(Reason::OtherModel)
        }
        Place::Model(_) => allowed(reads),
        Place::Global(of) if of != job.id => Err(Reason::OtherJob),
        Place::Global(_) => allowed(reads),
        Place::Update { job: of, .. } | Place::Probe { job: of, .. } if of != job.id => {
            Err(Reason::OtherJob)
        }
        Place::Update { worker: by, .. } | Place::Probe { worker: by, .. } if by != *worker => {
            Err(Reason::OtherWorker)
        }
        Place::Update { round, .. } => match (&job.phase, wanted.access) {
            (_, Access::Get | Access::Delete) => allowed(false),
            (
                Phase::Training {
                    round: open, asked, ..
                },
                _,
            ) if *open == round && (asked.is_empty() || asked.contains(worker)) => Ok(()),
            // Its update counts in a later round.
            _ if job
                .behind(worker)
                .is_some_and(|behind| behind.round == round) =>
            {
                Ok(())
            }
            _ => Err(Reason::NotOpen),
        },
        Place::Probe { .. } => match &job.phase {
            Phase::Profiling { .. } | Phase::Refining { .. } => Ok(()),
            _ => Err(Reason::NotOpen),
        },
    }
}

const fn allowed(allowed: bool) -> Result<(), Reason> {
    if allowed {
        Ok(())
    } else {
        Err(Reason::NotAllowed)
    }
}

#[cfg(test)]
mod tests;

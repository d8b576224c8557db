//! Profiles that outlive their job: a site that was measured for the same question a while ago is not asked
//! again. What its rounds have taught since is part of what is reused.
//!
//! One entry for each worker and model, the last. It holds while everything that changes a measurement is the
//! same (what the job asks, engine, memory, threads, counts of records), for as long as the configuration
//! says. Models named by a path are never reused: what lies there may have changed. A site that became slower
//! in the meantime is found out by its first rounds (`domain::drift`). What a newer release kept and this one cannot read
//! is measured again: it is nobody's only copy.

use bus::drive::{Owned, error_chain};
use contract::message::job::Event;
use contract::topology::measured_key;
use domain::adapter::Projection;
use domain::fleet::{DatasetSummary, Registration};
use domain::id::{DatasetName, JobId, WorkerName};
use domain::job::Job;
use domain::job::choice::Choice;
use domain::job::spec::{Base, Compute, Importance, Optimizer, Order, Spec};
use domain::profile::Profile;
use domain::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::app::Profiler;
use crate::{Error, learn, profiles};

/// A kept profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// What was asked, of what.
    question: Question,
    /// When it was measured.
    measured_at: UnixMillis,
    /// The job whose rounds refine it.
    job: JobId,
    /// As it was when that job was planned.
    profile: Profile,
}

/// Everything that changes a measurement, beside worker and model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Question {
    version: String,
    threads: u16,
    memory_limit_bytes: u64,
    dataset: DatasetName,
    records: DatasetSummary,
    targets: Choice<Vec<Projection>>,
    rank_max: u16,
    importance: Importance,
    sequence_length: u32,
    batch: Choice<u16>,
    optimizer: Optimizer,
    /// Passes of a zeroth-order step, and whether its round makes a file.
    #[serde(default)]
    zeroth_order: (u16, bool),
    /// How many of its passes may be computed as one: its rounds take as long as that takes, which no probe measures, and
    /// teach that.
    #[serde(default = "one")]
    abreast: u16,
    /// Whether its directions are multiplied by something, and whether its update is scalars.
    #[serde(default)]
    directions: (bool, bool),
    /// LoRA dropout, and a buffer of momentum: a step computes and holds more.
    #[serde(default)]
    beside: (bool, bool),
    /// Its rounds compute more than the probe's, and teach that.
    side_term: bool,
    order: Order,
    base: Base,
    compute: Compute,
    choices: usize,
    /// Classes of a head.
    #[serde(default)]
    labels: usize,
    /// Answers that the loss is among: they decide which records count.
    #[serde(default)]
    among: Vec<String>,
}

/// Before passes could be computed as one, each was by itself.
const fn one() -> u16 {
    1
}

impl Question {
    /// What this job asks of a worker that says so of itself; `None` if it has no such data.
    fn of(registration: &Registration, spec: &Spec) -> Option<Self> {
        let records = registration.datasets.get(&spec.data.dataset)?.clone();
        let mezo = &spec.training.mezo;
        Some(Self {
            version: registration.version.clone(),
            threads: registration.threads,
            memory_limit_bytes: registration.memory_limit_bytes,
            dataset: spec.data.dataset.clone(),
            records,
            targets: spec.adapter.targets.clone(),
            rank_max: spec.adapter.rank_max,
            importance: spec.adapter.importance,
            sequence_length: spec.training.sequence_length,
            batch: spec.training.batch,
            optimizer: spec.training.optimizer,
            zeroth_order: (
                spec.training.mezo.perturbations,
                spec.training.shares_directions(),
            ),
            abreast: mezo.abreast,
            directions: (
                mezo.scaling.is_some() || mezo.mask.is_some(),
                spec.training.sends_scalars(Optimizer::Mezo),
            ),
            beside: (spec.training.dropout > 0.0, spec.training.momentum > 0.0),
            side_term: spec.aggregation.strategy.has_side_term(),
            order: spec.training.order,
            base: spec.precision.base,
            compute: spec.precision.compute,
            choices: spec.choices().len(),
            labels: spec.training.labels.len(),
            among: spec.training.choices.clone(),
        })
    }
}

impl Kept {
    /// Whether it may stand in for measuring, now: it answers this question, and has not expired.
    fn holds(&self, question: Option<&Question>, now: UnixMillis, reuse_ms: u64) -> bool {
        let fresh = now.since(self.measured_at) < reuse_ms;
        fresh && question == Some(&self.question)
    }
}

fn question(profiler: &Profiler, job: &Job, worker: &WorkerName) -> Option<Question> {
    let member = profiler.fleet.member(worker)?;
    Question::of(&member.registration, &job.spec)
}

/// Keeps what was measured just now.
pub async fn keep(
    profiler: &Profiler,
    job: &Job,
    profile: &Profile,
    measured_at: UnixMillis,
) -> Result<(), Error> {
    let Some(model) = job.spec.model.digest.as_ref() else {
        return Ok(());
    };
    let Some(question) = question(profiler, job, &profile.worker) else {
        return Ok(());
    };
    let kept = Kept {
        question,
        measured_at,
        job: job.id.clone(),
        profile: profile.clone(),
    };
    let key = measured_key(&profile.worker, model);
    remember(profiler, &key, &kept).await
}

/// For jobs to come; of what is too large nothing, and they have it measured again.
async fn remember(profiler: &Profiler, key: &str, kept: &Kept) -> Result<(), Error> {
    if let Err(error) = profiles::keep(profiler, key, kept).await? {
        let (worker, cause) = (&kept.profile.worker, error_chain(&error));
        tracing::warn!(%worker, cause, "what was measured is not kept for other jobs");
    }
    Ok(())
}

/// Gives the job the worker's kept profile, if there is one and it still holds; says so. Whether it has one now.
pub async fn fetch(profiler: &Profiler, job: &Owned, worker: &WorkerName) -> Result<bool, Error> {
    let (spec, own) = (&job.job().spec, &job.job().id);
    let Some(model) = spec.model.digest.as_ref().filter(|_| profiler.reuse_ms > 0) else {
        return Ok(false);
    };
    let key = measured_key(worker, model);
    let Some(kept) = profiler.kept.look(&key).await? else {
        return Ok(false);
    };
    let asked = question(profiler, job.job(), worker);
    if !kept.holds(asked.as_ref(), job.now(), profiler.reuse_ms) {
        return Ok(false);
    }
    let mut profile = kept.profile.clone();
    let from = kept.job.clone();
    if from == *own {
        // Taken over before a crash.
        return Ok(profiles::put(profiler, own, &profile).await?.is_ok());
    }
    match learn::from_job(profiler, &mut profile, &from).await {
        // What the other job came to is not this one's: where it cannot be read it teaches nothing, as if it were deleted.
        Err(Error::Bus(unread @ bus::Error::Decode { .. })) => {
            let cause = error_chain(&unread);
            tracing::warn!(job = %own, %worker, %from, cause, "its rounds teach nothing");
        }
        taught => taught?,
    }
    (profile.refined_to, profile.settled_to, profile.weighed_to) = (0, 0, 0);
    if let Err(error) = profiles::put(profiler, own, &profile).await? {
        let cause = error_chain(&error);
        tracing::warn!(job = %own, %worker, %from, cause, "what was measured is not reused");
        return Ok(false);
    }
    job.say(Event::Reused {
        site: worker.clone(),
        from,
        measured_at: kept.measured_at,
    })
    .await?;
    // From now on this job's rounds refine it.
    let kept = Kept {
        job: own.clone(),
        profile,
        ..kept
    };
    remember(profiler, &key, &kept).await?;
    Ok(true)
}

#[cfg(test)]
mod tests;

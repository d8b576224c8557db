//! Zeroth-order rounds: how their steps are made, what a site is told so that it can replay what it missed,
//! and a site's adapter made again from its scalars.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use artifacts::tensors::digest;
use contract::topology::round_key;
use domain::adapter::{RankTable, WeightShape};
use domain::artifact::{ArtifactRef, Digest};
use domain::id::{JobId, WorkerName};
use domain::job::mezo::Rates;
use domain::job::spec::Optimizer;
use domain::job::{Job, Phase};
use domain::plan::WorkerPlan;
use domain::round::Summary;
use domain::zeroth::{Committed, GENERATOR, Scalars, Steps, Walk};
use engine::train::Emphasis;
use sha2::{Digest as _, Sha256};

use super::{emphasis, rates};
use crate::Error;
use crate::app::Aggregator;
use crate::handlers::starting;
use crate::strategy;
use crate::strategy::walk::Stretch;

/// Rounds that a task tells at most.
const LOG_ROUNDS: u32 = 64;

/// Bytes of scalars that a task tells at most.
const LOG_BYTES: usize = 64 << 10;

/// How files of adapters made again begin.
const PREFIX: &str = "walked-";

/// How the steps of a site of this job are made in a round, at the job's rate. Sites that do not share their directions have
/// seeds of their own: SHA-256 of the job's seed and the site's name. Where a plan says how many steps a round has, and
/// another plan may say otherwise, the round too: steps of two rounds may then have the same number, and would be made
/// along the same directions again. Jobs that began under a release without that go on without.
#[must_use]
pub fn steps(job: &Job, worker: &WorkerName, round: u32) -> Steps {
    let training = &job.spec.training;
    let seed = if training.shares_directions() {
        training.seed
    } else {
        let by_round = job.round_seeds && training.local_steps.fixed().is_none();
        own_seed(training.seed, worker, by_round.then_some(round))
    };
    Steps::of(training, seed)
}

/// As [`steps`], at the rate that the site has in this round.
///
/// # Errors
/// If the store does not answer.
pub async fn own_steps(
    aggregator: &Aggregator,
    job: &Job,
    worker: &WorkerName,
    round: u32,
) -> Result<Steps, Error> {
    let steps = steps(job, worker, round);
    let factor = rates::of(aggregator, job, worker, round).await?;
    Ok(Steps {
        rate: factor * steps.rate,
        ..steps
    })
}

/// Checks that this release makes the directions that the job began with, if it has any and they are made again.
///
/// # Errors
/// If it does not, or the store does not answer.
pub async fn same_directions(aggregator: &Aggregator, job: &Job) -> Result<(), Error> {
    if job.generator == GENERATOR || !goes_on_walking(&job.phase) {
        return Ok(());
    }
    let plan = aggregator.plan(job).await?;
    let walks = |site: &WorkerPlan| site.optimizer == Optimizer::Mezo;
    if plan.workers.values().any(walks) {
        let began = job.generator;
        return Err(Error::Generator { began });
    }
    Ok(())
}

/// Whether steps that were made before this phase are made again in it or after it: none was made before the first
/// round, and none is after the last.
const fn goes_on_walking(phase: &Phase) -> bool {
    !matches!(
        phase,
        Phase::Starting { resume: None } | Phase::Finalizing { .. }
    )
}

fn own_seed(seed: u64, worker: &WorkerName, round: Option<u32>) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"fedpipe zeroth-order worker");
    hash.update(seed.to_le_bytes());
    hash.update(worker.as_str());
    if let Some(round) = round {
        hash.update(round.to_le_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest
        .first_chunk()
        .map_or(seed, |first| u64::from_le_bytes(*first))
}

/// The steps of a round of all sites together, if they walk along the same directions.
#[must_use]
pub fn together(job: &Job, round: u32, emphasis: Emphasis) -> Option<Stretch> {
    let training = &job.spec.training;
    training.shares_directions().then(|| Stretch {
        round,
        steps: shared(job),
        first_step: first_step(round, together_steps(job)),
        emphasis,
    })
}

/// How all sites make their steps where they walk along the same directions, at the job's rate.
pub fn shared(job: &Job) -> Steps {
    let training = &job.spec.training;
    Steps::of(training, training.seed)
}

/// The last `count` rounds before `round`, or all that there were.
///
/// # Errors
/// If one is not there, or the store does not answer.
pub async fn before(
    aggregator: &Aggregator,
    job: &Job,
    round: u32,
    count: u32,
) -> Result<Vec<Committed>, Error> {
    let last = round.saturating_sub(1);
    let past = aggregator.logs.past(aggregator, job, last).await?;
    let wanted = count.min(last) as usize;
    let Some(from) = past.len().checked_sub(wanted) else {
        let what = "scalars of an earlier round";
        return Err(Error::Missing { what });
    };
    let past = past.iter().skip(from);
    Ok(past.map(|past| past.committed.clone()).collect())
}

/// Steps are counted through all rounds, as if each had had as many.
fn first_step(round: u32, steps: u32) -> u64 {
    u64::from(round.saturating_sub(1)) * u64::from(steps)
}

/// Steps of a round of sites that walk along the same directions: the job's, which it then must give.
fn together_steps(job: &Job) -> u32 {
    job.spec.training.most_steps()
}

/// What the training task of a site that trains so says; `None` if that is not zeroth-order.
///
/// # Errors
/// If the store does not answer.
pub async fn to_train(
    aggregator: &Aggregator,
    job: &Job,
    (worker, own): (&WorkerName, Optimizer),
    round: u32,
) -> Result<Option<Walk>, Error> {
    if own != Optimizer::Mezo {
        return Ok(None);
    }
    let before = round.saturating_sub(1);
    let own = own_steps(aggregator, job, worker, round).await?;
    let has_own = job.spec.training.mezo.rates != Rates::Fixed;
    Ok(Some(Walk {
        steps: steps(job, worker, round),
        rate: has_own.then_some(own.rate),
        log: missed(aggregator, job, worker, before).await?,
        mask: emphasis::masked(aggregator, job, round).await?,
        scaling: job.spec.training.mezo.scaling,
    }))
}

/// What a scoring task says; `None` if its adapter cannot be made from an earlier one.
///
/// # Errors
/// If the store does not answer.
pub async fn to_score(
    aggregator: &Aggregator,
    job: &Job,
    worker: &WorkerName,
    round: u32,
) -> Result<Option<Walk>, Error> {
    let log = missed(aggregator, job, worker, round).await?;
    if log.is_empty() {
        return Ok(None);
    }
    Ok(Some(Walk {
        log,
        mask: emphasis::masked(aggregator, job, round).await?,
        scaling: job.spec.training.mezo.scaling,
        ..Walk::new(shared(job))
    }))
}

/// The rounds up to `last` from the latest on that the worker trained: it held what that one began with; and
/// those before it by which directions are scaled.
async fn missed(
    aggregator: &Aggregator,
    job: &Job,
    worker: &WorkerName,
    last: u32,
) -> Result<Vec<Committed>, Error> {
    if !job.spec.training.shares_directions() {
        return Ok(Vec::new());
    }
    let past = aggregator.logs.past(aggregator, job, last).await?;
    let took_part = |one: &Past| one.workers.contains(worker);
    let scaling = job.spec.training.mezo.scaling;
    let scaled_by = scaling.map_or(0, |scaling| scaling.rounds as usize);
    let from = past.iter().rposition(took_part).unwrap_or(0);
    let from = from.saturating_sub(scaled_by);
    let missed = past.iter().skip(from);
    Ok(missed.map(|past| past.committed.clone()).collect())
}

/// A committed round, and who trained it.
#[derive(Debug)]
struct Past {
    committed: Committed,
    workers: Vec<WorkerName>,
}

type Known = (u32, Arc<Vec<Past>>);

/// The latest committed rounds of each job, so that they are read once per round. A memory that can be lost.
#[derive(Debug, Default)]
pub struct Logs(Mutex<HashMap<JobId, Known>>);

impl Logs {
    /// Forgets a job.
    pub fn forget(&self, job: &JobId) {
        self.known().remove(job);
    }

    async fn past(
        &self,
        aggregator: &Aggregator,
        job: &Job,
        last: u32,
    ) -> Result<Arc<Vec<Past>>, Error> {
        let known = self.known().get(&job.id).cloned();
        if let Some((of, past)) = known
            && of == last
        {
            return Ok(past);
        }
        let past = Arc::new(read(aggregator, job, last).await?);
        let known = (last, Arc::clone(&past));
        self.known().insert(job.id.clone(), known);
        Ok(past)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rounds up to `last`, as many as fit in a task.
async fn read(aggregator: &Aggregator, job: &Job, last: u32) -> Result<Vec<Past>, Error> {
    let (mut past, mut bytes) = (Vec::new(), 0);
    let mut of = summary(aggregator, job, last).await?;
    for round in (1..=last).rev().take(LOG_ROUNDS as usize) {
        let before = summary(aggregator, job, round - 1).await?;
        // A round that was committed before scalars were kept ends what can be replayed.
        let Some(scalars) = of.scalars else { break };
        bytes += 4 * scalars.values().len();
        if bytes > LOG_BYTES {
            break;
        }
        let in_time = of.workers.iter().filter(|one| one.trained_in.is_none());
        past.push(Past {
            workers: in_time.map(|one| one.worker.clone()).collect(),
            committed: Committed {
                round,
                first_step: first_step(round, together_steps(job)),
                start: before.global.sha256.clone(),
                scalars,
            },
        });
        of = before;
    }
    past.reverse();
    Ok(past)
}

/// A committed round.
///
/// # Errors
/// If it is not there, or the store does not answer.
pub async fn summary(aggregator: &Aggregator, job: &Job, round: u32) -> Result<Summary, Error> {
    let found = aggregator.rounds.get(&round_key(&job.id, round)).await?;
    let found = found.map(|(summary, _)| summary);
    found.ok_or(Error::Missing {
        what: "round summary",
    })
}

/// A site whose steps are done again.
#[derive(Debug, Clone, Copy)]
pub struct Walker<'a> {
    /// Whose.
    pub worker: &'a WorkerName,
    /// Of which round.
    pub round: u32,
    /// The merged adapter whose leading slices it started from.
    pub start: &'a ArtifactRef,
    /// How many of them, of each weight.
    pub ranks: &'a RankTable,
    /// Steps of its rounds, by its plan.
    pub steps: u32,
    /// The model's weights.
    pub weights: &'a [WeightShape],
}

/// The adapter that a site's scalars lead to, as a file that [`clean`] removes, and its digest.
///
/// # Errors
/// If storage or disk do not answer, or a number passes 32-bit floats.
pub async fn retraced(
    aggregator: &Aggregator,
    job: &Job,
    walker: &Walker<'_>,
    scalars: &Scalars,
) -> Result<(PathBuf, Digest), Error> {
    let Walker {
        worker,
        round,
        start,
        ranks,
        steps,
        weights,
    } = *walker;
    let stretch = Stretch {
        round,
        steps: own_steps(aggregator, job, worker, round).await?,
        first_step: first_step(round, steps),
        emphasis: emphasis::of(aggregator, job, round).await?,
    };
    let folder = starting::folder(aggregator, job).await?;
    // What is in it follows from its name and the job, so one that is there is not made twice: the merge finds
    // what was made when the scalars came.
    let own = Digest::from_bytes(&Sha256::digest(scalars.to_bytes()).into());
    let out = folder.join(format!(
        "{PREFIX}{round}-{worker}-{}.safetensors",
        own.hex()
    ));
    let start = aggregator.fetch(job, start).await?;
    let (scalars, path) = (scalars.clone(), out.clone());
    let (ranks, weights) = (ranks.clone(), weights.to_vec());
    let made = tokio::task::spawn_blocking(move || {
        if path.is_file() {
            return digest(&path).map_err(Error::from);
        }
        let own = strategy::walk::Leading {
            start: &start,
            ranks: &ranks,
            weights: &weights,
        };
        stretch.retrace(&own, &scalars, &path)
    });
    Ok((out, made.await??))
}

/// Removes the adapters that were made again for a round that is committed.
pub async fn clean(aggregator: &Aggregator, job: &Job) {
    let Ok(folder) = starting::folder(aggregator, job).await else {
        return;
    };
    let Ok(mut files) = tokio::fs::read_dir(&folder).await else {
        return;
    };
    while let Ok(Some(file)) = files.next_entry().await {
        if file.file_name().to_string_lossy().starts_with(PREFIX)
            && let Err(error) = tokio::fs::remove_file(file.path()).await
        {
            tracing::debug!(%error, "an adapter made again remains");
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::job::Resume;
    use domain::time::UnixMillis;

    use super::*;

    fn job(local_steps: &str) -> Job {
        let text = format!(
            r#"{{"name":"j","model":{{"source":"file:///m"}},"data":{{"dataset":"mail"}},
                "training":{{"local_steps":{local_steps}}}}}"#
        );
        Job::submitted(
            JobId::from_bits(1),
            serde_json::from_str(&text).expect("legal"),
            Digest::from_bytes(&[0; 32]),
            "local".parse().expect("legal"),
            UnixMillis(0),
        )
    }

    #[test]
    fn no_round_walks_along_directions_of_an_earlier_one_whose_plan_had_other_steps() {
        // Eight steps in round 2, and under another plan four in round 3.
        assert_eq!(first_step(2, 8), first_step(3, 4));
        let seed = |job: &Job, worker: &str, round| {
            let worker: WorkerName = worker.parse().expect("legal");
            steps(job, &worker, round).seed
        };
        let open = job(r#""auto""#);
        assert_ne!(seed(&open, "a", 2), seed(&open, "a", 3));
        assert_ne!(seed(&open, "a", 2), seed(&open, "b", 2));
        let fixed = job("4");
        assert_eq!(seed(&fixed, "a", 2), seed(&fixed, "a", 3));

        let mut older = job(r#""auto""#);
        older.round_seeds = false;
        assert_eq!(seed(&older, "a", 2), seed(&fixed, "a", 2));
        assert_eq!(seed(&older, "a", 3), seed(&fixed, "a", 2));
    }

    #[test]
    fn a_job_that_has_made_no_step_or_makes_none_any_more_needs_no_directions() {
        let global = ArtifactRef {
            key: "k".to_owned(),
            sha256: Digest::from_bytes(&[1; 32]),
            bytes: 1,
        };
        let (round, resume) = (1, None);
        assert!(!goes_on_walking(&Phase::Starting { resume }));
        let resume = Resume {
            round,
            global: global.clone(),
        };
        let resume = Some(resume);
        assert!(goes_on_walking(&Phase::Starting { resume }));
        let deadline = UnixMillis(1);
        assert!(goes_on_walking(&Phase::Evaluating {
            round,
            global: global.clone(),
            deadline
        }));
        let kept = None;
        assert!(!goes_on_walking(&Phase::Finalizing { global, kept }));
    }
}

//! The tasks that a phase implies, one per worker.

use bus::drive::Owned;
use bus::{Error, Said};
use contract::Message;
use contract::message::control::{Control, Order};
use contract::message::task::{Evaluate, Head, ModelRef, Train};
use domain::adapter::RankTable;
use domain::artifact::ArtifactRef;
use domain::id::WorkerName;
use domain::job::Job;
use domain::object;
use domain::plan::WorkerPlan;
use domain::time::UnixMillis;
use domain::zeroth::Walk;

use super::follow;

/// The head of any task of a job.
#[must_use]
pub fn head(job: &Job, worker: &WorkerName, expires_at: UnixMillis) -> Head {
    let model = match (&job.spec.model.digest, &job.spec.model.source) {
        (Some(digest), _) => ModelRef::Digest(digest.clone()),
        (None, source) => {
            let path = source.as_deref().unwrap_or_default();
            ModelRef::Path(path.trim_start_matches("file://").to_owned())
        }
    };
    Head {
        worker: worker.clone(),
        job: job.id.clone(),
        epoch: job.epoch,
        submitter: job.submitter.clone(),
        model,
        dataset: job.spec.data.dataset.clone(),
        expires_at,
    }
}

/// Where a worker puts the update of a round; deleted two rounds later.
#[must_use]
pub fn update_prefix(job: &Job, worker: &WorkerName, round: u32) -> String {
    object::update_prefix(&job.id, worker, round)
}

/// Where merged adapters lie.
#[must_use]
pub fn global_prefix(job: &Job) -> String {
    object::global_prefix(&job.id)
}

/// One round of training.
#[must_use]
pub fn train(
    job: &Job,
    worker: &WorkerName,
    (plan, live): (&WorkerPlan, &RankTable),
    (round, global): (u32, &ArtifactRef),
    walk: Option<Walk>,
    deadline: UnixMillis,
) -> Train {
    Train {
        head: head(job, worker, deadline),
        round,
        rounds: job.spec.rounds.count,
        global: global.clone(),
        scale: job.spec.adapter.scale(),
        plan: plan.clone(),
        training: job.spec.training.told(plan.local_steps),
        strategy: job.spec.aggregation.strategy,
        live: live.clone(),
        walk,
        prefix: update_prefix(job, worker, round),
    }
}

/// One scoring.
#[must_use]
pub fn evaluate(
    job: &Job,
    worker: &WorkerName,
    plan: &WorkerPlan,
    (round, global): (u32, &ArtifactRef),
    walk: Option<Walk>,
    deadline: UnixMillis,
) -> Evaluate {
    let evaluation = job.spec.evaluation.as_ref();
    let sample = evaluation.and_then(|evaluation| evaluation.sample);
    Evaluate {
        head: head(job, worker, deadline),
        round,
        global: global.clone(),
        scale: job.spec.adapter.scale(),
        sample: sample.filter(|_| !follow::is_complete(job, round)),
        choices: job.spec.choices().to_vec(),
        among: !job.spec.training.choices.is_empty(),
        answers: evaluation.and_then(|evaluation| evaluation.answers),
        labels: job.spec.training.labels.clone(),
        plan: plan.clone(),
        walk,
    }
}

/// Gives a task to its worker; a task that lies there already stays as it is. The server drops it
/// when nobody wants the result any more.
///
/// # Errors
/// If the server does not confirm it.
pub async fn give<M: Message>(
    job: &Owned,
    task: &M,
    expires_at: UnixMillis,
) -> Result<Said, Error> {
    let left = std::time::Duration::from_millis(expires_at.since(job.now()));
    job.bus().publish(task, Some(left)).await
}

/// Tells every participant that tasks of earlier epochs no longer count. Whoever does not hear it
/// finds out when its task expires.
pub async fn cancel(job: &Owned) {
    let below = job.job().epoch.next();
    let orders = job.job().participants.iter().map(|worker| {
        let order = Order::Cancel {
            job: job.job().id.clone(),
            below,
        };
        let control = Control {
            worker: worker.clone(),
            order,
        };
        async move { job.bus().order(&control).await.is_ok() }
    });
    futures::future::join_all(orders).await;
}

//! A planned job: writes the untrained adapter that every worker starts from.

use bus::drive::{Next, Owned};
use chassis::failpoint::{Failpoint, hit};
use contract::topology::profile_key;
use domain::adapter::{HeadShape, WeightShape};
use domain::job::{Job, Phase, Resume};
use domain::plan::Plan;
use domain::profile::Measurement;
use domain::round::Summary;

use crate::app::Aggregator;
use crate::rounds::clean::merged_path;
use crate::rounds::{clean, commit, follow, tasks};
use crate::{Error, strategy};

pub async fn handle(aggregator: &Aggregator, job: &mut Owned) -> Result<Next, Error> {
    let plan = aggregator.plan(job.job()).await?;
    let weights = weights(aggregator, job.job(), &plan).await?;
    let folder = folder(aggregator, job.job()).await?;
    let path = merged_path(&folder, 0);
    let head = head(aggregator, job.job(), &plan).await?;
    let (ranks, seed, file) = (
        plan.global.clone(),
        job.job().spec.training.seed,
        path.clone(),
    );
    let written = tokio::task::spawn_blocking(move || {
        let mut out = strategy::files::create_with_head(&file, &ranks, &weights, head)?;
        let refused = |source| Error::Merge { round: 0, source };
        if let Some(head) = head {
            strategy::head::fresh(head, seed, &mut out).map_err(refused)?;
        }
        strategy::fresh(&ranks, &weights, seed, &mut out).map_err(refused)?;
        out.finish().map_err(Error::from)
    });
    written.await??;
    let prefix = tasks::global_prefix(job.job());
    let sent = aggregator
        .artifacts
        .put_file(&prefix, &path, &aggregator.transfer);
    let global = aggregator.reach.guard(sent).await??;
    hit(Failpoint::AggregatorStartAfterArtifact);
    let now = job.now();
    let summary = Summary {
        round: 0,
        global,
        side: domain::adapter::RankTable::default(),
        scalars: None,
        optimizer: None,
        opened_at: job.job().phase_since,
        committed_at: now,
        seconds: now.seconds_since(job.job().phase_since),
        overhead_seconds: 0.0,
        dropped_energy: 0.0,
        energies: domain::energy::EnergyTable::default(),
        asked: Vec::new(),
        shrunk: Vec::new(),
        workers: Vec::new(),
        missing: Vec::new(),
    };
    // Another process may have been here before: what it committed stands.
    let global = commit::summary(aggregator, &job.job().id, summary)
        .await?
        .global;
    hit(Failpoint::AggregatorStartAfterSummary);
    let next = follow::after_merge(
        job.job(),
        &plan,
        0,
        global,
        now,
        aggregator.config.liveness.idle_ms,
    );
    job.advance(next, Job::begin_walking).await?;
    hit(Failpoint::AggregatorStartAfterState);
    job.announce().await?;
    hit(Failpoint::AggregatorOpenAfterPublish);
    Ok(Next::Again)
}

/// The plan was looked at: the next round opens with whichever stands now.
pub async fn go_on(
    aggregator: &Aggregator,
    job: &mut Owned,
    resume: Resume,
) -> Result<Next, Error> {
    let plan = aggregator.plan(job.job()).await?;
    let Resume { round, global } = resume;
    let next = follow::after_score(job.job(), &plan, round, global, job.now());
    let paused = matches!(next, Phase::Paused { .. });
    job.advance(next, |job| job.pause_requested &= !paused)
        .await?;
    hit(Failpoint::AggregatorStartAfterState);
    job.announce().await?;
    hit(Failpoint::AggregatorOpenAfterPublish);
    Ok(Next::Again)
}

/// The model's adaptable weights, as any participant measured them.
pub async fn weights(
    aggregator: &Aggregator,
    job: &Job,
    plan: &Plan,
) -> Result<Vec<WeightShape>, Error> {
    Ok(measured(aggregator, job, plan).await?.weights)
}

/// What the first participant that was measured found.
async fn measured(aggregator: &Aggregator, job: &Job, plan: &Plan) -> Result<Measurement, Error> {
    for worker in plan.workers.keys() {
        if let Some((profile, _)) = aggregator
            .profiles
            .get(&profile_key(&job.id, worker))
            .await?
        {
            return Ok(profile.measurement);
        }
    }
    Err(Error::Missing { what: "profile" })
}

/// The classification head of a job that has labels.
pub async fn head(
    aggregator: &Aggregator,
    job: &Job,
    plan: &Plan,
) -> Result<Option<HeadShape>, Error> {
    let classes = job.spec.training.labels.len();
    if classes == 0 {
        return Ok(None);
    }
    let measured = measured(aggregator, job, plan).await?;
    let head = HeadShape::over(measured.encoder, &measured.weights, classes);
    Ok(head)
}

/// The job's working folder.
pub async fn folder(aggregator: &Aggregator, job: &Job) -> Result<std::path::PathBuf, Error> {
    let path = clean::folders(&aggregator.config.work_dir).join(job.id.as_str());
    let made = tokio::fs::create_dir_all(&path).await;
    made.map_err(|source| Error::Folder {
        path: path.display().to_string(),
        source,
    })?;
    Ok(path)
}

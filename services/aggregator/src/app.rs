//! Wiring: the table of contents.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use artifacts::Transfer;
use artifacts::spool::Spool;
use bus::drive::{Drive, Driver, Next, Owned};
use bus::fleet::Fleet;
use bus::{Bus, Retry, Store};
use chassis::service::Frame;
use chassis::{clock, telemetry};
use contract::permission;
use contract::topology::{Bucket, plan_key};
use domain::artifact::ArtifactRef;
use domain::cause::{Cause, CauseKind};
use domain::id::JobId;
use domain::job::{Job, Phase, Role};
use domain::plan::{Plan, PlanVersion};
use domain::profile::Profile;
use domain::round::{Evaluated, Summary};

use crate::handlers::{ended, evaluating, finalizing, folding, paused, starting, training};
use crate::rounds::rates::Recent;
use crate::rounds::reach::Reach;
use crate::rounds::standings::Standings;
use crate::rounds::walk::Logs;
use crate::rounds::{clean, late, walk};
use crate::{Config, Error};

/// Runs until it is told to stop.
///
/// # Errors
/// If the process cannot start; once it runs, trouble is waited out.
pub async fn run(config: Config) -> Result<(), Error> {
    // A side term's factors are large, and of another size for each weight.
    chassis::memory::give_back_large_blocks();
    let conditions = &["nats", "storage"];
    let frame = Frame::start("aggregator", &config.telemetry, &config.health, conditions)
        .await
        .map_err(Error::start)?;
    let bus = Bus::connect(&config.nats, &permission::Role::Aggregator).await?;
    if !bus.ready(&frame.token).await {
        frame.stop().await;
        return Ok(());
    }
    let connection = bus.clone();
    let is_connected = move || connection.is_connected();
    frame
        .readiness
        .follow_bus(is_connected, frame.token.clone());
    let artifacts = artifacts::Store::open(&config.storage)?;
    let reach = Arc::new(Reach::new(clock::now()));
    let watching = tokio::spawn({
        let (reach, store) = (Arc::clone(&reach), artifacts.clone());
        let idle = Duration::from_millis(config.liveness.idle_ms);
        let (readiness, token) = (frame.readiness.clone(), frame.token.clone());
        async move { reach.watch(&store, idle, &readiness, &token).await }
    });
    clean::begin_empty(&config.work_dir)?;
    let aggregator = Aggregator {
        fleet: Fleet::watch(&bus, clock::now),
        jobs: bus.store(Bucket::Jobs).await?,
        profiles: bus.store(Bucket::Profiles).await?,
        plans: bus.store(Bucket::Plans).await?,
        rounds: bus.store(Bucket::Jobs).await?,
        scores: bus.store(Bucket::Jobs).await?,
        artifacts,
        spool: Spool::open(&config.work_dir.join("spool"), config.spool_bytes)?,
        transfer: Transfer::new(frame.token.clone()),
        standings: Standings::default(),
        logs: Logs::default(),
        recent: Recent::default(),
        reach,
        config: config.clone(),
    };
    let drive = Drive {
        role: Role::Aggregator,
        instance: config.instance.unwrap_or_else(|| frame.instance.clone()),
        lease_ms: config.liveness.lease_ms(),
        sweep_ms: config.liveness.sweep_ms(),
        clock: clock::now,
        moved: telemetry::phase_ended,
    };
    drive.run(&bus, Arc::new(aggregator), &frame.token).await?;
    // One that panicked has logged it; stopping goes on.
    let _ = watching.await;
    frame.stop().await;
    Ok(())
}

/// What every step of the aggregator works with.
pub(crate) struct Aggregator {
    pub fleet: Fleet,
    /// To read: each job is written by whoever drives it.
    pub jobs: Store<Job>,
    pub profiles: Store<Profile>,
    pub plans: Store<Plan>,
    pub rounds: Store<Summary>,
    pub scores: Store<Evaluated>,
    pub artifacts: artifacts::Store,
    pub spool: Spool,
    pub transfer: Transfer,
    pub standings: Standings,
    pub logs: Logs,
    pub recent: Recent,
    pub reach: Arc<Reach>,
    pub config: Config,
}

impl Aggregator {
    /// The job's plan, which exists from `starting` on.
    pub async fn plan(&self, job: &Job) -> Result<Plan, Error> {
        let version = job.plan.ok_or(Error::Missing { what: "plan" })?;
        self.plan_of(job, version).await
    }

    /// A version of the job's plan.
    pub async fn plan_of(&self, job: &Job, version: PlanVersion) -> Result<Plan, Error> {
        let stored = self.plans.get(&plan_key(&job.id, version)).await?;
        stored
            .map(|(plan, _)| plan)
            .ok_or(Error::Missing { what: "plan" })
    }

    /// An artifact of the job as a local file.
    pub async fn fetch(&self, job: &Job, artifact: &ArtifactRef) -> Result<PathBuf, Error> {
        let (store, transfer) = (&self.artifacts, &self.transfer);
        let fetched = self.spool.ensure(&job.id, store, artifact, transfer);
        Ok(self.reach.guard(fetched).await??)
    }

    /// Whether storage gives us an artifact: its description, without the content.
    pub async fn look_up(&self, artifact: &ArtifactRef) -> Result<(), Error> {
        let looked = self.artifacts.look_up(artifact, &self.transfer);
        self.reach.guard(looked).await??;
        Ok(())
    }

    /// The end of a job whose own deadline has passed: what it was doing, and what kept it.
    fn passed(&self, job: &Owned) -> Cause {
        let phase = job.job().phase.name();
        let mut message = format!("the job's deadline passed while it was {phase}");
        if let Some(held) = job.held() {
            let seconds = job.now().since(held.since) / 1000;
            message.push_str(&format!(
                "; the aggregator could not go on in the last {seconds} s: {}",
                held.why
            ));
        }
        Cause {
            kind: CauseKind::DeadlinePassed,
            message,
            sites: self.standings.troubles(job.job()),
        }
    }
}

impl Driver for Aggregator {
    type Error = Error;

    async fn step(&self, job: &mut Owned) -> Result<Next, Error> {
        let phase = job.job().phase.clone();
        let goes_on = !phase.is_terminal() && !matches!(phase, Phase::Paused { .. });
        if goes_on && job.now() >= job.job().deadline() {
            let cause = self.passed(job);
            job.fail(cause).await?;
            return Ok(Next::Again);
        }
        late::withdraw(job).await?;
        if goes_on {
            walk::same_directions(self, job.job()).await?;
        }
        match phase {
            Phase::Starting { resume: None } => starting::handle(self, job).await,
            Phase::Starting {
                resume: Some(resume),
            } => starting::go_on(self, job, resume).await,
            Phase::Training {
                round,
                global,
                opened_at,
                deadline,
                asked,
            } => {
                training::handle(
                    self,
                    job,
                    &training::Open {
                        round,
                        global,
                        opened_at,
                        deadline,
                        asked,
                    },
                )
                .await
            }
            Phase::Folding {
                round,
                global,
                opened_at,
                closed,
            } => {
                folding::handle(
                    self,
                    job,
                    &folding::Decided {
                        round,
                        global,
                        opened_at,
                        closed,
                    },
                )
                .await
            }
            Phase::Evaluating {
                round,
                global,
                deadline,
            } => {
                evaluating::handle(
                    self,
                    job,
                    &evaluating::Merged {
                        round,
                        global,
                        deadline,
                    },
                )
                .await
            }
            Phase::Finalizing { global, kept } => finalizing::handle(self, job, global, kept).await,
            Phase::Paused { resume, since } => paused::handle(self, job, (&resume, since)).await,
            _ => ended::handle(self, job).await,
        }
    }

    fn retry(&self, error: &Error) -> Retry {
        error.retry()
    }

    async fn give_up(&self, job: &mut Owned, error: &Error) -> Result<(), bus::Error> {
        if job.job().phase.is_terminal() {
            return Ok(());
        }
        let message = format!(
            "the aggregator cannot go on: {}",
            bus::drive::error_chain(error)
        );
        job.fail(Cause {
            kind: CauseKind::Internal,
            message,
            sites: Vec::new(),
        })
        .await
    }

    async fn left(&self, job: &JobId) {
        clean::forget(self, job).await;
    }
}

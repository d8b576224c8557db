//! Wiring: the table of contents.

use std::sync::Arc;
use std::time::Duration;

use bus::drive::{Drive, Driver, Next, Owned};
use bus::fleet::Fleet;
use bus::{Bus, Retry, Store};
use chassis::service::Frame;
use chassis::{clock, telemetry};
use contract::permission;
use contract::topology::Bucket;
use domain::cause::{Cause, CauseKind};
use domain::job::{Phase, Role};
use domain::plan::Plan;
use domain::profile::Profile;
use domain::round::Summary;
use tokio::sync::Mutex;

use crate::cache::Kept;
use crate::handlers::{profiling, queued, refining};
use crate::{Config, Error, queues};

/// Runs until it is told to stop.
///
/// # Errors
/// If the process cannot start; once it runs, trouble is waited out.
pub async fn run(config: Config) -> Result<(), Error> {
    let frame = Frame::start("profiler", &config.telemetry, &config.health, &["nats"])
        .await
        .map_err(Error::start)?;
    let bus = Bus::connect(&config.nats, &permission::Role::Profiler).await?;
    if !bus.ready(&frame.token).await {
        frame.stop().await;
        return Ok(());
    }
    let connection = bus.clone();
    let is_connected = move || connection.is_connected();
    frame
        .readiness
        .follow_bus(is_connected, frame.token.clone());
    let profiler = Profiler {
        fleet: Fleet::watch(&bus, clock::now),
        jobs: bus.store(Bucket::Jobs).await?,
        rounds: bus.store(Bucket::Jobs).await?,
        plans: bus.store(Bucket::Plans).await?,
        profiles: bus.store(Bucket::Profiles).await?,
        kept: bus.store(Bucket::Profiles).await?,
        reuse_ms: config.reuse_profiles_seconds.saturating_mul(1000),
        give_up_ms: config.liveness.give_up_ms(),
        idle_ms: config.liveness.idle_ms,
        admission: Mutex::new(()),
    };
    let ack_wait = Duration::from_millis(config.liveness.ack_wait_ms());
    let opener = bus.clone();
    tokio::spawn(queues::open(bus.registrations(), move |worker| {
        let bus = opener.clone();
        async move { bus.ensure_worker(&worker, ack_wait).await }
    }));
    let drive = Drive {
        role: Role::Profiler,
        instance: config.instance.unwrap_or_else(|| frame.instance.clone()),
        lease_ms: config.liveness.lease_ms(),
        sweep_ms: config.liveness.sweep_ms(),
        clock: clock::now,
        moved: telemetry::phase_ended,
    };
    drive.run(&bus, Arc::new(profiler), &frame.token).await?;
    frame.stop().await;
    Ok(())
}

/// What every step of the profiler works with.
pub(crate) struct Profiler {
    pub fleet: Fleet,
    pub jobs: Store<domain::job::Job>,
    pub rounds: Store<Summary>,
    pub plans: Store<Plan>,
    pub profiles: Store<Profile>,
    pub kept: Store<Kept>,
    /// How long a measurement may be reused, in milliseconds; 0: not at all.
    pub reuse_ms: u64,
    pub give_up_ms: u64,
    pub idle_ms: u64,
    /// One admission at a time, so that two jobs do not take the same site.
    pub admission: Mutex<()>,
}

impl Driver for Profiler {
    type Error = Error;

    async fn step(&self, job: &mut Owned) -> Result<Next, Error> {
        match job.job().phase.clone() {
            Phase::Queued => queued::handle(self, job).await,
            Phase::Profiling { deadline } => profiling::handle(self, job, deadline).await,
            Phase::Refining { resume, deadline } => {
                refining::handle(self, job, resume, deadline).await
            }
            _ => Ok(Next::Again),
        }
    }

    fn retry(&self, error: &Error) -> Retry {
        error.retry()
    }

    async fn give_up(&self, job: &mut Owned, error: &Error) -> Result<(), bus::Error> {
        let message = format!(
            "the profiler cannot go on: {}",
            bus::drive::error_chain(error)
        );
        job.fail(Cause {
            kind: CauseKind::Internal,
            message,
            sites: Vec::new(),
        })
        .await
    }
}

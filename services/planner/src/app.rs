//! Wiring: the table of contents.

use std::sync::Arc;

use bus::drive::{Drive, Driver, Next, Owned};
use bus::{Bus, Retry, Store};
use chassis::service::Frame;
use chassis::{clock, telemetry};
use contract::permission;
use contract::topology::Bucket;
use domain::cause::{Cause, CauseKind};
use domain::job::{Phase, Role};
use domain::plan::Plan;
use domain::profile::Profile;

use crate::handlers::planning;
use crate::solving::Solving;
use crate::{Config, Error};

/// Runs until it is told to stop.
///
/// # Errors
/// If the process cannot start; once it runs, trouble is waited out.
pub async fn run(config: Config) -> Result<(), Error> {
    let frame = Frame::start("planner", &config.telemetry, &config.health, &["nats"])
        .await
        .map_err(Error::start)?;
    let bus = Bus::connect(&config.nats, &permission::Role::Planner).await?;
    if !bus.ready(&frame.token).await {
        frame.stop().await;
        return Ok(());
    }
    let connection = bus.clone();
    let is_connected = move || connection.is_connected();
    frame
        .readiness
        .follow_bus(is_connected, frame.token.clone());
    let planner = Planner {
        profiles: bus.store(Bucket::Profiles).await?,
        plans: bus.store(Bucket::Plans).await?,
        solving: Solving::new(frame.token.clone()),
    };
    let drive = Drive {
        role: Role::Planner,
        instance: config.instance.unwrap_or_else(|| frame.instance.clone()),
        lease_ms: config.liveness.lease_ms(),
        sweep_ms: config.liveness.sweep_ms(),
        clock: clock::now,
        moved: telemetry::phase_ended,
    };
    drive.run(&bus, Arc::new(planner), &frame.token).await?;
    frame.stop().await;
    Ok(())
}

/// What every step of the planner works with.
pub(crate) struct Planner {
    pub profiles: Store<Profile>,
    pub plans: Store<Plan>,
    pub solving: Solving,
}

impl Driver for Planner {
    type Error = Error;

    async fn step(&self, job: &mut Owned) -> Result<Next, Error> {
        match job.job().phase.clone() {
            Phase::Planning { resume } => planning::handle(self, job, resume).await,
            _ => Ok(Next::Again),
        }
    }

    fn retry(&self, error: &Error) -> Retry {
        error.retry()
    }

    async fn give_up(&self, job: &mut Owned, error: &Error) -> Result<(), bus::Error> {
        let message = format!(
            "the planner cannot go on: {}",
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

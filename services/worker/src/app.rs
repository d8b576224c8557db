//! The wiring: what is opened, in which order, and what runs beside what.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artifacts::hub::Limits;
use artifacts::{Hub, ModelCache};
use bus::{Bus, Serve};
use chassis::memory;
use chassis::service::Frame;
use chassis::{clock, health};
use contract::permission::Role;
use domain::fleet::Stage;

use crate::compute::{Compute, Tempo};
use crate::floors::Floors;
use crate::journal::Casualty;
use crate::machine::Machine;
use crate::sealed::Sealed;
use crate::site::Site;
use crate::storage::Storage;
use crate::{Config, Error, beats, handlers, register};

/// Deliveries after which a task is given up without being looked at. Deaths are counted by the
/// journal, and end a task sooner; orderly restarts deliver again too and must not end one.
const MAX_DELIVERIES: u64 = 10;

/// How often old results are looked for.
const DAY: Duration = Duration::from_secs(86_400);

const REGISTERED: &str = "registered";

/// Runs a worker until it is told to stop.
///
/// # Errors
/// If the configuration or this machine cannot be used, or the compute thread dies.
pub async fn run(config: Config) -> Result<(), Error> {
    let name = config.check()?;
    let frame = Frame::start(
        "worker",
        &config.telemetry,
        &config.health,
        &["nats", REGISTERED],
    )
    .await?;
    let started_at = clock::now();
    let (memory_limit_bytes, exhaustion) = limits(&config)?;
    let bus = connect(&config, &name).await?;
    let machine = Machine::new(name, config, memory_limit_bytes, Tempo::Kept);
    let config = &machine.config;
    let state = |path: &str| config.state_dir.join(path);
    let sealed = Sealed::open(&state("sealed")).map_err(unusable(&state("sealed")))?;
    let inherited = machine
        .journal
        .inherit(&machine.name, exhaustion, memory_limit_bytes);
    let casualty = inherited.map_err(unusable(&state("running")))?;
    let hub = config.hub.or_environment(|name| std::env::var(name).ok());
    let site = Arc::new(Site {
        storage: Storage::open(&config.storage, &bus, &machine.name)?,
        cache: ModelCache::open(&state("models"), config.cache_bytes.0)?,
        hub: Hub::open(&hub, Limits::default()).map_err(artifacts::Error::from)?,
        compute: Compute::start(config.quantized())?,
        machine: Arc::new(machine),
        bus,
        sealed,
        floors: Floors::default(),
        token: frame.token.clone(),
    });
    serve(&site, &frame.readiness, started_at, casualty).await?;
    let gone = site.compute.is_gone();
    frame.stop().await;
    if gone {
        Err(Error::ComputeGone)
    } else {
        Ok(())
    }
}

async fn serve(
    site: &Arc<Site>,
    readiness: &health::Readiness,
    started_at: domain::time::UnixMillis,
    casualty: Option<Casualty>,
) -> Result<(), Error> {
    readiness.set(REGISTERED, false, "not registered yet");
    let beats = tokio::spawn(beats::run(Arc::clone(site)));
    let orders = tokio::spawn(handlers::order::listen(Arc::clone(site)));
    let bus = site.bus.clone();
    let ready = readiness.follow_bus(move || bus.is_connected(), site.token.clone());
    let sealed = site.sealed.clone();
    let pruning = tokio::spawn(sealed.prune_every(DAY, clock::now, site.token.clone()));
    let counted = Arc::clone(site);
    let registration =
        tokio::task::spawn_blocking(move || register::registration(&counted, started_at));
    if let Some(casualty) = casualty {
        let last_words = handlers::bury(site, casualty);
        let path = site.config.state_dir.join("running");
        if let Some(report) = last_words.map_err(unusable(&path))? {
            // Said at once: the task itself may come again only after a whole idle interval.
            let site = Arc::clone(site);
            tokio::spawn(async move { handlers::say(&site, &report, &site.token).await });
        }
    }
    let Ok(registration) = registration.await else {
        return Err(Error::ComputeGone);
    };
    if register::register(site, &registration).await {
        readiness.set(REGISTERED, true, "");
        // Who listens hears nobody who is not registered.
        beats::say(site).await;
        let options = Serve {
            worker: site.name.clone(),
            ack_wait: Duration::from_millis(site.config.liveness.ack_wait_ms()),
            max_deliveries: MAX_DELIVERIES,
        };
        let token = &site.token;
        site.bus
            .serve(&options, token, |delivery| handlers::handle(site, delivery))
            .await;
    }
    site.token.cancel();
    site.status.stage(Stage::Stopping, 0);
    beats::say(site).await;
    // A task that panicked has logged it; stopping goes on.
    let _ = futures::join!(beats, orders, ready, pruning);
    let _ = site.bus.round_trip().await;
    Ok(())
}

/// What the predecessor left, then this process's own limit and marker.
fn limits(config: &Config) -> Result<(u64, Option<memory::Exhaustion>), Error> {
    memory::give_back_large_blocks();
    let dir = &config.state_dir;
    std::fs::create_dir_all(dir).map_err(unusable(dir))?;
    let marker = dir.join("exhausted");
    let exhaustion = memory::take_exhaustion(&marker)?;
    memory::report_exhaustion_to(&marker)?;
    let limit = match config.memory_limit {
        Some(limit) => {
            memory::set_limit(limit.0)?;
            limit.0
        }
        None => memory::limit_bytes(Path::new("/"))?,
    };
    Ok((limit, exhaustion))
}

async fn connect(config: &Config, name: &domain::id::WorkerName) -> Result<Bus, Error> {
    Ok(Bus::connect(&config.nats, &Role::Worker(name.clone())).await?)
}

fn unusable(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::State { path, source }
}

//! The wiring: what runs in this process, and what feeds what.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use artifacts::Store as Objects;
use bus::Bus;
use bus::drive::error_chain;
use chassis::health::Readiness;
use chassis::service::Frame;
use contract::permission::Role;
use contract::topology::Bucket;
use domain::job::Job;
use futures::StreamExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::state::App;
use crate::{Config, Error, grants, observe, pin, routes};

/// Readiness: the message bus.
const NATS: &str = "nats";
/// Readiness: object storage.
const STORAGE: &str = "storage";

/// Pause between two looks at the bus.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two questions to object storage that answered.
const STORAGE_LOOKS: u32 = 15;
/// Pause before a broken subscription is opened again, and before a bus that is away is looked at again.
const MEND: Duration = Duration::from_millis(200);
/// How long open requests may take when the process stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves the API as a process of its own, until the process is told to stop.
///
/// # Errors
/// As [`serve`], and if telemetry, signals or health cannot start.
pub async fn run(config: Config) -> Result<(), Error> {
    config.check()?;
    let conditions = [NATS, STORAGE];
    let frame = Frame::start("api", &config.telemetry, &config.health, &conditions).await?;
    let served = serve(&config, &frame.readiness, &frame.token).await;
    frame.stop().await;
    served
}

/// Serves the API until the token is cancelled, without anything that a process has only once.
///
/// # Errors
/// [`Error`]: a configuration that cannot be used, or an address that is taken. A bus or a storage
/// that is away is waited for, and `/readyz` says so.
pub async fn serve(
    config: &Config,
    readiness: &Readiness,
    token: &CancellationToken,
) -> Result<(), Error> {
    let tokens = config.check()?;
    let bus = Bus::connect(&config.nats, &Role::Api).await?;
    let objects = Objects::open(&config.storage)?;
    let stop = token.child_token();
    let hub = pin::open(&config.hub)?;
    let app = App::new(bus, (objects, hub), config, tokens, stop.clone());

    let tasks = TaskTracker::new();
    tasks.spawn(until_stopped(app.clone(), follow_jobs(app.clone())));
    tasks.spawn(until_stopped(app.clone(), follow_workers(app.clone())));
    tasks.spawn(until_stopped(app.clone(), follow_beats(app.clone())));
    tasks.spawn(until_stopped(app.clone(), grants::listen(app.clone())));
    tasks.spawn(until_stopped(app.clone(), observe::look(app.clone())));
    tasks.spawn(until_stopped(
        app.clone(),
        look_at_bus(app.clone(), readiness.clone()),
    ));
    tasks.spawn(until_stopped(
        app.clone(),
        look_at_storage(app.clone(), readiness.clone()),
    ));
    tasks.close();

    let served = answer(config, app, readiness.clone()).await;
    stop.cancel();
    tasks.wait().await;
    served
}

async fn answer(config: &Config, app: App, readiness: Readiness) -> Result<(), Error> {
    let unusable = |source| Error::Listen {
        address: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    if let Some(path) = &config.address_file {
        write_address(path, address).map_err(|source| Error::AddressFile {
            path: path.clone(),
            source,
        })?;
    }
    tracing::info!(%address, token = !app.tokens().is_empty(), "api is served");
    let stop = app.stop().clone();
    let server = axum::serve(listener, routes::router(app, readiness))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        served = server => served.map_err(Error::Serve),
        // A client that does not go away does not keep the process.
        () = async { stop.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    }
}

/// Whoever waits for the file never sees half an address.
fn write_address(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, address.to_string())?;
    std::fs::rename(&partial, path)
}

async fn until_stopped(app: App, work: impl Future<Output = ()>) {
    chassis::signals::run_until(app.stop(), work).await;
}

async fn follow_jobs(app: App) {
    let mut changes = app.bus().changes::<Job>(Bucket::Jobs);
    while let Some(change) = changes.recv().await {
        // Other keys of this bucket are rounds and scores of a job.
        let Ok(id) = change.key.parse() else { continue };
        match change.value {
            Some(job) => app.watch().job(job),
            None => app.watch().job_gone(&id),
        }
    }
}

async fn follow_workers(app: App) {
    let mut changes = app.bus().registrations();
    while let Some(change) = changes.recv().await {
        let Ok(worker) = change.key.parse() else {
            continue;
        };
        match change.value {
            Some(registration) => app.watch().worker(registration, chassis::clock::now()),
            None => app.watch().worker_gone(&worker),
        }
    }
}

async fn follow_beats(app: App) {
    loop {
        match app.bus().beats().await {
            Ok(mut beats) => {
                while let Some(beat) = beats.next().await {
                    app.watch().beat(beat, chassis::clock::now());
                }
            }
            Err(error) => tracing::debug!(%error, "beats are not heard, listening again"),
        }
        tokio::time::sleep(MEND).await;
    }
}

async fn look_at_bus(app: App, readiness: Readiness) {
    let mut created = false;
    loop {
        if !app.bus().is_connected() {
            // A server may come back empty.
            created = false;
            readiness.set(NATS, false, "not connected");
        } else if created {
            readiness.set(NATS, true, "");
        } else {
            match app.bus().ensure_topology().await {
                Ok(()) => {
                    created = true;
                    readiness.set(NATS, true, "");
                }
                Err(error) => readiness.set(NATS, false, error_chain(&error)),
            }
        }
        // A process that starts is ready as soon as it can be.
        tokio::time::sleep(if created { LOOK } else { MEND }).await;
    }
}

async fn look_at_storage(app: App, readiness: Readiness) {
    loop {
        let looks = match app.objects().ready().await {
            Ok(()) => {
                readiness.set(STORAGE, true, "");
                STORAGE_LOOKS
            }
            Err(error) => {
                readiness.set(STORAGE, false, error_chain(&error));
                1
            }
        };
        tokio::time::sleep(LOOK * looks).await;
    }
}

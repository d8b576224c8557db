//! How a worker presents itself, once, as soon as the bus is there.

use std::time::Duration;

use chassis::clock;
use domain::fleet::Registration;
use domain::time::UnixMillis;

use crate::failure::explain;
use crate::site::Site;

/// Pauses between attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What this worker says of itself. Counts the data sets' records: not for async code.
#[must_use]
pub fn registration(site: &Site, started_at: UnixMillis) -> Registration {
    Registration {
        worker: site.name.clone(),
        version: engine::VERSION.to_owned(),
        host: sysinfo::System::host_name().unwrap_or_else(|_| site.name.to_string()),
        started_at,
        memory_limit_bytes: site.memory_limit_bytes,
        threads: site.threads,
        datasets: site.data.summaries(),
        policy: site.config.policy.sentence(),
        beat_ms: site.config.liveness.beat_ms(),
    }
}

/// Registers, trying until it works; `false` if the process stops first.
pub async fn register(site: &Site, registration: &Registration) -> bool {
    let mut pause = FIRST_PAUSE;
    let since = clock::Stopwatch::start();
    while let Err(error) = site.bus.register(registration).await {
        tracing::debug!(error = explain(&error), "not registered yet");
        let wait = tokio::time::sleep(pause);
        if site.token.run_until_cancelled(wait).await.is_none() {
            return false;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    tracing::info!(worker = %site.name, seconds = since.seconds(), "registered");
    true
}

//! Signs of life: every beat's interval and at every new stage, whatever is being computed.

use std::sync::Arc;
use std::time::Duration;

use chassis::clock;

use crate::site::Site;

/// Least time between two beats that new stages cause.
const BREATH: Duration = Duration::from_millis(20);

/// Beats until the worker is idle and stopping; call it in its own task.
pub async fn run(site: Arc<Site>) {
    let interval = Duration::from_millis(site.config.liveness.beat_ms());
    while !site.token.is_cancelled() {
        say(&site).await;
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = site.status.changed() => tokio::time::sleep(BREATH).await,
            () = site.token.cancelled() => {}
        }
    }
}

/// One beat. A beat that cannot be said is not kept: the next one is truer.
pub async fn say(site: &Site) {
    if !site.bus.is_connected() {
        return;
    }
    let beat = site.status.beat(&site.name, clock::now());
    if let Err(error) = site.bus.say(&beat).await {
        tracing::debug!(%error, "beat not said");
    }
}

//! Whether a process can work: a set of named conditions, each with the reason it is not met.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::telemetry::{self, Metric};

/// Between two looks at a condition that is met.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at one that is not: a process that starts is ready as soon as it can be.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A handle on the process's conditions; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// Reasons of the conditions that are not met.
    missing: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// Not ready until each of `conditions` was set.
    #[must_use]
    pub fn new(conditions: &[&'static str]) -> Self {
        let readiness = Self::default();
        for condition in conditions {
            readiness.set(condition, false, "not yet");
        }
        readiness
    }

    /// Says whether `condition` is met; `reason` is shown while it is not.
    pub fn set(&self, condition: &'static str, ready: bool, reason: impl Into<String>) {
        let met = if ready { 1.0 } else { 0.0 };
        telemetry::set(Metric::Ready, met, &[("condition", condition)]);
        if ready {
            self.lock().remove(condition);
        } else {
            self.lock().insert(condition, reason.into());
        }
    }

    /// Keeps `condition` as `is_met` says until the token is cancelled; `reason` is shown while it is not met.
    pub async fn keep(
        self,
        condition: &'static str,
        is_met: impl Fn() -> bool,
        reason: &'static str,
        token: CancellationToken,
    ) {
        loop {
            let met = is_met();
            self.set(condition, met, reason);
            let rest = tokio::time::sleep(if met { LOOK } else { LOOK_AGAIN });
            if token.run_until_cancelled(rest).await.is_none() {
                return;
            }
        }
    }

    /// Keeps the condition `nats` as the connection to the message bus is, in a task of its own, until the token is
    /// cancelled.
    pub fn follow_bus(
        &self,
        is_connected: impl Fn() -> bool + Send + 'static,
        token: CancellationToken,
    ) -> JoinHandle<()> {
        tokio::spawn(
            self.clone()
                .keep("nats", is_connected, "not connected", token),
        )
    }

    /// Whether every condition is met.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    /// The conditions that are not met, each with its reason.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<String, String> {
        let missing = self.lock();
        let owned = |(name, reason): (&&str, &String)| ((*name).to_owned(), reason.clone());
        missing.iter().map(owned).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        // Invariant: no code that holds the lock can leave the map half changed.
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_needs_every_condition_and_can_be_lost() {
        let readiness = Readiness::new(&["nats", "storage"]);
        readiness.set("nats", true, "");
        assert_eq!(readiness.reasons()["storage"], "not yet");
        assert!(!readiness.is_ready());
        readiness.clone().set("storage", true, "");
        assert!(readiness.is_ready());
        readiness.set("nats", false, "connection lost");
        assert_eq!(readiness.reasons()["nats"], "connection lost");
        assert!(!readiness.is_ready());
    }
}

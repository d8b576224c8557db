//! One signal's way out: no more waits than there is room for, what became of the rest is counted, and a collector that
//! takes nothing is said once, until it takes something again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use opentelemetry_sdk::error::OTelSdkResult;

use crate::telemetry::{Metric, count};

/// The label by which OpenTelemetry says that something did not go well; empty: it did.
const ERROR: &str = "error.type";

/// One signal's way out.
#[derive(Debug)]
pub(super) struct Gate {
    /// `traces`, `metrics` or `logs`.
    signal: &'static str,
    /// What was let in, or found no room; what was sent, or could not be. Metrics are not counted: what was not
    /// taken is sent again with the next.
    counters: Option<(Metric, Metric)>,
    room: usize,
    waiting: AtomicUsize,
    is_away: AtomicBool,
}

impl Gate {
    /// For a signal that waits in a queue of this room.
    pub(super) const fn counting(
        signal: &'static str,
        counters: (Metric, Metric),
        room: usize,
    ) -> Self {
        Self {
            signal,
            counters: Some(counters),
            room,
            waiting: AtomicUsize::new(0),
            is_away: AtomicBool::new(false),
        }
    }

    /// For metrics, which do not wait.
    pub(super) const fn uncounted(signal: &'static str) -> Self {
        Self {
            signal,
            counters: None,
            room: 0,
            waiting: AtomicUsize::new(0),
            is_away: AtomicBool::new(false),
        }
    }

    /// Lets one in, if there is room.
    pub(super) fn enter(&self) -> bool {
        let is_full = self.waiting.fetch_add(1, Ordering::Relaxed) >= self.room;
        if is_full {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some((processed, _)) = self.counters {
            let error = if is_full { "queue_full" } else { "" };
            count(processed, 1, &[(ERROR, error)]);
        }
        !is_full
    }

    /// So many have left the queue, to be sent.
    pub(super) fn leave(&self, many: usize) {
        self.waiting.fetch_sub(many, Ordering::Relaxed);
    }

    /// What became of so many that were sent.
    pub(super) fn sent(&self, many: usize, result: &OTelSdkResult) {
        if let Some((_, exported)) = self.counters {
            let error = if result.is_ok() { "" } else { "collector" };
            // Invariant: a batch is no larger than its queue.
            count(exported, many as u64, &[(ERROR, error)]);
        }
        let signal = self.signal;
        match result {
            Ok(()) if self.is_away.swap(false, Ordering::Relaxed) => {
                tracing::info!(signal, "the collector takes telemetry again");
            }
            Err(error) if !self.is_away.swap(true, Ordering::Relaxed) => {
                tracing::warn!(signal, %error, "the collector takes no telemetry; it is dropped until it does");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let gate = Gate::counting("traces", (Metric::SpansProcessed, Metric::SpansExported), 2);
        assert!(gate.enter() && gate.enter());
        assert!(!gate.enter() && !gate.enter(), "it is full");
        gate.leave(1);
        assert!(gate.enter());
        assert!(!gate.enter());
    }

    #[test]
    fn a_collector_is_away_from_the_first_failure_until_it_takes_something() {
        let gate = Gate::uncounted("metrics");
        let failed = || Err(OTelSdkError::InternalFailure("gone".to_owned()));
        let after = |result| {
            gate.sent(1, &result);
            gate.is_away.load(Ordering::Relaxed)
        };
        assert!(!after(Ok(())));
        assert!(after(failed()));
        assert!(after(failed()));
        assert!(!after(Ok(())));
    }
}

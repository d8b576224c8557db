//! One transfer as its owner sees it: how far it is, how to stop it, how fast it may be.

use std::future::Future;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Bytes between two looks at the token and two steps of the counter, on a link that is held slow.
const SLICE: u64 = 64 * 1024;

/// Counters, a token and a speed limit; clones share all three.
///
/// A default transfer counts for nobody, is never cancelled and runs at full speed.
#[derive(Debug, Clone, Default)]
pub struct Transfer {
    progress: Arc<AtomicU64>,
    moved: Arc<AtomicU64>,
    expected: Arc<AtomicU64>,
    cancel: CancellationToken,
    bandwidth: Option<NonZeroU64>,
    link_free_at: Arc<Mutex<Option<Instant>>>,
}

impl Transfer {
    /// A transfer that `cancel` stops, at full speed.
    #[must_use]
    pub fn new(cancel: CancellationToken) -> Self {
        Self {
            cancel,
            ..Self::default()
        }
    }

    /// The same, adding to the caller's own counter of progress.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<AtomicU64>) -> Self {
        self.progress = progress;
        self
    }

    /// The same, held to `bytes_per_second` in both directions together (an emulated slow link).
    #[must_use]
    pub fn with_bandwidth(mut self, bytes_per_second: Option<NonZeroU64>) -> Self {
        self.bandwidth = bytes_per_second;
        self
    }

    /// Bytes dealt with so far, those included that were found in place: a sign of life.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Bytes that crossed the link so far, manifests not counted.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Bytes of all that it is about, as soon as that is known; 0 before.
    #[must_use]
    pub fn expected(&self) -> u64 {
        self.expected.load(Ordering::Relaxed)
    }

    /// Waits for `work` or for the token, whichever is first.
    pub(crate) async fn guard<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            result = work => result,
        }
    }

    /// Takes `bytes` of the link's time and counts them as progress.
    pub(crate) async fn pace(&self, bytes: u64) -> Result<(), Error> {
        let Some(rate) = self.bandwidth else {
            self.count(bytes);
            return if self.cancel.is_cancelled() {
                Err(Error::Cancelled)
            } else {
                Ok(())
            };
        };
        let mut left = bytes;
        while left > 0 {
            let slice = left.min(SLICE);
            let sent_at = self.reserve(slice, rate).await;
            self.guard(async {
                tokio::time::sleep_until(sent_at).await;
                Ok(())
            })
            .await?;
            self.count(slice);
            left -= slice;
        }
        Ok(())
    }

    /// When the link has carried `bytes` more.
    async fn reserve(&self, bytes: u64, rate: NonZeroU64) -> Instant {
        let mut free_at = self.link_free_at.lock().await;
        let now = tick();
        let start = free_at.map_or(now, |at| at.max(now));
        let micros = bytes.saturating_mul(1_000_000) / rate;
        let end = start + Duration::from_micros(micros);
        *free_at = Some(end);
        end
    }

    pub(crate) fn count(&self, bytes: u64) {
        self.progress.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn expect(&self, bytes: u64) {
        self.expected.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The runtime's own time, for pacing a link and measuring one; nothing is decided by it.
#[expect(
    clippy::disallowed_methods,
    reason = "pacing waits on tokio's timer, and a probe is a time"
)]
pub(crate) fn tick() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limited_link_is_never_faster_than_it_says_and_shared_by_clones() {
        let transfer = Transfer::default().with_bandwidth(NonZeroU64::new(20_000_000));
        let other = transfer.clone();
        let start = tick();
        let (one, two) = tokio::join!(transfer.pace(1_500_000), other.pace(500_000));
        one.unwrap();
        two.unwrap();
        let seconds = (tick() - start).as_secs_f64();
        assert!(seconds >= 0.099, "{seconds}");
        assert_eq!(transfer.progress(), 2_000_000);
    }

    #[tokio::test]
    async fn a_cancelled_transfer_stops_waiting_for_its_link() {
        let cancel = CancellationToken::new();
        let transfer = Transfer::new(cancel.clone()).with_bandwidth(NonZeroU64::new(1));
        cancel.cancel();
        assert!(matches!(
            transfer.pace(1_000_000).await,
            Err(Error::Cancelled)
        ));
    }
}
